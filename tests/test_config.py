from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from toxscreen.config import ExtractionConfig, ReductionConfig, ScanConfig
from toxscreen.errors import UsageError


def test_the_paper_reduces_to_ten_components():
    assert ReductionConfig().n_components == 10


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: ExtractionConfig(batch_size=0), "batch_size must be at least 1, got 0"),
        (lambda: ExtractionConfig(batch_size=-5), "batch_size must be at least 1, got -5"),
        (lambda: ReductionConfig(method="tsne"), "reduction must be 'pca' or 'ica', got 'tsne'"),
        (lambda: ReductionConfig(n_components=0), "n_components must be at least 1, got 0"),
        (lambda: ScanConfig(seed=-1), "seed must not be negative, got -1"),
    ],
)
def test_a_setting_that_cannot_be_is_named_with_what_was_found(make, named):
    with pytest.raises(UsageError, match=named):
        make()


def test_the_smallest_settings_are_allowed():
    config = ScanConfig(ExtractionConfig(batch_size=1), ReductionConfig("ica", 1), seed=0)
    assert (config.extraction.batch_size, config.reduction.n_components) == (1, 1)


def test_settings_cannot_change_under_a_scan():
    config = ScanConfig()
    with pytest.raises(FrozenInstanceError):
        config.seed = 1
    with pytest.raises(FrozenInstanceError):
        config.reduction.n_components = 2
