"""A clip as layers: what moves as a whole, each with a course, before what is behind it.

Worlds know theirs: `courses` says where each layer is over time, `reaches` how large a square holds it, `unsaid` what
it looks like beside what a sentence says, `mattes` how far it covers each pixel, `behind` what is to be seen without
any. Every scene has the same places for layers, some of them empty: the shadows of a subject and
of its partner, then subject and partner themselves.
"""

import numpy as np

LAYERS = ("shadow", "shadow of the partner", "subject", "partner")
SHADOWS, FIGURES = (0, 1), (2, 3)

# A course is a row of these numbers for each moment: where its middle is, in sides of the (middle) square, x to the
# right and y down; the logarithm of its size; its turn in revolutions, clockwise where it faces right; where it faces,
# from 1, right, to -1, left; how opaque it is; and its order, the higher the nearer, the same at all times.
COURSE = ("x", "y", "size", "turn", "facing", "opacity", "order")
X, Y, SIZE, TURN, FACING, OPACITY, ORDER = range(len(COURSE))

# What no sentence says of how layers look, each a number from 0 to 1 that is drawn for a scene: where gaits begin,
# where details of a place lie, and how far they have moved.
UNSAID = ("phase", "shift", "drift")


def nowhere(*shape: int) -> np.ndarray:
    """Courses (*shape, layers, t, numbers) of layers that are not there: no numbers. The last of `shape` is t."""
    *many, times = shape
    return np.full((*many, len(LAYERS), times, len(COURSE)), np.nan)


def course(
    x: np.ndarray,
    y: np.ndarray,
    size: np.ndarray | float,
    *,
    turn: np.ndarray | float = 0.0,
    facing: np.ndarray | float = 1.0,
    opacity: np.ndarray | float = 1.0,
    order: float = 0.0,
) -> np.ndarray:
    """The rows (t, numbers) of a course; a size is a length, of which the logarithm is kept."""
    rows = np.broadcast_arrays(x, y, np.log(size), turn, facing, opacity, order)
    return np.stack(rows, axis=-1).astype(np.float64)


def visible(mattes: np.ndarray, order: np.ndarray) -> np.ndarray:
    """How far each layer is to be seen where it lies, (b, layers, ...), out of how far each would cover by itself; the
    order (b, layers) says which lie before it, no number for a layer that is not there."""
    shown = np.array(mattes, np.float32)
    for above in range(len(LAYERS)):
        for below in range(len(LAYERS)):
            before = order[:, above] > order[:, below]  # never of what is not there
            shown[before, below] *= 1 - mattes[before, above]
    return shown
