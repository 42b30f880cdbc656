"""How much of each class the model reads as its label says."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc


def own_label_shares(samples: pa.Table) -> dict[str, float]:
    """Return, by class name, the part of a class's samples that the model gives their own label.

    Parameters
    ----------
    samples
        The samples of a scan. A class of which no sample has a predicted class is left out.
    """
    known = samples.filter(pc.and_(pc.is_valid(samples["label"]), pc.is_valid(samples["predicted"])))
    right = pa.table({"label": known["label"], "right": pc.cast(pc.equal(known["label"], known["predicted"]), pa.float64())})
    shares = right.group_by("label").aggregate([("right", "mean")])
    return dict(zip(shares["label"].to_pylist(), shares["right_mean"].to_pylist(), strict=True))
