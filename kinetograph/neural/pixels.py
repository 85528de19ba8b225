"""The border between frames, uint8 (t, h, w, c), and what networks see, floats (b, c, t, h, w) in [-1, 1]."""

import numpy as np
import torch
from torch import Tensor


def to_model(frames: Tensor) -> Tensor:
    """uint8 (b, t, h, w, c) -> float32 (b, c, t, h, w) in [-1, 1]."""
    return signed(frames.permute(0, 4, 1, 2, 3))


def signed(pictures: Tensor) -> Tensor:
    """uint8 of any shape -> float32 in [-1, 1]."""
    return pictures.float() / 127.5 - 1


def to_frames(clips: Tensor) -> np.ndarray:
    """(b, c, t, h, w) in [-1, 1], what lies outside is cut off -> uint8 (b, t, h, w, c), rounded to the nearest."""
    pixels = (clips.detach().float().clamp(-1, 1) + 1) * 127.5
    return np.ascontiguousarray(pixels.round().to(torch.uint8).permute(0, 2, 3, 4, 1).cpu().numpy())
