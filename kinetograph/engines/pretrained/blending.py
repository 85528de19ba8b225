"""Frames between frames, as what they are: blends. No motion is guessed, so fast things show twice."""

import numpy as np

from kinetograph.errors import InvalidRequest
from kinetograph.media import Frames


def fewer(frames: int, times: int, first: int, step: int) -> int:
    """How many frames to make where `times` - 1 blends go between every two. Raises InvalidRequest with the nearest
    number of all frames that works out."""
    made, rest = divmod(frames - 1, times)
    made += 1
    if rest or made < first or (made - first) % step:
        near = max(first, first + round(((frames - 1) / times + 1 - first) / step) * step)
        raise InvalidRequest(
            f"{frames} frames with {times - 1} blends between every two",
            field="frames",
            hint=f"nearest: {(near - 1) * times + 1}",
        )
    return made


def blended(clip: Frames, times: int) -> Frames:
    """The clip with `times` - 1 blends between every two frames."""
    if times == 1:
        return clip
    parts = []
    for now, after in zip(clip[:-1].astype(np.float32), clip[1:].astype(np.float32)):
        parts += [now + (after - now) * (index / times) for index in range(times)]
    return np.stack([*parts, clip[-1].astype(np.float32)]).round().astype(np.uint8)
