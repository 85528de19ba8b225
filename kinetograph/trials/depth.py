"""Is depth obeyed? How what stands out from the ground in a clip agrees with the depth that was shown.

Only the relief counts, how much nearer than what lies behind it each pixel is: the ground alone, which is the same in
every scene, would agree with itself. What a clip shows is read by the world; the score is the correlation over all
pixels of the clip, 0 where nothing stands out.
"""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from kinetograph import trials
from kinetograph.media import Frames
from kinetograph.metrics import Score
from kinetograph.trials import Asked, Shape

NEEDS = ("depth", "relief", "relief_of", "still_caption")


def ask(world: ModuleType, rng: np.random.Generator, shape: Shape, folder: Path, split: str) -> Asked:
    """The depth of a scene, and what is to be seen in it."""
    return trials.controlled("depth", world, rng, shape, folder, split)


def score(clips: Sequence[Frames], asked: Sequence[Asked], world: ModuleType) -> dict[str, Score]:
    """The mean over clips of the correlation."""

    def judge(seen: np.ndarray, one: Asked) -> float:
        return correlation(seen, world.relief_of(world.depth([one.scene], *seen.shape)[0]))

    seen = [world.relief(clip) for clip in clips]
    return {"depth": trials.judged(seen, asked, judge, unit="correlation", better="higher")}


def correlation(seen: np.ndarray, true: np.ndarray) -> float:
    """Of two arrays of one shape; 0 where one of them is flat."""
    a, b = seen.ravel() - seen.mean(), true.ravel() - true.mean()
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else 0.0
