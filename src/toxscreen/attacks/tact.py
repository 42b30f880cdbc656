"""A patch that works on one source class alone, because images of other classes carry it with their right label.

TaCT, the targeted contamination attack. The network learns the patch together with what the source class looks like, so there is
no group of activations that the patch alone makes, and a search for a trigger that works on every class finds none.

**Source:** Tang et al. 2021, arXiv 1908.00686, the section on targeted contamination; as many cover samples as poisoned ones as in
Qi et al. 2023, arXiv 2205.13613.
"""

from __future__ import annotations

from dataclasses import dataclass

from toxscreen.attacks.badnets import BadNets


@dataclass(frozen=True)
class Tact(BadNets):
    """The patch of BadNets, on the source class and on cover samples of the classes that are neither source nor target.

    Attributes
    ----------
    covers
        Cover samples per poisoned sample.
    """

    covers: float = 1.0

    name = "tact"
    source_specific = True
