from __future__ import annotations

import subprocess
import sys
import tempfile

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

import toxscreen as ts
from tests import quick
from tests.clouds import clouds, plant
from toxscreen.errors import DataError, UsageError
from toxscreen.result import SAMPLES_SCHEMA, Verdict
from toxscreen.store import ActivationStore


class Pictures(Dataset):
    """Pictures as float arrays ``(1, 16, 16)``, as data sets of torch give them."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, row):
        return torch.from_numpy(self.images[row, None] / np.float32(255)), int(self.labels[row])


@pytest.fixture(scope="module")
def planted():
    """Return pictures, labels with poison in class 1, and a live network that has learned them, in training mode."""
    images, labels = quick.pictures(80)
    labels = labels.copy()
    rows = np.r_[0:20]
    images[rows, 12:15, 12:15] = np.array([[255, 0, 255], [0, 255, 0], [255, 0, 255]])
    labels[rows] = 1
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(1024, 32),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(32, 3),
    )
    inputs, targets = torch.from_numpy(images[:, None] / np.float32(255)), torch.from_numpy(labels)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    for step in range(150):
        batch = torch.arange(step % 5, 240, 5)
        loss = nn.functional.cross_entropy(network(inputs[batch]), targets[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return images, labels, network


def test_a_live_network_and_a_data_set_of_torch_are_scanned_and_left_as_they_were(planted):
    images, labels, network = planted
    calls = []
    hook = network[5].register_forward_hook(lambda *_: calls.append(1))
    network[1].eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    flags = [module.training for module in network.modules()]
    hooks = [list(module._forward_hooks) + list(module._forward_pre_hooks) for module in network.modules()]
    pixels, given = images.copy(), labels.copy()
    result = ts.scan(Pictures(images, labels), network)
    hook.remove()
    assert [str(found.verdict) for found in result.classes] == ["clean", "poisoned", "clean"]
    assert np.flatnonzero(result.samples["flagged"]).tolist() == list(range(20))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert [module.training for module in network.modules()] == flags
    assert flags[0] is True
    assert hooks == [[*hooks[0]], *hooks[1:]]
    assert [len(module._forward_hooks) for module in network.modules()] == [0] * len(flags)
    assert (images == pixels).all()
    assert (labels == given).all()
    assert calls  # the user's own hook ran


def test_a_network_without_poison_accuses_nobody(planted):
    images, labels, network = planted
    result = ts.scan((images[20:], labels[20:]), network)
    assert result.verdict is Verdict.CLEAN


@pytest.mark.parametrize("reduction", ["pca", "ica"])
def test_arrays_and_a_store_read_back_give_the_same_bytes_and_flag_what_the_data_does(planted, tmp_path, reduction):
    images, labels, network = planted
    names = ("cat", "dog", "fox")
    settings = {"class_names": names, "reduction": reduction, "seed": 4}
    ts.scan((images, labels), network, out=tmp_path / "run", **settings)
    with ActivationStore.open(tmp_path / "run" / "activations") as store:
        read = store.activations()
    arrays = {name: np.asarray(values) for name, values in read.layers.items()}
    for number, layers in enumerate((read.layers, arrays)):
        ts.scan(activations=layers, labels=labels, logits=read.logits, out=tmp_path / str(number), **settings)
    assert samples(tmp_path / "0") == samples(tmp_path / "1")
    found, with_trigger = (ts.load(tmp_path / name).samples.drop_columns(["score", "verdict"]) for name in ("0", "run"))
    assert found.equals(with_trigger)


def test_two_scans_with_one_seed_give_the_same_bytes(planted, tmp_path):
    images, labels, network = planted
    for name in ("a", "b"):
        ts.scan((images, labels), network, seed=7, out=tmp_path / name)
        torch.manual_seed(torch.seed())
    assert samples(tmp_path / "a") == samples(tmp_path / "b")


def samples(folder):
    return (folder / "samples.parquet").read_bytes()


def test_a_result_is_looked_at_saved_and_loaded(planted, tmp_path):
    images, labels, network = planted
    result = ts.scan((images, labels), network, class_names=("cat", "<dog>", "fox"), out=tmp_path / "run")
    assert ts.load(tmp_path / "run") == result
    assert result.samples.schema == SAMPLES_SCHEMA
    frame = result.samples.to_pandas()
    assert frame[frame.flagged].label.unique().tolist() == ["<dog>"]
    assert frame.score.between(0, 1).all()
    shown = result._repr_html_()
    assert "&lt;dog&gt;" in shown
    assert "<dog>" not in shown
    assert "<dog>" not in result.to_html(tmp_path / "page.html").read_text(encoding="utf-8")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "activations",
        "exhibits.json",
        "finished.json",
        "report.html",
        "result.json",
        "samples.parquet",
    }


def test_without_out_nothing_is_kept_on_disk(planted, tmp_path, monkeypatch):
    images, labels, network = planted
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ts.scan((images, labels), network)
    assert list(tmp_path.iterdir()) == []


def test_a_second_scan_in_one_folder_goes_on_with_its_activations(planted, tmp_path):
    images, labels, network = planted
    told = []
    for _ in range(2):
        ts.scan((images, labels), network, out=tmp_path, progress=lambda *what: told.append(what))
    passes = [done for what, done, _ in told if what == "computing activations"]
    assert passes == [0, 128, 240, 240]


def test_activations_are_scanned_without_torch():
    code = """
import sys
import numpy as np
import toxscreen as ts


class NoTorch:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'")


sys.meta_path.insert(0, NoTorch())
rng = np.random.default_rng(0)
result = ts.scan(activations=rng.normal(size=(200, 12)), labels=np.arange(200) % 2)
print(result.verdict)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603 our own code
    assert (done.returncode, done.stdout, done.stderr) == (0, "clean\n", "")


def test_activations_as_lists_and_as_tensors_are_scanned_too(tmp_path):
    rng = np.random.default_rng(0)
    made = plant(clouds((60, 60, 60), rng), 1, 15, rng)
    for name, values in (
        ("array", made.activations),
        ("list", made.activations.tolist()),
        ("tensor", torch.from_numpy(made.activations)),
        ("mapping", {"hidden": made.activations}),
    ):
        ts.scan(activations=values, labels=made.labels.tolist(), out=tmp_path / name)
        assert samples(tmp_path / name) == samples(tmp_path / "array")


ARRAYS = {"activations": np.zeros((30, 2)), "labels": np.arange(30) % 2}
PAIR = (np.zeros((30, 1, 4, 4), np.float32), np.arange(30) % 2)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "something to scan"),
        ({"model": nn.Linear(2, 2)}, "something to scan"),
        ({**ARRAYS, "data": PAIR}, "not both"),
        ({**ARRAYS, "model": nn.Linear(2, 2)}, "not both"),
        ({"activations": np.zeros((30, 2))}, "labels"),
        ({**ARRAYS, "split": "train"}, "leave split away"),
        ({**ARRAYS, "arch": "a:b", "label_column": "y"}, "leave label_column, arch away"),
        ({"data": PAIR, "labels": np.arange(30)}, r"scan\(\(inputs, labels\)\)"),
        ({"data": PAIR, "logits": np.zeros((30, 2))}, "go with activations"),
        ({"data": PAIR, "arch": "a:b"}, "--model"),
        ({"data": PAIR, "model": nn.Linear(2, 2), "arch": "a:b"}, "live module"),
        ({"data": PAIR, "split": "train"}, "no splits"),
        ({"data": PAIR, "model": 7}, "an nn.Module, got int"),
        ({**ARRAYS, "reduction": "tsne"}, "'pca' or 'ica'"),
        ({**ARRAYS, "n_components": 0}, "at least 1"),
        ({**ARRAYS, "batch_size": 0}, "at least 1"),
        ({**ARRAYS, "seed": -1}, "negative"),
        ({**ARRAYS, "layer": "attic"}, "'attic'"),
    ],
)
def test_settings_that_contradict_each_other_are_one_sentence(settings, said):
    with pytest.raises(UsageError, match=said):
        ts.scan(**settings)


def test_the_data_may_not_hold_the_run_folder(tmp_path):
    data = quick.write_pictures(tmp_path / "data", *quick.pictures(2))
    before = sorted(data.rglob("*"))
    for path in (data, str(data)):
        with pytest.raises(UsageError, match="outside"):
            ts.scan(path, out=data / "run")
    assert sorted(data.rglob("*")) == before


def test_what_to_keep_of_data_in_memory_is_told_by_row_and_label(planted):
    images, labels, network = planted
    result = ts.scan(Pictures(images, labels), network)
    kept = ts.clean(result)
    assert kept.rows.tolist() == np.flatnonzero(~result.samples["flagged"].to_numpy()).tolist()
    assert kept.labels.tolist() == labels[kept.rows].tolist()
    relabelled = ts.clean(result, action="relabel")
    assert set(relabelled.labels[relabelled.rows < 20].tolist()) <= {0, 2}
    with pytest.raises(DataError, match="in memory"):
        ts.clean(result, out="copy")


def test_a_path_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        ts.scan(tmp_path / "missing", out=tmp_path / "run")
