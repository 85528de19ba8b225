"""Editing: clips that begin from a clip or a picture, and models that were taught to follow instructions.

The latents of frames are (t, c, h, w) here, as an encoder gives them.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kinetograph.media import Frames
from kinetograph.neural.pictures.words import Words
from kinetograph.neural.sampling import Denoiser, Level, Levels, noised

AROUND = 3  # pixels, the side of a neighbourhood


def instructed(
    positive: Words, negative: Words, source: Tensor, guidance: float, image_guidance: float
) -> list[tuple[float, Words]]:
    """The groups of InstructPix2Pix (Brooks et al. 2023, eq. 3), whose network sees the source beside its latents.

    What counts is said(nothing) + image_guidance (said(picture) - said(nothing)) + guidance (said(picture, words) -
    said(picture)). A group whose weight is 0 is not asked.
    """
    shown = source[None]  # (1, t, c, h, w)
    return [
        (1 - image_guidance, _beside(negative, torch.zeros_like(shown))),
        (image_guidance - guidance, _beside(negative, shown)),
        (guidance, _beside(positive, shown)),
    ]


def _beside(words: Words, latents: Tensor) -> Words:
    return Words({**words.tensors, "beside": latents})


def begun(source: Tensor, noise: Tensor, levels: Levels, strength: float) -> tuple[Tensor, Levels]:
    """A clip (1, c, t, h, w) part of the way to noise, and the levels from there down: SDEdit (Meng et al. 2022).

    `noise` is (1, c, t or 1, h, w). Of n steps the last int(n * strength) are left, as in diffusers; with none left
    the clip is the source itself.
    """
    steps = len(levels) - 1
    left = levels[steps - min(int(steps * strength), steps) :]
    clean = source.transpose(0, 1)[None]
    return (noised(clean, noise.expand_as(clean), left[0]) if len(left) > 1 else clean), left


def kept(edited: Frames, source: Frames, least: float) -> Frames:
    """Frames (t, h, w, 3) with the source wherever they differ from it by less than half of `least`, of the whole
    range; where by more than all of it, as they were edited, and between the two a mixture.

    What an edit should leave alone comes back through an autoencoder, and is not what it was. How far a pixel is off is
    its channel that is most so, on average over its neighbours.
    """
    after, before = torch.tensor(edited).float(), torch.tensor(source).float()
    off = (after - before).abs().amax(-1)[:, None] / 255
    near = F.avg_pool2d(off, AROUND, 1, AROUND // 2, count_include_pad=False)[:, 0, :, :, None]
    mixed = before.lerp(after, (2 * near / least - 1).clamp(0, 1))
    return np.asarray(mixed.round().to(torch.uint8))


def anchored(denoise: Denoiser, picture: Tensor) -> Denoiser:
    """A denoiser of clips whose first frame is known: its clean estimate is always the picture (1, c, h, w).

    So the first frame goes straight from its noise to the picture, and the others look at the picture, noised as they
    are.
    """

    def clean(x: Tensor, level: Level) -> Tensor:
        found = denoise(x, level)
        known = picture.to(found).transpose(0, 1)[None].expand_as(found[:, :, :1])
        return torch.cat([known, found[:, :, 1:]], dim=2)

    return clean
