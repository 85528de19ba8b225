"""Do other seeds make other clips? How much clips of one prompt differ, compared with how much the world's own do.

The distance of two clips is the mean absolute difference of their pixels. With D the mean over prompts of the
mean distance between the clips of one prompt, and R = D(videos) / D(references), the score is min(R, 1/R): 1
where the clips differ as much as the world's do, 0 for copies, and less than 1 too for clips that differ more
than the prompt allows (noise; an engine that does not listen). The part `ratio` is R itself, the part
`distinct` the proportion of clips that are nobody's copy. Diversity is no quality: read it beside `obeys`.
"""

from collections.abc import Sequence
from itertools import combinations
from types import ModuleType

import numpy as np

from kinetograph.errors import InvalidVideo
from kinetograph.media import Frames
from kinetograph.metrics import Score, bootstrap, check, differences, proportion

UNIT = "of the world's"
BETTER = "higher"
REPEATS = True
COPY = 0.5  # levels of 255: what rounding alone can do; clips no further apart are copies


def score(videos: Sequence[Frames], prompts: Sequence[str], references: Sequence[Frames], world: ModuleType) -> Score:
    """Compare the clips of each prompt that comes more than once; its interval resamples the prompts.

    Raises InvalidVideo where every prompt comes once.
    """
    check(videos, prompts, references)
    groups = repeated(prompts)
    if not groups:
        raise InvalidVideo("every prompt has one video", hint="diversity needs prompts under several seeds")
    tables = [distances([videos[place] for place in group]) for group in groups]
    ours = np.array([spread(table) for table in tables])
    theirs = np.array([spread(distances([references[place] for place in group])) for group in groups])
    count = sum(map(len, groups))
    copies = [bool(row.min() <= COPY) for table in tables for row in table]
    parts = {
        "ratio": _ratio(ours, theirs, count),
        "distinct": proportion([not copy for copy in copies], unit="of videos", better="higher"),
    }
    return _closeness(ours, theirs, count, parts)


def repeated(prompts: Sequence[str]) -> list[list[int]]:
    """The places of each prompt that comes more than once."""
    groups: dict[str, list[int]] = {}
    for place, prompt in enumerate(prompts):
        groups.setdefault(prompt, []).append(place)
    return [group for group in groups.values() if len(group) > 1]


def distances(clips: Sequence[Frames]) -> np.ndarray:
    """Mean absolute differences (n, n) between clips, in levels of 255; infinite from a clip to itself."""
    table = np.full((len(clips), len(clips)), np.inf)
    for i, j in combinations(range(len(clips)), 2):
        table[i, j] = table[j, i] = differences(clips[i], clips[j]).mean()
    return table


def spread(table: np.ndarray) -> float:
    """The mean distance between two different clips."""
    return float(table[np.isfinite(table)].mean())


def ratio_of(ours: np.ndarray, theirs: np.ndarray) -> float:
    """R of spreads (groups,): the ratio of the means. References that are copies count as half a level apart."""
    return float(ours.sum() / np.maximum(theirs, COPY).sum())


def _ratio(ours: np.ndarray, theirs: np.ndarray, count: int) -> Score:
    value, low, high = bootstrap(lambda places: ratio_of(ours[places], theirs[places]), len(ours))
    return Score(value=value, low=max(0.0, low), high=high, count=count, unit="ratio", better="one")


def _closeness(ours: np.ndarray, theirs: np.ndarray, count: int, parts: dict[str, Score]) -> Score:
    def closeness(places: np.ndarray) -> float:
        ratio = ratio_of(ours[places], theirs[places])
        return min(ratio, 1 / ratio) if ratio else 0.0

    value, low, high = bootstrap(closeness, len(ours))
    return Score(value=value, low=max(0.0, low), high=min(1.0, high), count=count, parts=parts)
