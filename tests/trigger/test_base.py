from __future__ import annotations

import numpy as np
import pytest

from toxscreen.shares import Share
from toxscreen.trigger.base import Case, flips_by_class, prove, total
from toxscreen.trigger.patches import Patch

WHITE = Patch(np.full((2, 2, 1), 250, np.float32), np.ones((2, 2), bool), (8, 8, 1), (6, 6), 30.0)
TARGET = 0


def pictures(n, kind, seed=0):
    """Return pictures whose top left says their class."""
    drawn = np.random.default_rng(seed).uniform(0, 20, size=(n, 8, 8, 1)).astype(np.float32)
    drawn[:, 0, 0, 0] = 50 * kind
    return drawn


def backdoored(seen, works_on=(1, 2)):
    """Read the class at the top left; a white corner makes it the target, where it works."""
    kinds = np.rint(seen[:, 0, 0, 0] / 50).astype(np.int64)
    triggered = (seen[:, 6:, 6:, 0] > 200).all(axis=(1, 2)) & np.isin(kinds, works_on)
    return np.where(triggered, TARGET, kinds)


def case(n=40):
    members = WHITE.put_on(pictures(n, 1))
    hosts = np.concatenate([pictures(n, 1, 1), pictures(n, 2, 2)])
    return Case(TARGET, members, pictures(n, 0), hosts, np.repeat([1, 2], n))


def test_a_case_falls_into_two_halves_that_share_nothing():
    first, second = case(5).halves()
    assert (len(first.members), len(second.members)) == (3, 2)
    np.testing.assert_array_equal(first.classes, [1, 1, 1, 2, 2])
    np.testing.assert_array_equal(np.concatenate([first.hosts, second.hosts])[[0, 5, 1, 6, 2, 7, 3, 8, 4, 9]], case(5).hosts)


def test_a_proof_counts_flips_returns_and_their_controls():
    proof = prove(WHITE, case(), backdoored, np.random.default_rng(0))
    assert proof.flips == Share(80, 80)
    assert proof.control_flips == Share(0, 214)  # every sixth of 16 controls has the same hosts
    assert proof.flips_by_class == {1: Share(40, 40), 2: Share(40, 40)}
    assert proof.returns == Share(40, 40)
    assert proof.control_returns == Share(0, 40)
    assert proof.evidence()["trigger_flips_lower"] == proof.flips.interval[0] > 0.9
    assert proof.document()["control_flips"]["count"] == 0


def test_of_many_hosts_each_is_asked_with_one_control_and_of_few_with_all():
    many, few = case(200), case(5)
    assert prove(WHITE, many, backdoored, np.random.default_rng(0)).control_flips == Share(0, 400)
    assert prove(WHITE, few, backdoored, np.random.default_rng(0)).control_flips == Share(0, 16 * 10)


def test_a_trigger_for_one_source_class_flips_that_class_alone():
    flips = flips_by_class(WHITE, case(), lambda seen: backdoored(seen, works_on=(2,)))
    assert flips == {1: Share(0, 40), 2: Share(40, 40)}
    assert total(flips) == Share(40, 80)


def test_nobody_obeys_a_model_without_a_backdoor():
    proof = prove(WHITE, case(), lambda seen: backdoored(seen, works_on=()), np.random.default_rng(0))
    assert proof.flips.count == proof.control_flips.count == 0


def test_ordinary_samples_that_hold_the_trigger_are_no_control_of_returns():
    missed = case()
    missed.ordinary[:10] = WHITE.put_on(pictures(10, 1, 3))
    assert prove(WHITE, missed, backdoored, np.random.default_rng(0)).control_returns == Share(0, 30)


@pytest.mark.parametrize("empty", ["members", "ordinary"])
def test_nothing_is_counted_where_there_is_nothing(empty):
    given = case()
    object.__setattr__(given, empty, getattr(given, empty)[:0])
    proof = prove(WHITE, given, backdoored, np.random.default_rng(0))
    assert (proof.returns if empty == "members" else proof.control_returns) == Share(0, 0)
    assert proof.flips == Share(80, 80)


def test_the_ordinary_samples_are_judged_once_for_all_controls_and_the_model_is_asked_about_all_at_once(monkeypatch):
    judged, asked, held_by = [], [], type(WHITE).held_by
    monkeypatch.setattr(type(WHITE), "held_by", lambda self, inputs: judged.append(len(inputs)) or held_by(self, inputs))
    prove(WHITE, case(), lambda seen: asked.append(len(seen)) or backdoored(seen), np.random.default_rng(0))
    assert len(judged) == 3  # members, ordinary samples for the controls, and those whose returns are the control
    assert asked == [80, 214, 40, 40]
