"""Are skeletons obeyed? How far the joints of the animals in a clip are from those that were shown.

Where joints are in a clip is read by the world, from the posture between its templates that is most like what is seen.
The error of a frame is the mean distance of joints that both have, as a part of the picture's side, each animal beside
the one that stands in its order from the left; a frame with another number of animals, or none, is wrong by the whole
side. `FRAMES` frames of each clip are looked at. The part `followed` is the share of frames whose error is at most
`NEAR`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from kinetograph import trials
from kinetograph.media import Frames
from kinetograph.metrics import Score, proportion
from kinetograph.motions import times
from kinetograph.trials import Asked, Shape

NEEDS = ("pose", "joints", "joints_seen", "still_caption")
NEAR = 0.05
FRAMES = 2


def ask(world: ModuleType, rng: np.random.Generator, shape: Shape, folder: Path, split: str) -> Asked:
    """The skeletons of a scene, and what is to be seen in it."""
    return trials.controlled("pose", world, rng, shape, folder, split)


def score(clips: Sequence[Frames], asked: Sequence[Asked], world: ModuleType) -> dict[str, Score]:
    """The mean over clips of the mean error of some of their frames."""
    seen = [{times(len(clip))[k]: world.joints_seen(clip[k]) for k in looked_at(len(clip))} for clip in clips]

    def errors(found: Mapping[float, Sequence[Any]], one: Asked) -> list[float]:
        true = world.joints(one.scene, np.array([*found]))
        return [apart(some, [_at(own, k) for own in true]) for k, some in enumerate(found.values())]

    error = trials.judged(
        seen, asked, lambda found, one: float(np.mean(errors(found, one))), unit="of the side", better="lower"
    )
    near = [error <= NEAR for found, one in zip(seen, asked, strict=True) for error in errors(found, one)]
    followed = proportion(near, unit="of frames", better="higher")
    return {"pose": replace(error, parts={**error.parts, "followed": followed})}


def looked_at(count: int) -> list[int]:
    """Which frames of a clip are looked at."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(FRAMES, count) + 2)[1:-1]})


def _at(skeleton: Any, k: int) -> dict[str, np.ndarray]:
    return {name: path[k] for name, path in skeleton.points.items()}


def apart(seen: Sequence[Any], true: Sequence[dict[str, np.ndarray]]) -> float:
    """The mean distance of the joints of animals, in sides; 1 where their numbers differ."""
    if len(seen) != len(true):
        return 1.0
    pairs = zip((_at(one, 0) for one in seen), sorted(true, key=lambda one: float(one["hip"][0])), strict=True)
    far = [float(np.linalg.norm(a[name] - b[name])) for a, b in pairs for name in a.keys() & b.keys()]
    return min(1.0, float(np.mean(far)))
