"""Features of clips from the reader that comes with the package: what a Fréchet distance is measured on."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch.nn import functional as F

from kinetograph import weights
from kinetograph.neural import checkpoint, pixels
from kinetograph.neural.models import eye, reader

BATCH = 16  # clips; small batches stay in the cache


def of(videos: Sequence[np.ndarray], checkpoint_name: str = "reader") -> np.ndarray:
    """Features (n, d) float64 of clips uint8 (t, h, w, 3), each brought to the length and size that the reader learnt
    on.

    Raises WeightsError where the checkpoint is damaged or no reader.
    """
    model = _load(checkpoint_name)
    config = model.config.eye
    rows = []
    with torch.inference_mode():
        for i in range(0, len(videos), BATCH):
            clips = [_fit(video, config) for video in videos[i : i + BATCH]]
            rows.append(model.features(torch.cat(clips)).double().numpy())
    return np.concatenate(rows)


def _fit(video: np.ndarray, config: eye.Config) -> torch.Tensor:
    """One clip as (1, 3, t, h, w) in [-1, 1]: resampled in time and space where it must be, untouched where it fits."""
    clip = pixels.to_model(torch.from_numpy(np.array(video))[None])
    shape = (config.frames, config.size, config.size)
    return clip if clip.shape[2:] == shape else F.interpolate(clip, shape, mode="trilinear", align_corners=False)


@cache
def _load(name: str) -> reader.Model:
    folder = weights.locate(name)
    found = weights.configuration(folder, "reader")
    with weights.understood(folder):
        config = reader.Config(eye.Config.of(found["config"]["eye"]), found["config"]["attributes"])
        model = reader.Model(config)
    checkpoint.load_model(folder, model)
    return model.eval()
