from __future__ import annotations

import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.sources.data.making import encoded, pictures
from toxscreen.sources.data import decode
from toxscreen.sources.data.base import Unreadable
from toxscreen.sources.data.decode import channels_last, decode_image, image_pixels, read_file


def saved(image, kind="PNG", **settings):
    buffer = BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def png_that_claims(width, height):
    """A PNG of a few bytes whose header announces any size."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("kind", "settings"), [("PNG", {}), ("WEBP", {"lossless": True}), ("BMP", {}), ("TIFF", {}), ("PPM", {}), ("GIF", {})]
)
def test_lossless_formats_give_back_the_pixels(kind, settings, channels):
    picture = pictures(1, channels)[0] if kind != "GIF" else pictures(1, 1)[0].repeat(channels, axis=2)
    decoded = decode_image(encoded(picture, kind, **settings))
    expected = picture.repeat(3, axis=2) if channels == 1 and kind == "WEBP" else picture  # WebP knows no grey
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded if decoded.shape == expected.shape else decoded[..., :1], expected)


@pytest.mark.parametrize(
    ("mode", "kind", "channels"),
    [
        ("1", "PNG", 1),
        ("L", "JPEG", 1),
        ("LA", "PNG", 1),
        ("P", "PNG", 3),
        ("RGBA", "PNG", 3),
        ("CMYK", "JPEG", 3),
        ("RGB", "JPEG", 3),
    ],
)
def test_every_mode_becomes_grey_or_colour(mode, kind, channels):
    decoded = decode_image(saved(Image.new("RGB", (5, 4), (200, 100, 50)).convert(mode), kind))
    assert decoded.shape == (4, 5, channels)


@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_sixteen_bits_are_scaled_to_eight_and_not_cut_off(mode):
    wide = np.array([[0, 255, 256, 65535]])
    image = Image.fromarray(wide.astype(np.uint16 if mode == "I;16" else np.int32))
    assert decode_image(saved(image, "TIFF"))[..., 0].tolist() == [[0, 0, 1, 255]]


def test_the_first_frame_of_a_moving_image_counts():
    frames = [Image.new("L", (3, 3), shade) for shade in (10, 200)]
    decoded = decode_image(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert (decoded == 10).all()


def test_pixels_can_be_changed_by_whoever_gets_them():
    assert decode_image(encoded(pictures(1)[0])).flags.writeable


@pytest.mark.parametrize(
    "data",
    [b"", b"no image", b"\x89PNG\r\n\x1a\n", encoded(pictures(1, size=(40, 40))[0])[:900], encoded(pictures(1)[0], "JPEG")[:-300]],
)
def test_what_is_no_whole_image_is_unreadable_with_a_reason(data):
    decoded = decode_image(data)
    assert isinstance(decoded, Unreadable)
    assert decoded.reason
    assert "0x" not in decoded.reason  # an address in memory would differ from run to run


def test_formats_that_need_an_interpreter_are_not_opened():
    postscript = saved(Image.new("RGB", (4, 4)), "EPS")
    assert "not an image in one of the formats PNG" in decode_image(postscript).reason


@pytest.mark.parametrize(("width", "height"), [(8001, 8000), (12_000, 12_000), (60_000, 60_000)])
def test_an_image_bomb_is_refused_from_its_header_alone(width, height, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("was decoded"))
    assert "at most 64,000,000" in decode_image(png_that_claims(width, height)).reason


def test_the_largest_allowed_size_is_decoded_rather_than_refused():
    assert "at most" not in decode_image(png_that_claims(8000, 8000)).reason


def test_a_file_larger_than_any_allowed_image_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "MAX_BYTES", 10)
    (tmp_path / "big.png").write_bytes(b"x" * 11)
    assert "11 bytes" in read_file(tmp_path / "big.png").reason
    assert "11 bytes" in decode_image(b"x" * 11).reason


@pytest.mark.parametrize("name", ["missing.png", "folder", "nul\0.png"])
def test_a_file_that_cannot_be_read_is_a_reason_and_not_a_crash(tmp_path, name):
    (tmp_path / "folder").mkdir()
    assert isinstance(read_file(tmp_path / name), Unreadable)


def test_pillow_warns_nobody():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decode_image(png_that_claims(12_000, 12_000))  # Pillow warns of this size
        decode_image(saved(Image.new("P", (2, 2)), "PNG", transparency=b"\x00\x01"))  # and of this transparency
    assert caught == []


def test_floating_point_pixels_have_no_known_range():
    assert "floating-point" in decode_image(saved(Image.new("F", (2, 2)), "TIFF")).reason


def test_an_open_image_is_read_by_the_same_rules():
    picture = pictures(1)[0]
    assert np.array_equal(image_pixels(Image.fromarray(picture)), picture)
    assert isinstance(image_pixels(Image.open(BytesIO(encoded(pictures(1, size=(40, 40))[0])[:900]))), Unreadable)


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]), st.integers(0, 60))
def test_garbage_in_an_image_never_raises(garbage, kind, keep):
    data = encoded(pictures(1)[0], kind)
    assert isinstance(decode_image(data[:keep] + garbage + data[keep + len(garbage) :]), np.ndarray | Unreadable)


def test_stacks_of_images_are_seen_in_the_usual_layouts_without_a_copy():
    stack = pictures(4)
    assert channels_last(stack) is stack
    assert np.array_equal(channels_last(np.moveaxis(stack, 3, 1)), stack)
    assert channels_last(stack[..., 0]).shape == (4, 6, 5, 1)
    assert np.shares_memory(channels_last(stack[..., 0]), stack)


@pytest.mark.parametrize("array", [np.zeros((4, 6, 5)), np.zeros((4, 9), np.uint8), np.zeros((4, 6, 5, 2), np.uint8)])
def test_other_arrays_are_no_images(array):
    assert channels_last(array) is None


def test_several_threads_decode_at_once_and_warnings_are_as_they_were_afterwards(monkeypatch):
    both = threading.Barrier(2)

    def meet(_image):
        both.wait(timeout=10)  # which fails where one thread waits for the other
        warnings.warn("hidden", stacklevel=1)
        return np.zeros((1, 1, 1), np.uint8)

    monkeypatch.setattr(decode, "_to_array", meet)
    before = list(warnings.filters)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(decode_image, [saved(Image.new("L", (1, 1)))] * 2))
    assert [type(value) for value in found] == [np.ndarray] * 2
    assert warnings.filters == before
