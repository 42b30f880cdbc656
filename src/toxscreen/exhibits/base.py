"""The values that exhibits are made of: plain and frozen; saved in the run folder, so that a report needs no access to the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toxscreen.shares import Share

GRID = 1000
"""Points lie on a square grid of this many steps a side, (0, 0) at the top left."""

_ID_CHARACTERS = 80


@dataclass(frozen=True)
class ExhibitLimits:
    """How much is shown.

    Attributes
    ----------
    total_bytes
        What the exhibits may add to the report; the default keeps a report under 10 MB.
    classes, groups
        Classes that get exhibits, the worst first, and groups of each.
    samples
        Samples drawn from a class for points, sheets, averages and words.
    sheet
        Pictures of one group on the contact sheets.
    picture_side
        Pixels of the longer side beyond which a picture is shrunk.
    phrases, examples
        Words and n-grams, and texts, shown for a group of texts.
    flips
        Inputs of other classes that a recovered trigger is shown on.
    flagged
        Rows in the list of flagged samples.
    """

    total_bytes: int = 7_500_000
    classes: int = 20
    groups: int = 5
    samples: int = 1500
    sheet: int = 240
    picture_side: int = 96
    phrases: int = 20
    examples: int = 12
    flips: int = 6
    flagged: int = 1000


@dataclass(frozen=True)
class SamplesShown:
    """The samples drawn from one class, one column per attribute, each of shape ``(n_drawn,)``.

    Attributes
    ----------
    ids
        Shortened where they are very long.
    groups
        Group number of each.
    scores
        In [0, 1]; None where there is none.
    x, y
        The activation in two dimensions, in steps of :data:`GRID`; None where a sample was not compared, and has no place.
    pictures
        WebP as base64; None for what is no picture or had no room.
    texts
        An excerpt; None for what is no text or had no room.
    """

    ids: tuple[str, ...]
    groups: tuple[int, ...]
    scores: tuple[float | None, ...]
    x: tuple[int | None, ...]
    y: tuple[int | None, ...]
    pictures: tuple[str | None, ...]
    texts: tuple[str | None, ...]


@dataclass(frozen=True)
class PictureComparison:
    """A group of pictures beside the rest of its class.

    Attributes
    ----------
    group_sheet, rest_sheet
        The pictures of the contact sheets: positions in :class:`SamplesShown`.
    group_mean, rest_mean
        Average pictures, WebP as base64; None for a side that holds no picture.
    difference
        Group minus rest in a diverging map, full colour at ``largest_difference``; None where a side holds no picture.
    largest_difference, mean_difference
        Absolute difference of the averages at the pixel where it is largest, and its mean; in levels of 0 to 255.
    details
        Group minus rest of what each pixel has beyond its surroundings, over how much that varies, in the same map; None where a
        side holds no picture.
    """

    group_sheet: tuple[int, ...]
    rest_sheet: tuple[int, ...]
    group_mean: str | None
    rest_mean: str | None
    difference: str | None
    largest_difference: float | None
    mean_difference: float | None
    details: str | None = None


@dataclass(frozen=True)
class Phrase:
    """A word or n-gram and how many texts of the group and of the rest hold it."""

    text: str
    odds_ratio: float
    in_group: int
    in_rest: int


@dataclass(frozen=True)
class Excerpt:
    """A part of a text, cut into pieces; ``marked[i]`` says whether ``pieces[i]`` sets the group apart."""

    sample: int
    pieces: tuple[str, ...]
    marked: tuple[bool, ...]


@dataclass(frozen=True)
class TextComparison:
    """A group of texts beside the rest of its class; topics are lists of words, the most typical first."""

    phrases: tuple[Phrase, ...]
    group_topics: tuple[tuple[str, ...], ...]
    rest_topics: tuple[tuple[str, ...], ...]
    group_examples: tuple[Excerpt, ...]
    rest_examples: tuple[Excerpt, ...]


@dataclass(frozen=True)
class TriggerPictures:
    """A trigger as pictures, WebP as base64.

    Attributes
    ----------
    enlarged
        What it shows, cut out; transparent where the picture below shows. One that is only mixed in is made stronger.
    strength
        How many times as strong ``enlarged`` is as the trigger; 1 for one that covers.
    on_gray
        A gray picture that carries it: where it lies and how large it is.
    mask
        How opaque it is at each pixel, from black (the picture shows) to white (it covers).
    """

    enlarged: str
    strength: float
    on_gray: str
    mask: str


@dataclass(frozen=True)
class Flip:
    """One input of another class before and after it got the trigger.

    Attributes
    ----------
    id
        Of the sample, shortened where it is very long.
    label, given
        Its class, and the class that the model gives it with the trigger; None for an output that stands for no class.
    pictures
        Before and after, WebP as base64; empty for a text.
    texts
        Before and after, where what the trigger added is marked; empty for a picture.
    """

    id: str
    label: str
    given: str | None
    pictures: tuple[str, ...] = ()
    texts: tuple[Excerpt, ...] = ()


@dataclass(frozen=True)
class ClassFlips:
    """How many inputs of one class the model gives the target class with the trigger."""

    name: str
    flips: Share


@dataclass(frozen=True)
class TriggerExhibit:
    """What is shown of a recovered trigger beside its numbers.

    Attributes
    ----------
    pictures
        Of one for pictures.
    phrases
        Of one for texts.
    flips
        Some inputs before and after.
    by_class
        What it does to each class that it was tested on.
    """

    pictures: TriggerPictures | None
    phrases: tuple[str, ...]
    flips: tuple[Flip, ...]
    by_class: tuple[ClassFlips, ...]


@dataclass(frozen=True)
class GroupExhibit:
    """What is shown of one group; ``n_group`` and ``n_rest`` are the samples of either side that were looked at."""

    group: int
    n_group: int
    n_rest: int
    pictures: PictureComparison | None = None
    texts: TextComparison | None = None
    trigger: TriggerExhibit | None = None


@dataclass(frozen=True)
class ClassExhibit:
    """What is shown of one class; ``n`` is how many samples were compared, from which the points were drawn."""

    class_index: int
    n: int
    samples: SamplesShown
    groups: tuple[GroupExhibit, ...]


@dataclass(frozen=True)
class FlaggedSample:
    """One row of the list of flagged samples; ``id`` is shortened where it is very long."""

    id: str
    label: str | None
    predicted: str | None
    group: int | None
    score: float | None


@dataclass(frozen=True)
class Exhibits:
    """Everything that a report shows beside the numbers.

    Attributes
    ----------
    classes
        The worst first.
    no_room
        Indices of the classes that are not clean and would have exhibits had there been room.
    flagged
        The flagged samples with the highest scores.
    """

    classes: tuple[ClassExhibit, ...]
    no_room: tuple[int, ...]
    flagged: tuple[FlaggedSample, ...]


@dataclass(frozen=True)
class Side:
    """One group set against the rest of its class: positions among the samples drawn."""

    group: int
    members: NDArray[np.int64]
    rest: NDArray[np.int64]


@dataclass(frozen=True)
class Shown:
    """What was read of the samples drawn, one entry per sample, and what was made of each side."""

    pictures: Sequence[str | None]
    texts: Sequence[str | None]
    groups: tuple[GroupExhibit, ...]


def short(id_: str) -> str:
    """Return the end of a long id: the end of a path says more than its beginning."""
    return id_ if len(id_) <= _ID_CHARACTERS else f"…{id_[1 - _ID_CHARACTERS :]}"
