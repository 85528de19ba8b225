"""Where in the first frame of a clip stands what a later one shows: dense optical flow, by OpenCV."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kinetograph.media import Frames

MOST_SIDE = 256  # pixels: flow is smooth, and finer pictures only take longer
SLACK = 1.5  # pixels that going there and back may miss by, where it is the same thing
ALIKE = 40  # levels of grey, of 255, that it may differ by


@dataclass(frozen=True)
class Track:
    """`origins` (t, h, w, 2): x and y, in fractions of the frame, of where each place was in the first frame; `seen`
    (t, h, w): whether it was there to be seen.
    """

    origins: NDArray[np.float32]
    seen: NDArray[np.bool_]


def tracked(frames: Frames, height: int, width: int) -> Track:
    """Follow every place of a clip (t, h, w, 3) back to its first frame, on a grid of this size.

    A place was seen where going to the first frame and back ends where it began, and looks alike: what came into the
    picture, or from behind something, was not.
    """
    import cv2

    grey = [_small(frame) for frame in frames]
    h, w = grey[0].shape
    here = np.stack(np.meshgrid(np.arange(w), np.arange(h)), axis=-1).astype(np.float32)
    back = forth = np.zeros_like(here)
    origins, seen = [], []
    for before, now in pairwise([grey[0], *grey]):
        step = _flow(now, before, np.zeros_like(here))  # it is short; the way to the first frame begins with it
        back = _flow(now, grey[0], step + _taken(back, here + step))
        forth = _flow(grey[0], now, forth)
        there = here + back
        returned = there + _taken(forth, there)
        inside = (there >= 0).all(-1) & (there[..., 0] <= w - 1) & (there[..., 1] <= h - 1)
        alike = np.abs(_taken(grey[0].astype(np.float32), there) - now) < ALIKE
        same = inside & alike & (np.linalg.norm(returned - here, axis=-1) < SLACK)
        places = np.asarray((there + 0.5) / [w, h], dtype=np.float32)
        origins.append(cv2.resize(places, (width, height), interpolation=cv2.INTER_AREA))
        seen.append(cv2.resize(same.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA) > 0.75)
    return Track(np.stack(origins).astype(np.float32), np.stack(seen))


def _small(frame: Frames) -> NDArray[np.uint8]:
    """A frame in grey, at most MOST_SIDE pixels on a side."""
    import cv2

    h, w, _ = frame.shape
    scale = min(1.0, MOST_SIDE / max(h, w))
    size = (max(16, round(w * scale)), max(16, round(h * scale)))
    grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _flow(a: NDArray[np.uint8], b: NDArray[np.uint8], guess: NDArray[np.float32]) -> NDArray[np.float32]:
    """(h, w, 2): how far what is in `a` has moved in `b`, in pixels."""
    import cv2

    if (a == b).all():
        return np.zeros_like(guess)
    search = getattr(cv2, "DISOpticalFlow_create")(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # noqa: B009  its stubs lack it
    return np.asarray(search.calc(a, b, guess.copy()), dtype=np.float32)


def _taken(field: NDArray[np.float32], places: NDArray[np.float32]) -> NDArray[np.float32]:
    """A field (h, w, ...) at places (h, w, 2), in pixels; beyond its edge it goes on as at the edge."""
    import cv2

    x, y = (np.ascontiguousarray(places[..., axis]) for axis in (0, 1))
    found = cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, dtype=np.float32)
