from __future__ import annotations

import numpy as np
import pytest

from toxscreen.activations import Computed
from toxscreen.engine.shards import read_shard, shard_path, shards_in, write_shard
from toxscreen.errors import StoreError
from toxscreen.sources.data.base import NotExamined


def computed(n=5, **changes):
    rng = np.random.default_rng(0)
    layers = {name: rng.normal(size=(n, width)).astype(np.float32) for name, width in (("fc", 7), ("früh/1", 3))}
    holes = (NotExamined("b.png", "cannot be read", 9), NotExamined("no row", "is gone"))
    return Computed(np.arange(n), changes.pop("layers", layers), rng.normal(size=(n, 2)).astype(np.float32), holes)


def written(tmp_path, batch=None, key="key"):
    path = shard_path(tmp_path, np.arange(5))
    write_shard(path, computed() if batch is None else batch, key)
    return path


def assert_same(found, batch):
    np.testing.assert_array_equal(found.rows, batch.rows)
    np.testing.assert_array_equal(found.logits, batch.logits)
    assert list(found.layers) == list(batch.layers)
    for name, values in batch.layers.items():
        np.testing.assert_array_equal(found.layers[name], values)
        assert found.layers[name].dtype == values.dtype
    assert found.not_examined == batch.not_examined


def test_a_shard_is_read_back_as_it_was_computed(tmp_path):
    assert_same(read_shard(written(tmp_path), "key"), computed())
    assert len(shards_in(tmp_path)) == len(list(tmp_path.iterdir())) == 1


def test_a_batch_of_which_nothing_could_be_read_has_a_shard_too(tmp_path):
    nothing = computed(0, layers={})
    assert_same(read_shard(written(tmp_path, nothing), "key"), nothing)


def test_many_layers_keep_their_order(tmp_path):
    layers = {f"layer {index}": np.full((5, 2), index, np.float32) for index in range(12)}
    assert_same(read_shard(written(tmp_path, computed(layers=layers)), "key"), computed(layers=layers))


@pytest.mark.parametrize("place", [0.02, 0.3, 0.6, 0.99])
def test_an_altered_shard_is_found_and_named(tmp_path, place):
    path = written(tmp_path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)
    with pytest.raises(StoreError, match=path.name):
        read_shard(path, "key")


def test_a_shard_that_was_cut_short_is_found_and_named(tmp_path):
    path = written(tmp_path)
    for size in (0, 5, 100, path.stat().st_size - 1):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(StoreError, match=path.name):
            read_shard(path, "key")


def test_a_shard_that_was_computed_from_something_else_is_not_used(tmp_path):
    with pytest.raises(StoreError, match="computed from something else"):
        read_shard(written(tmp_path, key="another"), "key")


def test_a_shard_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(StoreError, match="cannot be used"):
        read_shard(tmp_path / "none.safetensors", "key")


def test_a_folder_that_cannot_be_written_to_is_told_and_nothing_stays(tmp_path):
    with pytest.raises(StoreError, match="could not be written"):
        write_shard(shard_path(tmp_path / "gone", np.arange(5)), computed(), "key")
    (tmp_path / "folder").mkdir()
    target = shard_path(tmp_path / "folder", np.arange(5))
    target.mkdir()
    with pytest.raises(StoreError, match="could not be written"):
        write_shard(target, computed(), "key")
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_the_same_rows_have_the_same_shard_and_others_another(tmp_path):
    paths = {shard_path(tmp_path, np.array(rows)) for rows in ([1, 2], [1, 2], [1, 3], [1], [2, 1])}
    assert len(paths) == 4
