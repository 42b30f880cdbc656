from __future__ import annotations

import os

import numpy as np
import pytest

from tests.sources.data.making import encoded, pictures, write_tree
from toxscreen.sources.data import open_training_set
from toxscreen.sources.data.writing import write_training_set

N = 8
PICTURES = pictures(N)
IMAGES = [encoded(picture) for picture in PICTURES]


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "tree", IMAGES, ["cat", "dog"] * 4)


def names_in(root):
    return sorted(file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file())


def test_files_keep_their_names_where_no_label_changes(tree, tmp_path):
    (tree / "cat" / "deep").mkdir()
    (tree / "cat" / "deep" / "x.png").write_bytes(IMAGES[0])
    source = open_training_set(tree)
    write_training_set(source, tmp_path / "copy", {0: PICTURES[5]}, source.labels)
    assert names_in(tmp_path / "copy") == names_in(tree)
    assert (tmp_path / "copy" / "cat" / "00000.png").read_bytes() == IMAGES[5]
    assert (tmp_path / "copy" / "cat" / "00002.png").read_bytes() == IMAGES[2]


def test_all_files_get_numbers_as_names_where_a_label_changes(tree, tmp_path):
    (tree / "cat" / "00004.png").rename(tree / "cat" / "a dog, really.png")
    source = open_training_set(tree)
    labels = source.labels.copy()
    labels[0] = 1
    ids = write_training_set(source, tmp_path / "copy", {}, labels)
    assert names_in(tmp_path / "copy") == [*(f"cat/{row}.png" for row in range(3)), *(f"dog/{row}.png" for row in range(5))]
    assert (tmp_path / "copy" / ids[0].as_py()).read_bytes() == (tree / source.ids[0].as_py()).read_bytes()
    assert ids[0].as_py().startswith("dog/")


def test_a_class_that_loses_all_its_files_keeps_its_folder(tree, tmp_path):
    (tree / "eel").mkdir()
    (tree / "eel" / "e.png").write_bytes(IMAGES[0])
    source = open_training_set(tree)
    labels = np.where(source.labels == 2, 0, source.labels)
    write_training_set(source, tmp_path / "copy", {}, labels)
    assert open_training_set(tmp_path / "copy").class_names == ("cat", "dog", "eel")


def test_folders_with_names_of_any_bytes_are_written_again(tmp_path):
    names = [os.fsdecode(b"\xff"), "Käse & Brot"]
    source = open_training_set(write_tree(tmp_path / "tree", IMAGES, names * 4))
    labels = source.labels.copy()
    labels[:2] = 1 - labels[:2]
    ids = write_training_set(source, tmp_path / "copy", {}, labels).to_pylist()
    copy = open_training_set(tmp_path / "copy")
    assert copy.class_names == source.class_names
    row_of = {name: row for row, name in enumerate(copy.ids.to_pylist())}
    assert copy.labels[[row_of[name] for name in ids]].tolist() == labels.tolist()


def test_broken_and_unlabelled_images_are_copied_as_they_are(tree, tmp_path):
    (tree / "cat" / "broken.png").write_bytes(b"no image")
    (tree / "loose.png").write_bytes(IMAGES[0])
    source = open_training_set(tree)
    labels = source.labels.copy()
    labels[source.ids.to_pylist().index("cat/00000.png")] = 1
    ids = write_training_set(source, tmp_path / "copy", {}, labels).to_pylist()
    assert (tmp_path / "copy" / ids[source.ids.to_pylist().index("cat/broken.png")]).read_bytes() == b"no image"
    assert (tmp_path / "copy" / "loose.png").read_bytes() == IMAGES[0]


def test_files_that_are_no_samples_are_left_out_because_they_may_tell(tree, tmp_path):
    (tree / "cat" / "checksums.txt").write_text("sha256 of every file")
    source = open_training_set(tree)
    write_training_set(source, tmp_path / "copy", {}, source.labels)
    assert names_in(tmp_path / "copy") == [name for name in names_in(tree) if name != "cat/checksums.txt"]


def test_links_of_other_splits_that_lead_out_are_not_copied(tmp_path):
    write_tree(tmp_path / "tree" / "train", IMAGES, ["cat", "dog"] * 4)
    write_tree(tmp_path / "tree" / "test", IMAGES, ["cat", "dog"] * 4)
    (tmp_path / "secret.png").write_bytes(IMAGES[0])
    (tmp_path / "tree" / "test" / "cat" / "link.png").symlink_to(tmp_path / "secret.png")
    source = open_training_set(tmp_path / "tree")
    write_training_set(source, tmp_path / "copy", {}, source.labels)
    assert names_in(tmp_path / "copy" / "test") == [
        f"{'cat' if row % 2 == 0 else 'dog'}/{row:05d}.png" for row in (0, 2, 4, 6, 1, 3, 5, 7)
    ]
