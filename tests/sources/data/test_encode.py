from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tests.sources.data.making import encoded, image_table, pictures, write_shards
from toxscreen.errors import DataError, UsageError
from toxscreen.sources.data import open_training_set
from toxscreen.sources.data.decode import decode_image
from toxscreen.sources.data.encode import Recoder, kind_of

PICTURES = pictures(6, size=(16, 16))
LABELS = [0, 1] * 3


def recoded(tmp_path, images, changes):
    """The bytes of every image of a copy."""
    source = open_training_set(write_shards(tmp_path, image_table(images, LABELS[: len(images)])))
    recoder = Recoder(source, changes)
    return [recoder.encoded(row, data) for row, data in enumerate(images)]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("PNG", {}),
        ("PNG", {"compress_level": 9}),
        ("PNG", {"optimize": True}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("PPM", {}),
        ("TIFF", {}),
    ],
)
def test_a_changed_image_is_written_as_the_others_were_and_those_stay_as_they_are(tmp_path, kind, settings):
    images = [encoded(picture, kind, **settings) for picture in PICTURES]
    changed = 255 - PICTURES[2]
    copy = recoded(tmp_path, images, {2: changed})
    assert copy == [*images[:2], encoded(changed, kind, **settings), *images[3:]]


def test_where_no_setting_gives_the_old_bytes_all_images_of_the_format_are_written_anew(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "another program")
    images = [encoded(picture, pnginfo=info) for picture in PICTURES[:5]] + [encoded(PICTURES[5], "BMP")]
    copy = recoded(tmp_path, images, {2: 255 - PICTURES[2]})
    assert copy == [encoded(p) for p in (*PICTURES[:2], 255 - PICTURES[2], *PICTURES[3:5])] + [images[5]]


def test_jpegs_are_all_written_anew_with_the_same_tables(tmp_path):
    smooth = [np.full((16, 16, 3), 40 * row, np.uint8) for row in range(6)]
    images = [encoded(picture, "JPEG", quality=50 + row) for row, picture in enumerate(smooth)]
    copy = recoded(tmp_path, images, {2: 255 - smooth[2]})
    tables = [Image.open(BytesIO(data)).quantization for data in copy]
    assert all(table == tables[0] for table in tables)
    assert np.abs(decode_image(copy[2]).astype(int) - (255 - smooth[2])).max() < 5
    assert np.abs(decode_image(copy[3]).astype(int) - smooth[3]).max() < 5


def test_lossless_webp_stays_lossless(tmp_path):
    images = [encoded(picture, "WEBP", lossless=True, method=2) for picture in PICTURES]
    copy = recoded(tmp_path, images, {2: 255 - PICTURES[2]})
    assert all(
        np.array_equal(decode_image(data), p)
        for data, p in zip(copy, [*PICTURES[:2], 255 - PICTURES[2], *PICTURES[3:]], strict=True)
    )
    assert {kind_of(data) for data in copy} == {"lossless WEBP"}


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_format_is_kept(tmp_path, kind, channels):
    images = [encoded(picture, kind) for picture in pictures(6, channels)]
    before = decode_image(images[1])
    copy = recoded(tmp_path, images, {1: 255 - before})
    assert {kind_of(data) for data in copy} == {kind}
    assert decode_image(copy[1]).shape == before.shape


def test_images_that_cannot_be_read_keep_their_bytes(tmp_path):
    images = [encoded(PICTURES[0], "JPEG"), b"\xff\xd8\xff broken", encoded(PICTURES[2], "JPEG"), b"nothing"]
    copy = recoded(tmp_path, images, {0: PICTURES[0]})
    assert [copy[1], copy[3]] == [images[1], images[3]]
    assert copy[2] != images[2]


@pytest.mark.parametrize(
    "new", [PICTURES[0][:4], PICTURES[0].astype(float), "a text", np.zeros((16, 16), np.uint8), np.zeros((16, 16, 1), np.uint8)]
)
def test_a_changed_image_must_be_shaped_as_before(tmp_path, new):
    with pytest.raises(UsageError, match=r"uint8 \(16, 16, 3\)"):
        recoded(tmp_path, [encoded(picture) for picture in PICTURES], {0: new})


@pytest.mark.parametrize("data", [b"nothing", None, encoded(PICTURES[0])[:200]])
def test_an_image_that_cannot_be_read_cannot_be_changed(tmp_path, data):
    with pytest.raises(DataError, match="row 1 of"):
        recoded(tmp_path, [encoded(PICTURES[0]), data, encoded(PICTURES[2])], {1: PICTURES[1]})
