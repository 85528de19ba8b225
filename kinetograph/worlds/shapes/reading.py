"""Reading the shapes world: from frames to the attributes that they show."""

from collections.abc import Mapping

import numpy as np

from kinetograph.looks import BACKGROUNDS, border, nearest
from kinetograph.worlds.shapes.laws import read_motion, read_relation
from kinetograph.worlds.shapes.scenes import ATTRIBUTES
from kinetograph.worlds.shapes.sights import COLOUR_TOLERANCE, Sight, separated, sight

LEAST_FRAMES = 4  # fewer show no motion


def read(frames: np.ndarray) -> dict[str, str]:
    """Name what a clip shows: uint8 (t, h, w, 3) to the attributes that can be seen.

    An attribute that cannot be told is absent. Nothing is told of a clip that does not show one or two of the shapes on
    a plain background: the outline that is seen must be that of the shape it is taken for, in every frame in which
    nothing hides it. Motions and relations need four frames.
    """
    ground, seen = _seen(frames)
    if not seen:
        return {}
    said = _read_one(seen[0]) if len(seen) == 1 else _read_two(seen[0], seen[1])
    said["background"] = nearest(ground, BACKGROUNDS, COLOUR_TOLERANCE)
    return {name: value for name in ATTRIBUTES if (value := said.get(name))}


def _read_one(sight: Sight) -> dict[str, str | None]:
    motion = read_motion(sight) if len(sight.clear) >= LEAST_FRAMES else {}
    return {"shape": sight.shape, "colour": sight.colour, "size": sight.size, **motion}


def _read_two(one: Sight, two: Sight) -> dict[str, str | None]:
    """Who does what to whom; nothing of either where that cannot be told."""
    if len(one.clear) < LEAST_FRAMES or not (found := read_relation(one, two)):
        return {}
    relation, a, b = found
    subject = {"shape": a.shape, "colour": a.colour, "size": a.size}
    return {**subject, "relation": relation} | {
        "partner shape": b.shape,
        "partner colour": b.colour,
        "partner size": b.size,
    }


# --- a single picture -------------------------------------------------------------------------------------------------

IN_A_STILL = ("shape", "colour", "size", "background", "partner shape", "partner colour", "partner size")


def glimpse(frame: np.ndarray, asked: Mapping[str, str] | None = None) -> dict[str, str]:
    """What one picture (h, w, 3) uint8 shows of the attributes. Who of two is the subject is not to be seen: it is
    whoever makes more of what is asked true."""
    ground, seen = _seen(frame[None])
    orders = [seen, seen[::-1]] if len(seen) == 2 else [seen][: len(seen)]
    said = [{name: value for i, one in enumerate(order) for name, value in _looks(one, i).items()} for order in orders]
    background = nearest(ground, BACKGROUNDS, COLOUR_TOLERANCE)
    rows = [{**one, "background": background} for one in said]
    known = [{name: value for name in IN_A_STILL if (value := row.get(name))} for row in rows]
    wanted = (asked or {}).items()
    return max(known, key=lambda one: len(one.items() & wanted), default={})


def _seen(frames: np.ndarray) -> tuple[np.ndarray, list[Sight]]:
    """The background, and the things of which there is no doubt; none where there is doubt of any."""
    ground = np.median(border(frames), axis=0)
    parts = separated(frames, ground)
    found = [sight(cover, colour, moving=len(parts) == 1) for colour, cover in parts]
    seen = [one for one in found if one]
    return ground, seen if len(seen) == len(parts) else []


def _looks(sight: Sight, place: int) -> dict[str, str | None]:
    whose = "partner " if place else ""
    return {f"{whose}shape": sight.shape, f"{whose}colour": sight.colour, f"{whose}size": sight.size}


def shown(said: Mapping[str, str]) -> dict[str, str]:
    """Of these attributes, those that a still can show."""
    return {name: value for name, value in said.items() if name in IN_A_STILL}


def whereabouts(frames: np.ndarray) -> np.ndarray:
    """Where the middle of what is seen in each frame is, (t, 2) in sides from the upper left; nan where it is empty."""
    cover = relief(frames)
    height, width = cover.shape[1:]
    ys, xs = np.mgrid[:height, :width] + 0.5
    whole = cover.sum((1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        centres = np.stack([(cover * at).sum((1, 2)) / whole for at in (xs, ys)], axis=-1)
    return np.asarray(centres / min(height, width), np.float64)


def relief(frames: np.ndarray) -> np.ndarray:
    """How much nearer than the background each pixel is, (t, h, w), as far as it is to be seen: not which of two."""
    ground = np.median(border(frames), axis=0)
    parts = [cover for _, cover in separated(frames, ground)]
    return np.clip(np.sum(parts, axis=0), 0, 1) if parts else np.zeros(frames.shape[:3])


def relief_of(depths: np.ndarray) -> np.ndarray:
    """The same of frames of depth (..., h, w, 3), as the world draws them: a thing below another is near as well."""
    return np.clip(depths[..., 0] / 127, 0.0, 1.0)
