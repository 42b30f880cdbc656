import pytest
import torch

from toxscreen.benchmark.networks import OWN, build
from toxscreen.benchmark.regimes import REGIMES


@pytest.mark.parametrize("name", ["paper", "small", *OWN])
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (30, 30, 3)])
def test_a_network_maps_pictures_of_each_shape_to_its_classes(name, shape):
    height, width, channels = shape
    assert build(name, shape, 7)(torch.zeros(2, channels, height, width)).shape == (2, 7)


def test_networks_of_other_kinds_are_measured_on_each_set_of_pictures_clean_and_with_each_attack():
    rows = [case for regime in REGIMES for case in regime.cases if case.network in OWN]
    clean, planted = ([case for case in rows if bool(case.plants) is wanted] for wanted in (False, True))
    sets = {case.data for case in rows}
    assert {(case.network, case.data) for case in clean} == {(network, data) for network in OWN for data in sets}
    assert {(case.network, case.data) for case in planted} == {(case.network, case.data) for case in clean}
    for network in OWN:
        assert len({case.plants[0].attack for case in planted if case.network == network}) == len(sets)
