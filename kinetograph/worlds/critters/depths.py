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
from kinetograph.worlds.critters.places import HORIZON, rows
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
    s = clock(len(scenes), frames, moments)
    black = np.zeros((len(scenes), 3), np.float32)
    behind = drawing.array(255 * ground(height, width)[:, None, None], xp, device)
    canvas = behind + drawing.ground(black, s.shape[1], height, width, xp, device)
    paint_cast(staged(canvas, xp, device), [perform(scene, now) for scene, now in zip(scenes, s, strict=True)], _grey)
    return drawing.finish(canvas, xp)


def nearness(y: np.ndarray) -> np.ndarray:
    """Of the ground at a height y in sides from the top: 0 from the horizon up, 1 at the foot of the picture."""
    near: np.ndarray = np.clip((y - HORIZON) / (NEAREST - HORIZON), 0.0, 1.0)
    return near


def ground(height: int, width: int) -> np.ndarray:
    """How near what lies behind all performers is in each row of pixels, (h,)."""
    return nearness(rows(height, width))


def _grey(act: Act, part: Part, order: int, slot: int) -> Colour:
    near = float(nearness(np.array(act.floor))) + STEP * order + RELIEF * slot / (len(SLOTS) - 1)
    return 3 * (round(255 * min(near, 1.0)),)
