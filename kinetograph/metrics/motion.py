"""Does as much move as should? How far the amount of motion in each clip is from that in its reference.

The amount of motion is the mean absolute change of a pixel from frame to frame, in levels of 255. A clip scores
|ln((a + E) / (b + E))|, with a its own amount, b its reference's and E a tenth of a level, so that standing
still can be compared too: 0 where as much moves as in the world, 0.69 for half or twice as much, above 2 for
most clips that stand still and should not. The world's own clips do not reach 0: scenes of one prompt differ
by about a tenth. The part `ratio` is the geometric mean of a over b and says whether too little moves (below
1) or too much. Flicker and noise count as motion: read it beside `flicker`.
"""

from collections.abc import Sequence
from math import exp
from types import ModuleType

import numpy as np

from kinetograph.media import Frames
from kinetograph.metrics import Score, check, differences, mean

UNIT = "nepers"
BETTER = "lower"
E = 0.1  # levels of 255


def score(videos: Sequence[Frames], prompts: Sequence[str], references: Sequence[Frames], world: ModuleType) -> Score:
    """The mean over videos of |ln ratio|, in nepers."""
    check(videos, prompts, references)
    ours, theirs = (np.array([amount(clip) for clip in clips]) for clips in (videos, references))
    logs = np.log((ours + E) / (theirs + E))
    signed = mean([*logs])
    value, low, high = exp(signed.value), exp(signed.low), exp(signed.high)
    ratio = Score(value=value, low=low, high=high, count=len(videos), unit="ratio", better="one")
    return mean([*np.abs(logs)], parts={"ratio": ratio})


def amount(video: Frames) -> float:
    """The mean absolute change of a pixel from frame to frame, in levels of 255."""
    return float(differences(video[1:], video[:-1]).mean())
