"""The state of a training goes to disk and comes back whole; what cannot be read is no state."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from toxscreen import checkpoint


class Training:
    """A network, an optimiser, a schedule and generators: everything that a step depends on."""

    def __init__(self, seed=0):
        torch.manual_seed(seed)
        self.network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=0.1)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimiser, 0.1, total_steps=12, pct_start=0.25)
        self.rng = np.random.default_rng(seed)

    @property
    def parts(self):
        return self.network, self.optimiser, self.schedule, self.rng

    def step(self, n):
        for _ in range(n):
            inputs = torch.from_numpy(self.rng.normal(size=(8, 3)).astype(np.float32))
            loss = nn.functional.cross_entropy(self.network(inputs), torch.arange(8) % 2)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            self.schedule.step()
        return {name: tensor.clone() for name, tensor in self.network.state_dict().items()}


@pytest.mark.parametrize("done", [1, 4, 11])  # while the rate rises, where it turns, and at its end
def test_what_is_taken_up_goes_on_as_if_it_had_never_stopped(tmp_path, done):
    first = Training()
    first.step(done)
    checkpoint.keep(tmp_path / "state.safetensors", *first.parts, done=done)
    expected = first.step(12 - done)
    second = Training(seed=5)
    assert checkpoint.restore(tmp_path / "state.safetensors", *second.parts) == done
    found = second.step(12 - done)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert second.schedule.get_last_lr() == first.schedule.get_last_lr()


def test_keeping_changes_nothing_and_leaves_one_file(tmp_path):
    kept, plain = Training(), Training()
    kept.step(2)
    generator = torch.get_rng_state()
    checkpoint.keep(tmp_path / "state.safetensors", *kept.parts, done=2)
    assert torch.equal(generator, torch.get_rng_state())
    torch.manual_seed(3)
    expected = kept.step(3)
    plain = Training()
    plain.step(2)
    torch.manual_seed(3)
    found = plain.step(3)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


def test_a_state_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    training = Training()
    training.step(1)
    checkpoint.keep(tmp_path / "state.safetensors", *training.parts, done=1)
    before = (tmp_path / "state.safetensors").read_bytes()

    def full(_tensors, path, *_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.keep(tmp_path / "state.safetensors", *training.parts, done=2)
    assert (tmp_path / "state.safetensors").read_bytes() == before


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def garbled(path):
    path.write_bytes(b"\x08\0\0\0\0\0\0\0{nothing")


def strange(path):
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(2)}, path)


@pytest.mark.parametrize("damage", [cut, garbled, strange, lambda path: path.unlink()])
def test_what_cannot_be_read_is_no_state_and_changes_nothing(tmp_path, damage):
    training = Training()
    training.step(2)
    path = tmp_path / "state.safetensors"
    checkpoint.keep(path, *training.parts, done=2)
    damage(path)
    other, twin = Training(), Training()
    assert checkpoint.restore(path, *other.parts) == 0
    state = twin.network.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in other.network.state_dict().items())
    assert other.rng.random() == twin.rng.random()


def test_nothing_in_the_file_is_pickled(tmp_path):
    training = Training()
    training.step(1)
    checkpoint.keep(tmp_path / "state.safetensors", *training.parts, done=1)
    with safe_open(tmp_path / "state.safetensors", "pt") as file:
        assert json.loads(file.metadata()["state"])["done"] == 1
        assert {name.partition(".")[0] for name in file.keys()} == {"weight", "moment", "generator"}  # noqa: SIM118


def test_another_key_is_another_file(tmp_path):
    key = {"data": "a", "seed": 0, "recipe": {"rate": 0.1}}
    assert checkpoint.file_for(tmp_path, key) == checkpoint.file_for(tmp_path, dict(reversed(key.items())))
    others = ({**key, "data": "b"}, {**key, "seed": 1}, {**key, "recipe": {"rate": 0.2}})
    assert len({checkpoint.file_for(tmp_path, other) for other in (key, *others)}) == 4
