"""Does what should stand still stand still? The mean change of background pixels from frame to frame.

The background is estimated without knowing the world: the still picture is the median of each pixel over the
clip, and a pixel is background in a frame where it and its neighbourhood lie within `STRANGE` levels of that
picture. The change between two frames is taken over the pixels that are background in both. Where that is less
than `LEAST` of the picture (everything flashes, or is noise), it is taken over all pixels: what has no
background has nothing to excuse its changes by. A patch that blinks by more than `STRANGE` levels in fewer
than half of the frames passes for motion.
"""

from collections.abc import Sequence
from types import ModuleType

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from kinetograph.media import Frames
from kinetograph.metrics import Score, check, differences, mean

UNIT = "levels of 255"
BETTER = "lower"
STRANGE = 40  # levels in any channel; a disc of the circle world is at least 46 away from its background
REACH = 32  # the neighbourhood of a pixel reaches this part of the side: soft edges belong to what moves
LEAST = 0.25  # of the picture


def score(videos: Sequence[Frames], prompts: Sequence[str], references: Sequence[Frames], world: ModuleType) -> Score:
    """The mean over videos of the change of their backgrounds."""
    check(videos, prompts, references)
    return mean([flicker(video) for video in videos])


def flicker(video: Frames) -> float:
    """The mean absolute change of background pixels between consecutive frames, in levels of 255."""
    still = background(video)
    change = differences(video[1:], video[:-1]).mean(axis=-1)  # (t - 1, h, w)
    both = still[1:] & still[:-1]
    both[both.mean(axis=(1, 2)) < LEAST] = True
    return float(np.mean([pair[mask].mean() for pair, mask in zip(change, both, strict=True)]))


def background(video: Frames) -> np.ndarray:
    """Which pixels are background, (t, h, w) bool."""
    still = np.median(video, axis=0)
    strange = np.abs(video - still).max(axis=-1) > STRANGE
    return ~_grown(strange, max(1, round(min(video.shape[1:3]) / REACH)))


def _grown(mask: np.ndarray, reach: int) -> np.ndarray:
    """A mask (t, h, w) and everything within `reach` pixels of it."""
    for axis in (1, 2):
        margins = [(reach, reach) if i == axis else (0, 0) for i in range(3)]
        windows = sliding_window_view(np.pad(mask, margins), 2 * reach + 1, axis=axis)
        mask = np.asarray(windows.any(axis=-1))
    return mask
