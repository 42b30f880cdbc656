from __future__ import annotations

import errno
import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file

from tests import quick
from tests.fakes import FakeClassifier, FakeTrainingSet
from toxscreen import decoded, training
from toxscreen.errors import DataError, StoreError
from toxscreen.networks import SmallResNet
from toxscreen.sources.data import open_training_set
from toxscreen.training import PICTURES, Recipe, fit, train_classifier

ONCE = replace(quick.PICTURES, batch_size=32, min_epochs=1, max_epochs=1)


def pictures(per_class=12, n_classes=2, *, seed=0):
    return open_training_set(quick.pictures(per_class, n_classes, seed=seed))


def texts(per_class=12, n_classes=2, *, seed=0):
    return open_training_set(quick.texts(per_class, n_classes, seed=seed))


def trained(training_set, folder, held_out=None, *, seed=0, recipe=ONCE, **settings):
    return train_classifier(training_set, held_out, folder, seed=seed, recipe=recipe, **settings)


def weights(folder):
    return (folder / "weights.safetensors").read_bytes()


@pytest.fixture
def fitted(monkeypatch):
    """Return what each network was trained on, class indexes and inputs; no training happens."""
    seen = []

    def look(_network, batch, labels, *_, **__):
        seen.append((labels, batch(np.arange(len(labels))).numpy()))

    monkeypatch.setattr(training, "fit", look)
    return seen


@pytest.mark.parametrize(
    ("make", "recipe"), [(pictures, replace(quick.PICTURES, min_epochs=4, max_epochs=4)), (texts, quick.TEXTS)]
)
def test_what_can_be_learned_is_learned(make, recipe, tmp_path):
    result = trained(make(60, 3), tmp_path, recipe=recipe)
    assert result.out_of_sample_accuracy > 0.8
    assert result.measured_on == "a tenth of each class, held out"
    assert result.classifier.class_names == ("0", "1", "2")


@pytest.mark.parametrize("make", [pictures, texts])
def test_the_same_seed_trains_the_same_network_and_another_seed_another(make, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        trained(make(), tmp_path / name, seed=seed)
    assert weights(tmp_path / "a") == weights(tmp_path / "b") != weights(tmp_path / "c")


@pytest.mark.parametrize("make", [pictures, texts])
def test_the_generators_of_others_are_left_alone(make, tmp_path):
    torch.manual_seed(1)
    before, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - what others may use
    trained(make(), tmp_path / "a")
    torch.rand(5)
    trained(make(), tmp_path / "b")
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    torch.manual_seed(1)
    assert torch.equal(before, torch.get_rng_state())
    assert (np.random.get_state()[1] == legacy).all()  # noqa: NPY002


def test_the_global_generator_of_torch_is_put_back(tmp_path):
    before = torch.get_rng_state()
    trained(texts(), tmp_path)
    assert torch.equal(before, torch.get_rng_state())


def test_a_training_that_is_finished_is_not_made_again(tmp_path, monkeypatch):
    first = trained(pictures(), tmp_path)
    monkeypatch.setattr(training, "fit", None)
    again = trained(pictures(), tmp_path)
    assert again.out_of_sample_accuracy == first.out_of_sample_accuracy
    assert again.measured_on == first.measured_on
    assert again.classifier.fingerprint() == first.classifier.fingerprint()
    assert again.classifier.preprocessing == first.classifier.preprocessing


@pytest.mark.parametrize("other", ["data", "seed", "recipe"])
def test_other_data_another_seed_or_another_recipe_trains_anew(other, tmp_path, fitted):
    trained(pictures(), tmp_path)
    changes = {"seed": {"seed": 1}, "recipe": {"recipe": replace(ONCE, learning_rate=1e-4)}, "data": {}}[other]
    trained(pictures(seed=3 if other == "data" else 0), tmp_path, **changes)
    assert len(fitted) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["toxscreen.json", "training.json", "weights.safetensors"]


@pytest.mark.parametrize("lost", ["training.json", "weights.safetensors", "toxscreen.json"])
def test_a_training_that_was_not_finished_is_made_anew(lost, tmp_path, fitted):
    trained(pictures(), tmp_path)
    (tmp_path / lost).unlink()
    trained(pictures(), tmp_path)
    assert len(fitted) == 2
    assert (tmp_path / lost).exists()


@pytest.mark.parametrize("damaged", ["weights.safetensors", "toxscreen.json"])
def test_a_model_that_was_damaged_since_is_trained_again(damaged, tmp_path, fitted):
    trained(pictures(), tmp_path)
    whole = (tmp_path / damaged).read_bytes()
    (tmp_path / damaged).write_bytes(whole[:-7])
    trained(pictures(), tmp_path)
    assert len(fitted) == 2
    assert (tmp_path / damaged).read_bytes() == whole


def test_a_record_that_is_damaged_vouches_for_nothing(tmp_path, fitted):
    trained(pictures(), tmp_path)
    for content in ("{", "[]", "null"):
        (tmp_path / "training.json").write_text(content)
        trained(pictures(), tmp_path)
    assert len(fitted) == 4


def test_a_record_does_not_vouch_for_weights_that_came_after_it(tmp_path, monkeypatch):
    trained(pictures(), tmp_path)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "_write_record", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(pictures(seed=3), tmp_path)
    again = trained(pictures(), tmp_path)
    assert again.classifier.fingerprint() == trained(pictures(), tmp_path / "new").classifier.fingerprint()


def test_what_a_killed_training_left_is_taken_away(tmp_path):
    (tmp_path / ".decoded-killed").mkdir()
    (tmp_path / ".decoded-killed" / "pixels.npy").write_bytes(b"gigabytes")
    trained(pictures(), tmp_path)
    assert not list(tmp_path.glob(".decoded*"))


# What it is trained and measured on


def test_a_tenth_of_each_class_is_held_out_and_a_class_of_fewer_than_ten_is_trained_on_whole(tmp_path, fitted):
    labels = np.repeat([0, 1, 2], [40, 29, 9])
    training_set = FakeTrainingSet(list(quick.pictures(26)[0][..., None]), labels, modality="image")
    trained(training_set, tmp_path)
    assert np.bincount(fitted[0][0]).tolist() == [36, 27, 9]


def test_the_held_out_tenth_is_what_is_measured(tmp_path, fitted, monkeypatch):
    measured = []
    monkeypatch.setattr(training, "_accuracy", lambda *what: measured.append(what[2]) or 0.5)
    data = pictures(20)
    trained(data, tmp_path)
    pixels = np.array(data.take(np.arange(40)))
    shown = np.rint(fitted[0][1] * fitted_std(tmp_path) + fitted_mean(tmp_path)).astype(int)
    used = {tuple(picture.ravel()) for picture in shown}
    (rows,) = measured
    assert len(rows) == 4
    assert len(used) == 36
    assert not any(tuple(pixels[row].ravel().astype(int)) in used for row in rows)


def preprocessing(folder):
    return json.loads((folder / "toxscreen.json").read_text())["preprocessing"]


def fitted_mean(folder):
    return preprocessing(folder)["mean"][0] * 255


def fitted_std(folder):
    return preprocessing(folder)["std"][0] * 255


def test_accuracy_is_measured_by_the_labels_of_the_split_that_was_kept_for_it(tmp_path):
    recipe = replace(quick.PICTURES, min_epochs=4, max_epochs=4)
    images, labels = quick.pictures(40, 2)
    names, held_out = ("0", "1"), quick.pictures(20, 2)
    right = trained(open_training_set((images, labels)), tmp_path, open_training_set(held_out), recipe=recipe)
    wrong_split = open_training_set((held_out[0], 1 - held_out[1]), class_names=names)
    wrong = trained(open_training_set((images, labels)), tmp_path / "wrong", wrong_split, recipe=recipe)
    assert right.out_of_sample_accuracy > 0.8
    assert wrong.out_of_sample_accuracy == pytest.approx(1 - right.out_of_sample_accuracy)
    assert "split" in right.measured_on


def test_accuracy_counts_the_samples_that_can_be_read_and_have_a_label():
    labels = np.arange(1200) % 2
    source = FakeTrainingSet(list(np.eye(2)[labels]), labels, unreadable=range(0, 1200, 5))
    source.labels = np.where(np.arange(1200) < 100, -1, labels)
    assert training._accuracy(FakeClassifier(), source, None) == 1
    assert training._accuracy(FakeClassifier(), source, np.arange(500, 700)) == 1
    source.labels[600:] = 1 - source.labels[600:]
    assert training._accuracy(FakeClassifier(), source, np.arange(500, 700)) == 0.5
    assert math.isnan(training._accuracy(FakeClassifier(), source, np.arange(100)))


def test_with_a_split_to_measure_on_every_sample_is_trained_on(tmp_path, fitted):
    trained(pictures(20), tmp_path, pictures(5, seed=2))
    assert np.bincount(fitted[0][0]).tolist() == [20, 20]


def test_where_nothing_can_be_held_out_the_accuracy_is_no_number(tmp_path):
    assert math.isnan(trained(pictures(9), tmp_path).out_of_sample_accuracy)
    assert math.isnan(trained(pictures(9), tmp_path).out_of_sample_accuracy)


@pytest.mark.parametrize("modality", ["image", "text"])
def test_samples_that_cannot_be_read_or_have_no_label_are_not_trained_on(modality, tmp_path, fitted):
    found, labels = quick.pictures(10, 2) if modality == "image" else quick.texts(10, 2)
    inputs = list(found[..., None]) if modality == "image" else [f"{text} row{row}" for row, text in enumerate(found)]
    training_set = FakeTrainingSet(inputs, labels, modality=modality, unreadable=(0, 12))
    training_set.labels[[1, 2, 13]] = -1
    trained(training_set, tmp_path, FakeTrainingSet(inputs[:3], labels[:3], modality=modality))
    used, encoded = fitted[0]
    assert np.bincount(used).tolist() == [7, 8]
    assert len(encoded) == 15
    if modality == "text":
        words = preprocessing(tmp_path)["words"]
        assert not {"row0", "row12", "row1", "row2", "row13"} & set(words)


def test_samples_after_an_unreadable_one_keep_their_own_labels(tmp_path, fitted):
    images, labels = quick.pictures(600, 2)
    dark = np.where(labels[:, None, None] == 1, 0, 255).astype(np.uint8) + np.zeros_like(images)
    training_set = FakeTrainingSet(list(dark[..., None]), labels, modality="image", unreadable=range(3, 1200, 7))
    trained(training_set, tmp_path, training_set)
    used, encoded = fitted[0]
    assert ((encoded.mean(axis=(1, 2, 3)) < 0) == (used == 1)).all()


def test_texts_after_an_unreadable_one_keep_their_own_labels(tmp_path, fitted):
    labels = np.arange(1200) % 2
    found = [("left " if label else "right ") * 5 for label in labels]
    training_set = FakeTrainingSet(found, labels, modality="text", unreadable=range(3, 1200, 7))
    trained(training_set, tmp_path, training_set)
    used, encoded = fitted[0]
    left = preprocessing(tmp_path)["words"].index("left")
    first = {label: set(encoded[used == label, 0].tolist()) for label in (0, 1)}
    assert len(first[0]) == len(first[1]) == 1
    assert first[0] != first[1]
    assert left >= 0


# Inputs of many kinds


def test_pictures_of_mixed_sizes_and_channels_get_one_size(tmp_path):
    rng = np.random.default_rng(0)
    shapes = [(20, 14, 3), (16, 18, 1), (12, 30, 3)] * 8
    inputs = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    result = trained(FakeTrainingSet(inputs, np.arange(24) % 2, modality="image"), tmp_path)
    assert (preprocessing(tmp_path)["height"], preprocessing(tmp_path)["width"], preprocessing(tmp_path)["channels"]) == (16, 16, 3)
    assert result.classifier.forward(result.classifier.encode(inputs[:3]), ()).logits.shape == (3, 2)


def test_large_pictures_are_shrunk_and_keep_their_shape(tmp_path, fitted):
    inputs = [np.full((300, 448, 1), row, np.uint8) for row in range(4)]
    trained(FakeTrainingSet(inputs, [0, 1, 0, 1], modality="image"), tmp_path)
    assert (preprocessing(tmp_path)["height"], preprocessing(tmp_path)["width"]) == (150, 224)
    assert fitted[0][1].shape == (4, 1, 150, 224)


def test_pixels_are_brought_to_mean_0_and_deviation_1(tmp_path, fitted):
    trained(pictures(20), tmp_path)
    encoded = fitted[0][1]
    assert abs(encoded.mean()) < 0.01
    assert encoded.std() == pytest.approx(1, abs=0.02)


def test_arrays_cannot_be_trained_on(tmp_path):
    with pytest.raises(DataError, match="--model"):
        trained(FakeTrainingSet([np.zeros(3)] * 20, np.arange(20) % 2), tmp_path)


def test_two_classes_must_have_samples_that_can_be_read(tmp_path):
    images, labels = quick.pictures(10, 2)
    training_set = FakeTrainingSet(list(images[..., None]), labels, modality="image", unreadable=range(10))
    with pytest.raises(DataError, match="two classes"):
        trained(training_set, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_of_which_nothing_can_be_read_is_an_error(tmp_path):
    for modality in ("image", "text"):
        with pytest.raises(DataError, match="readable"):
            trained(FakeTrainingSet(["x"] * 20, np.arange(20) % 2, modality=modality, unreadable=range(20)), tmp_path)


# The disk


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def broken(*_, **__):
    raise SafetensorError("I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("where", "how"), [("decoded._create_pixels", full), ("training.save_trained", broken), ("training._write_record", full)]
)
def test_a_full_disk_is_one_sentence_and_the_next_training_works(where, how, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(f"toxscreen.{where}", how)
        with pytest.raises(StoreError, match=r"No space left.*--out"):
            trained(pictures(), tmp_path)
    assert not list(tmp_path.glob(".decoded*"))
    trained(pictures(), tmp_path)


def test_the_blocks_of_decoded_pictures_are_reserved(tmp_path):
    pixels = decoded._create_pixels(tmp_path / "pixels.npy", (100, 64, 64, 1))
    assert pixels.shape == (100, 64, 64, 1)
    assert not pixels.any()
    if hasattr(os, "posix_fallocate"):
        assert (tmp_path / "pixels.npy").stat().st_blocks * 512 >= 100 * 64 * 64


# The recipe


def test_small_data_sets_are_seen_more_often_within_bounds():
    recipe = Recipe(presentations=1000, min_epochs=2, max_epochs=9, min_steps=0)
    assert [recipe.epochs(n) for n in (0, 1, 111, 112, 250, 251, 500, 10**6)] == [9, 9, 9, 9, 4, 4, 2, 2]
    assert PICTURES.epochs(60_000) == 5


def test_small_data_sets_are_shown_until_enough_steps_are_made_but_not_without_end():
    recipe = Recipe(batch_size=10, presentations=1, min_epochs=2, max_epochs=4, min_steps=100, small=0)
    assert [recipe.epochs(n) for n in (0, 1, 16, 17, 50, 500, 501)] == [60, 60, 60, 59, 20, 2, 2]


def test_small_data_sets_take_half_the_batch():
    recipe = Recipe(batch_size=10, small=100)
    assert [recipe.batch(n) for n in (99, 100)] == [5, 10]


def test_every_sample_is_shown_in_every_epoch_and_no_batch_has_one_sample():
    shown = []

    def batch(rows):
        shown.append(rows)
        return torch.zeros(len(rows), 1, 8, 8) + torch.from_numpy(rows)[:, None, None, None]

    told = []
    network = SmallResNet(1, 2, 8)
    recipe = replace(ONCE, batch_size=4, min_epochs=2, max_epochs=2)
    fit(network, batch, np.arange(9) % 2, recipe, np.random.default_rng(0), progress=lambda *what: told.append(what))
    assert [len(rows) for rows in shown] == [4, 4, 2] * 2
    assert set(np.concatenate(shown[:3])) == set(np.concatenate(shown[3:])) == set(range(9))
    assert (np.concatenate(shown[:3]) != np.concatenate(shown[3:])).any()
    assert not network.training
    assert [done for _, done, _ in told] == [4, 8, 9, 13, 17, 18]
    assert told[-1] == ("training a classifier", 18, 18)


@pytest.mark.parametrize(("small", "moved"), [(9, 1 / 4), (10, 0)])
def test_pictures_of_small_data_sets_are_not_moved(small, moved, monkeypatch):
    shares = set()
    monkeypatch.setattr(training, "_shift", lambda images, share, _: shares.add(share) or images)
    recipe = replace(ONCE, batch_size=4, small=small, shift=1 / 4)
    fit(SmallResNet(1, 2, 8), lambda rows: torch.zeros(len(rows), 1, 8, 8), np.arange(9) % 2, recipe, np.random.default_rng(0))
    assert shares == {moved}


def test_pictures_are_moved_by_a_part_of_their_side_and_their_border_is_repeated():
    images = torch.arange(1, 65.0).reshape(1, 1, 8, 8)
    rng = np.random.default_rng(0)
    seen = {training._shift(images, 1 / 8, rng).numpy().tobytes() for _ in range(60)}
    assert len(seen) == 9
    assert training._shift(images, 1 / 16 - 1e-3, rng) is images
    assert all(training._shift(images, 1 / 8, rng).min() >= 1 for _ in range(20))


def test_the_weights_that_are_kept_are_those_that_were_trained(tmp_path):
    result = trained(pictures(), tmp_path)
    state = result.classifier._network.state_dict()
    kept = load_file(tmp_path / "weights.safetensors")
    assert kept.keys() == state.keys()
    assert all(np.array_equal(kept[name], state[name].numpy()) for name in kept)


def test_a_trained_model_that_was_damaged_since_is_trained_again(tmp_path):
    training_set = pictures()
    trained(training_set, tmp_path)
    whole = weights(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(whole[:100])
    trained(training_set, tmp_path)
    assert weights(tmp_path) == whole


def test_a_small_data_set_is_shown_until_enough_steps_are_made_in_smaller_batches_and_never_too_often():
    recipe = Recipe()
    assert recipe.batch(60_000) == 2 * recipe.batch(2_500)
    assert recipe.epochs(2_500) * 2_500 / recipe.batch(2_500) >= recipe.min_steps
    assert recipe.epochs(60_000) == 5
    assert recipe.epochs(30) == recipe.epochs(300) < 100


@pytest.mark.parametrize("large", [False, True])
def test_pictures_of_a_small_data_set_are_not_moved(monkeypatch, large):
    moved = []
    monkeypatch.setattr(training, "_shift", lambda images, share, _rng: moved.append(share) or images)
    recipe = replace(ONCE, small=0 if large else 1000, shift=0.25)
    network = SmallResNet(1, 2, 8)
    fit(network, lambda rows: torch.zeros(len(rows), 1, 8, 8), np.zeros(40, np.int64), recipe, np.random.default_rng(0))
    assert set(moved) == {0.25 if large else 0.0}
