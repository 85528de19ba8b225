"""Are instructions obeyed, and is the rest left alone? Whether a clip is what its source should have become.

An edit is done when most of the frames, each read by the world, show the new value and every other attribute as it was.
The rest is unchanged when the pixels that the edit does not concern (they are the same in the source and in the scene
after the edit) differ by at most `LEVELS` of 255 on average. The score is the share of clips of which both are true;
its parts tell the two apart, and `drift` is the mean difference itself.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np

from kinetograph import footage, trials
from kinetograph.media import Frames
from kinetograph.metrics import Score, differences, mean, proportion
from kinetograph.metrics.obeys import strangers
from kinetograph.trials import Asked, Shape
from kinetograph.video import Video

NEEDS = ("edit", "glimpse", "shown")
LEVELS = 12.0


def ask(world: ModuleType, rng: np.random.Generator, shape: Shape, folder: Path, split: str) -> Asked:
    """The clip of a scene, and an instruction; right is the clip of the scene after it."""
    before = trials.sampled(world, rng, split)
    scene, instruction = world.edit(before, rng)
    source = trials.drawn(world, before, shape)
    path = Video(source, shape.fps).save(folder / f"source-{rng.integers(2**63):016x}.npz")
    truth = trials.drawn(world, scene, shape)
    settings, fps = footage.from_source(path), float(shape.fps)
    return Asked(prompt=instruction, settings=settings, scene=scene, fps=fps, truth=truth, before=source)


def score(clips: Sequence[Frames], asked: Sequence[Asked], world: ModuleType) -> dict[str, Score]:
    """The share of clips that are edited and otherwise as they were."""
    done = [is_done(clip, one, world) for clip, one in zip(clips, asked, strict=True)]
    drift = [change_elsewhere(clip, one) for clip, one in zip(clips, asked, strict=True)]
    kept = [value <= LEVELS for value in drift]
    both = [bool(a and b) for a, b in zip(done, kept, strict=True)]
    parts = {
        "done": proportion(done, unit="of clips", better="higher"),
        "rest unchanged": proportion(kept, unit="of clips", better="higher"),
        "drift": mean(drift, unit="levels of 255", better="lower"),
    }
    if len(clips) > 1:
        hits = [is_done(clip, one, world) for clip, one in zip(clips, strangers(asked), strict=True)]
        parts["shuffled"] = replace(proportion(hits), unit="of clips", better="chance")
    return {"edit": proportion(both, parts=parts, unit="of clips", better="higher")}


def is_done(clip: Frames, asked: Asked, world: ModuleType) -> bool:
    """Whether most frames show every attribute of the scene after the edit that a still can show."""
    said = world.shown(world.attributes(asked.scene))
    return float(np.mean([said.items() <= world.glimpse(frame, said).items() for frame in clip])) > 0.5


def change_elsewhere(clip: Frames, asked: Asked) -> float:
    """The mean difference, in levels of 255, of what should not have changed."""
    before = clip if asked.before is None else asked.before
    same = (before == asked.truth).all(-1)
    return float(differences(clip, before)[same].mean()) if same.any() else 0.0
