"""Poisoning simulators, one member per file, to test a pipeline with.

Beside the flow: no module that detects may import them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from toxscreen.attacks.adaptive_blend import AdaptiveBlend
from toxscreen.attacks.adaptive_patch import AdaptivePatch
from toxscreen.attacks.badnets import BadNets
from toxscreen.attacks.base import Attack
from toxscreen.attacks.blended import Blended
from toxscreen.attacks.bpp import Bpp
from toxscreen.attacks.input_aware import InputAware
from toxscreen.attacks.label_consistent import LabelConsistent
from toxscreen.attacks.sentence import Sentence
from toxscreen.attacks.sig import Sig
from toxscreen.attacks.signature import Signature
from toxscreen.attacks.syntax import Syntax
from toxscreen.attacks.tact import Tact
from toxscreen.attacks.wanet import WaNet
from toxscreen.attacks.words import Words

ATTACKS: Mapping[str, Attack] = MappingProxyType(
    {
        attack.name: attack
        for attack in (
            BadNets(),
            Blended(),
            Tact(),
            AdaptiveBlend(),
            AdaptivePatch(),
            Sig(),
            LabelConsistent(),
            WaNet(),
            Bpp(),
            InputAware(),
            Words(),
            Sentence(),
            Signature(),
            Syntax(),
        )
    }
)
"""Every attack by the name that the command line knows it by."""
