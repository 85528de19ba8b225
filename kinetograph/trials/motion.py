"""Does a clip from a sentence show it, one and the same thing throughout, moved as it was asked to be, over a ground
that stays?

Each question names one thing and asks for a translation in fractions of the picture's width a second (the law of
`neural.zeroshot.motion`). Scores:

- `obeys`: the share of clips whose first frame shows every attribute that the sentence asks for and a still can show,
  with a part for each, `every frame`, the share of frames of which that is true, and `shuffled`, the same clips under
  each other's sentences;
- `identity`: the share of clips in every frame of which the world reads the same thing (kind and coat, shape and
  colour) as in the first; its part `frames` is the share of frames;
- `translation`: how far the thing's own speed, the line through where it is seen, is from what was asked, as a part of
  what was asked; 1 where it stands still or cannot be seen. Its part `picture` measures the picture as a whole, by
  phase correlation with the first frame;
- `flicker`: the change of background pixels from frame to frame, as the metric of that name.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import ModuleType

import numpy as np

from kinetograph import trials
from kinetograph.attributes import between, pick
from kinetograph.errors import InvalidRequest
from kinetograph.media import Frames
from kinetograph.metrics import Score, mean, proportion
from kinetograph.metrics.flicker import flicker
from kinetograph.metrics.obeys import agreement, by_attribute, strangers
from kinetograph.trials import Asked, Shape

NEEDS = ("glimpse", "shown", "whereabouts", "still_caption")
SPEED = (0.05, 0.12)  # of the width, in a second
WHO = ("animal", "coat", "shape", "colour")


def ask(world: ModuleType, rng: np.random.Generator, shape: Shape, folder: Path, split: str) -> Asked:
    """A sentence on one thing, and a motion to one side."""
    scene = trials.sampled(world, rng, split, alone=True)
    speed = between(rng, SPEED) * pick(rng, (-1, 1))
    settings = {"options": {"motion": [round(speed, 4), 0.0]}}
    truth = trials.drawn(world, scene, shape)
    prompt = world.still_caption(scene, rng)
    return Asked(prompt=prompt, settings=settings, scene=scene, fps=float(shape.fps), truth=truth)


def score(clips: Sequence[Frames], asked: Sequence[Asked], world: ModuleType) -> dict[str, Score]:
    """The four scores."""
    wanted = [_wanted(one.prompt, world) for one in asked]
    seen = [[world.glimpse(frame, said) for frame in clip] for clip, said in zip(clips, wanted, strict=True)]
    speeds = [one.settings["options"]["motion"][0] for one in asked]
    rates = [one.fps for one in asked]
    own = [strayed(thing_speed(clip, world, fps), v) for clip, fps, v in zip(clips, rates, speeds, strict=True)]
    whole = [strayed(picture_speed(clip, fps), v) for clip, fps, v in zip(clips, rates, speeds, strict=True)]
    part = {"unit": "of what was asked", "better": "lower"}
    return {
        "obeys": _obeys(wanted, seen),
        "identity": _identity(seen),
        "translation": mean(own, parts={"picture": mean(whole, **part)}, **part),
        "flicker": mean([flicker(clip) for clip in clips], unit="levels of 255", better="lower"),
    }


def _wanted(prompt: str, world: ModuleType) -> dict[str, str]:
    """What a sentence asks for that a still can show; nothing where it says nothing but 'a shape'."""
    try:
        return dict(world.shown(world.parse(prompt)))
    except InvalidRequest:
        return {}


def _obeys(wanted: Sequence[dict[str, str]], seen: Sequence[Sequence[dict[str, str]]]) -> Score:
    first = [frames[0] for frames in seen]
    every = agreement([said for said, frames in zip(wanted, seen, strict=True) for _ in frames], [*chain(*seen)])
    parts = {**by_attribute(wanted, first), "every frame": replace(every, per_video=())}
    if len(seen) > 1:
        parts["shuffled"] = replace(agreement(strangers(wanted), first), unit="of clips", better="chance")
    return replace(agreement(wanted, first), parts=parts, unit="of clips", better="higher")


def _identity(seen: Sequence[Sequence[dict[str, str]]]) -> Score:
    def who(shown: dict[str, str]) -> dict[str, str]:
        return {name: shown[name] for name in WHO if name in shown}

    same = [[bool(who(frames[0])) and who(frame) == who(frames[0]) for frame in frames] for frames in seen]
    parts = {"frames": proportion([hit for hits in same for hit in hits[1:]], unit="of frames", better="higher")}
    return proportion([all(hits) for hits in same], parts=parts, unit="of clips", better="higher")


def strayed(found: float, asked: float) -> float:
    """How far a speed is from what was asked, as a part of that; 1 where nothing was found."""
    return abs(found - asked) / abs(asked) if np.isfinite(found) else 1.0


def thing_speed(clip: Frames, world: ModuleType, fps: float) -> float:
    """How fast the thing goes to the right, in widths a second; nan where it is seen in half of the frames or fewer."""
    places = world.whereabouts(clip)[:, 0] * min(clip.shape[1:3]) / clip.shape[2]
    return _slope(places, fps) if np.isfinite(places).mean() > 0.5 else np.nan


def picture_speed(clip: Frames, fps: float) -> float:
    """How fast the whole picture goes to the right, in widths a second: its phase correlation with the first frame."""
    import cv2

    grey = clip.astype(np.float64).mean(-1)
    window = cv2.createHanningWindow(grey.shape[:0:-1], cv2.CV_64F)
    gone = [cv2.phaseCorrelate(grey[0], frame, window)[0][0] for frame in grey]
    return _slope(np.array(gone) / clip.shape[2], fps)


def _slope(places: np.ndarray, fps: float) -> float:
    seen = np.isfinite(places)
    return float(np.polyfit(np.flatnonzero(seen) / fps, places[seen], 1)[0])
