"""How near everything in the critters world is: grey pictures, black for what is far and white for what is near.

Grey is inverse distance, as networks that see depth tell it: over flat ground that is even from the horizon down. The
sky, the walls and all that stands at the horizon are as far as can be; the foot of the picture is as near as can be,
so that every picture reaches from black to white. A performer is as near as the ground it stands on. Of two, the one
that is painted later is nearer, and so is what is painted later of each: what is near covers what is far.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kinetograph import drawing
from kinetograph.motions import clock
from kinetograph.worlds.critters.bodies import SLOTS, Part
from kinetograph.worlds.critters.drawing import Act, Colour, paint_cast, perform, staged
from kinetograph.worlds.critters.places import HORIZON
from kinetograph.worlds.critters.scenes import Scene

NEAREST = 0.95  # where the ground is as near as can be, in sides from the top
STEP, RELIEF = 0.1, 0.08  # between two performers, and between the first and the last part of one: parts of all depth


def depth(
    scenes: Sequence[Scene],
    frames: int,
    height: int,
    width: int,
    xp: Any = np,
    device: Any = None,
    moments: np.ndarray | None = None,
) -> Any:
    """Grey frames uint8 (b, t, h, w, 3) of what `draw` draws with the same arguments. Shadows and letters have none."""
    s = clock(len(scenes), frames) if moments is None else moments
    side = min(height, width)
    y = (np.arange(height) + 0.5 - (height - side) / 2) / side
    rows = drawing.array(255 * nearness(y)[None, None, :, None, None], xp, device)
    where = {} if device is None else {"device": device}
    canvas = rows + xp.zeros((*s.shape, height, width, 3), dtype=xp.float32, **where)
    paint_cast(staged(canvas, xp, device), [perform(scene, now) for scene, now in zip(scenes, s, strict=True)], _grey)
    return drawing.finish(canvas, xp)


def nearness(y: np.ndarray) -> np.ndarray:
    """Of the ground at a height y in sides from the top: 0 from the horizon up, 1 at the foot of the picture."""
    near: np.ndarray = np.clip((y - HORIZON) / (NEAREST - HORIZON), 0.0, 1.0)
    return near


def _grey(act: Act, part: Part, order: int, slot: int) -> Colour:
    near = float(nearness(np.array(act.floor))) + STEP * order + RELIEF * slot / (len(SLOTS) - 1)
    return 3 * (round(255 * min(near, 1.0)),)
