"""Reading the shapes world: from frames to the attributes that they show."""

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
    ground = np.median(border(frames), axis=0)
    parts = separated(frames, ground)
    found = [sight(cover, colour, moving=len(parts) == 1) for colour, cover in parts]
    seen = [one for one in found if one]
    if not seen or len(seen) < len(parts):
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
