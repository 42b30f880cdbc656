"""Step 7 of the flow: numbers about groups, one analysis per file.

Our own, activation-clustering, yields evidence for the policy. The others are rules of other works as their papers state them, to
be chosen and to be measured against; their decisions are part of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from toxscreen.analysis.activation_clustering import ActivationClustering
from toxscreen.analysis.base import Analysis
from toxscreen.analysis.cube import Cube
from toxscreen.analysis.relative_size import RelativeSize
from toxscreen.analysis.scan import Scan
from toxscreen.analysis.silhouette_score import SilhouetteScore
from toxscreen.analysis.spectral_signatures import SpectralSignatures
from toxscreen.analysis.spectre import Spectre

ANALYSES: Mapping[str, Analysis] = MappingProxyType(
    {
        analysis.name: analysis
        for analysis in (
            ActivationClustering(),
            RelativeSize(),
            SilhouetteScore(),
            SpectralSignatures(),
            Spectre(),
            Scan(),
            Cube(),
        )
    }
)
"""Every analysis by the name that the command line knows it by."""
