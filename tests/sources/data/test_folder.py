from __future__ import annotations

import os

import numpy as np
import pytest

from tests.sources.data.making import encoded, pictures, write_tree
from toxscreen.errors import DataError, UsageError
from toxscreen.sources.data import find_split, open_training_set

PICTURES = pictures(6)
IMAGES = [encoded(picture) for picture in PICTURES]


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "tree", IMAGES, ["cat", "dog"] * 3)


def reasons(training_set):
    return {left.id: left.reason for left in training_set.not_examined()}


def test_the_folder_is_the_class_and_the_relative_path_the_id(tree):
    opened = open_training_set(tree)
    assert opened.class_names == ("cat", "dog")
    assert opened.ids.to_pylist() == [f"{c}/{row:05d}.png" for c, rows in (("cat", (0, 2, 4)), ("dog", (1, 3, 5))) for row in rows]
    assert opened.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert np.array_equal(opened.take(np.array([3]))[0], PICTURES[1])


def test_files_deeper_down_are_of_the_class_at_the_top(tree):
    (tree / "cat" / "2024" / "may").mkdir(parents=True)
    (tree / "cat" / "2024" / "may" / "x.PNG").write_bytes(IMAGES[0])
    opened = open_training_set(tree)
    assert opened.labels[opened.ids.to_pylist().index("cat/2024/may/x.PNG")] == 0


def test_hidden_files_and_files_that_are_no_images_are_ignored(tree):
    for name in ("notes.txt", ".hidden.png", "cat/.DS_Store", "cat/readme.md", ".git/a.png", "__MACOSX/._a.png"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_bytes(b"x")
    opened = open_training_set(tree)
    assert (len(opened), opened.class_names, opened.not_examined()) == (6, ("cat", "dog"), ())


def test_the_content_decides_what_can_be_read_and_not_the_ending(tree):
    (tree / "cat" / "really.jpg").write_bytes(IMAGES[0])
    (tree / "cat" / "text.png").write_bytes(b"no image")
    (tree / "cat" / "photo.heic").write_bytes(b"\0\0\0 ftypheic")
    (batch,) = open_training_set(tree).batches(20)
    assert [left.id for left in batch.unreadable] == ["cat/photo.heic", "cat/text.png"]
    assert len(batch.rows) == 7


def test_names_of_any_letters_and_bytes_are_kept(tmp_path):
    names = ["Käse und Brot/ü 1.png", "日本/\N{GRINNING FACE}.png", os.fsdecode(b"\xff\xfe/bad\xfa.png"), "back\\slash/x\\xfa.png"]
    for name, data in zip(names, IMAGES, strict=False):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(data)
    opened = open_training_set(tmp_path)
    assert sorted(opened.ids.to_pylist()) == sorted(
        ["Käse und Brot/ü 1.png", "日本/\N{GRINNING FACE}.png", "\\xff\\xfe/bad\\xfa.png", "back\\\\slash/x\\\\xfa.png"]
    )
    assert all(value is not None for value in opened.take(np.arange(4)))
    assert all(name.encode() for name in opened.class_names)


def test_an_image_beside_the_class_folders_has_no_label(tree):
    (tree / "loose.png").write_bytes(IMAGES[0])
    opened = open_training_set(tree)
    assert (opened.ids[0].as_py(), opened.labels[0]) == ("loose.png", -1)
    assert reasons(opened) == {"loose.png": "has no label"}


def test_a_class_folder_without_images_is_a_class_without_samples(tree):
    (tree / "eel").mkdir()
    opened = open_training_set(tree)
    assert opened.class_names == ("cat", "dog", "eel")
    assert np.bincount(opened.labels, minlength=3).tolist() == [3, 3, 0]


def test_links_that_lead_out_of_the_data_are_not_followed(tree, tmp_path):
    (tmp_path / "secret.png").write_bytes(IMAGES[0])
    (tree / "cat" / "out.png").symlink_to(tmp_path / "secret.png")
    (tree / "cat" / "gone.png").symlink_to("nowhere.png")
    (tree / "cat" / "ring.png").symlink_to("ring.png")
    (tree / "cat" / "up").symlink_to(tree)
    (tree / "fox").symlink_to(tmp_path)
    (tree / "dog" / "in.png").symlink_to(tree / "cat" / "00000.png")
    opened = open_training_set(tree)
    assert len(opened) == 7
    assert opened.class_names == ("cat", "dog")
    assert reasons(opened) == {
        "cat/out.png": "the link leads out of the data set and is not followed",
        "cat/gone.png": "the link leads nowhere",
        "cat/ring.png": "the link leads nowhere",
        "cat/up": "a link to a folder is not followed",
        "fox": "a link to a folder is not followed",
    }


def test_the_data_itself_may_be_given_by_a_link(tree, tmp_path):
    (tmp_path / "link").symlink_to(tree)
    assert len(open_training_set(tmp_path / "link")) == 6


def test_a_pipe_named_like_an_image_is_not_opened(tree):
    os.mkfifo(tree / "cat" / "pipe.png")
    assert reasons(open_training_set(tree)) == {"cat/pipe.png": "it is not a regular file"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root opens every folder")
def test_a_folder_that_cannot_be_opened_is_named(tree):
    (tree / "eel").mkdir(mode=0)
    assert "cannot be opened" in reasons(open_training_set(tree))["eel"]


def test_a_file_that_vanishes_is_unreadable_and_not_a_crash(tree):
    opened = open_training_set(tree)
    (tree / "dog" / "00001.png").unlink()
    (batch,) = opened.batches(10)
    assert [(left.id, left.reason) for left in batch.unreadable] == [("dog/00001.png", "there is no such file")]


@pytest.mark.parametrize("held_out", ["test", "val", "valid", "dev"])
def test_train_beside_a_held_out_folder_is_a_split_tree(tmp_path, held_out):
    write_tree(tmp_path / "train", IMAGES, ["cat", "dog"] * 3)
    write_tree(tmp_path / held_out, IMAGES[:4], ["cat", "dog"] * 2)
    (tmp_path / "docs").mkdir()
    assert len(open_training_set(tmp_path)) == 6
    assert find_split(tmp_path) == held_out
    assert len(open_training_set(tmp_path, split=held_out)) == 4
    assert open_training_set(tmp_path).ids[0].as_py() == "cat/00000.png"


def test_train_alone_is_a_split_tree_without_a_held_out_split(tmp_path):
    write_tree(tmp_path / "train", IMAGES, ["cat", "dog"] * 3)
    assert open_training_set(tmp_path).class_names == ("cat", "dog")
    assert find_split(tmp_path) is None


def test_a_class_may_be_called_train(tmp_path):
    write_tree(tmp_path, IMAGES, ["car", "train"] * 3)
    assert open_training_set(tmp_path).class_names == ("car", "train")


@pytest.mark.parametrize("content", [[], ["a.txt"], ["cat/a.txt", "dog/b.txt"]])
def test_a_folder_without_images_is_refused_with_what_is_read(tmp_path, content):
    for name in content:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DataError, match="holds none of these"):
        open_training_set(tmp_path)


@pytest.mark.parametrize(("label", "problem"), [("only", "class 'only'"), (".", "none of the 6")])
def test_a_folder_with_one_class_or_none_is_refused(tmp_path, label, problem):
    with pytest.raises(DataError, match=problem):
        open_training_set(write_tree(tmp_path, IMAGES, [label] * 6))


def test_class_names_may_be_given_in_another_order_but_must_cover_the_folders(tree):
    opened = open_training_set(tree, class_names=["dog", "cow", "cat"])
    assert opened.labels.tolist() == [2, 2, 2, 0, 0, 0]
    with pytest.raises(DataError, match="'dog'"):
        open_training_set(tree, class_names=["cat", "cow"])


def test_a_tree_of_files_has_no_columns(tree):
    with pytest.raises(UsageError, match="no columns"):
        open_training_set(tree, label_column="label")


def test_thousands_of_links_are_named_briefly_and_counted(tree):
    for number in range(150):
        (tree / "cat" / f"{number}.png").symlink_to("/nowhere.png")
    left_out = open_training_set(tree).not_examined()
    assert len(left_out) == 101
    assert left_out[-1].id == "50 more"
