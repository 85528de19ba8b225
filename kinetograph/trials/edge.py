"""Are edges obeyed? How far the edges of a clip and those of the scene that was shown lie on each other.

Edges are OpenCV's Canny, as the control takes them. An edge pixel is met where the other picture has one within
`TOLERANCE` of the side (one pixel at 128). With a and b edge pixels and m the mean of how many of each are met, the
score of a frame is m / (a + b - m), intersection over union with that tolerance: 1 where all are met, 0 where none is.
"""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from kinetograph import controls, trials
from kinetograph.media import Frames
from kinetograph.metrics import Score
from kinetograph.trials import Asked, Shape

NEEDS = ("draw", "still_caption")
TOLERANCE = 1 / 128


def ask(world: ModuleType, rng: np.random.Generator, shape: Shape, folder: Path, split: str) -> Asked:
    """The edges of a scene, and what is to be seen in it."""
    return trials.controlled("edge", world, rng, shape, folder, split)


def score(clips: Sequence[Frames], asked: Sequence[Asked], world: ModuleType) -> dict[str, Score]:
    """The mean over clips of the mean over frames."""
    return {
        "edge": trials.judged(clips, asked, lambda clip, one: overlap(clip, one.truth), unit="IoU", better="higher")
    }


def overlap(clip: Frames, truth: Frames) -> float:
    """The mean over frames of the intersection over union of edges, with the tolerance."""
    ours, theirs = (controls.edges(frames)[..., 0] > 0 for frames in (clip, truth))
    reach = max(1, round(TOLERANCE * min(truth.shape[1:3])))
    return float(np.mean([_overlap(a, b, reach) for a, b in zip(ours, theirs, strict=True)]))


def _overlap(a: np.ndarray, b: np.ndarray, reach: int) -> float:
    if not (a.any() or b.any()):
        return 1.0
    met = (float((a & _grown(b, reach)).sum()) + float((b & _grown(a, reach)).sum())) / 2
    return met / (float(a.sum()) + float(b.sum()) - met)


def _grown(mask: np.ndarray, reach: int) -> np.ndarray:
    import cv2

    return np.asarray(cv2.dilate(mask.astype(np.uint8), np.ones((2 * reach + 1,) * 2, np.uint8)) > 0)
