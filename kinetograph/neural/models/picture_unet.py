"""A UNet of stills as a denoiser of flow matching: how a model of clips asks a picture model for a frame.

Outside it is asked as models of clips are: noisy latents that are (1 - level) clean + level noise, and the level of
each frame. Inside, the UNet (Stable Diffusion's, see `neural.pictures.pocket`) is told what it was trained on: the same
latents, scaled to unit variance, at the time whose ratio of noise to signal is theirs; and its velocity is read.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn


class Model(nn.Module):
    """(noisy latents (b, c, t, h, w), noise level of each frame (b, t), token ids (b, l)) -> clean latents.

    Frames are stills that do not hear of each other.
    """

    ratios: Tensor

    def __init__(self, unet: Any, reader: Any, ratios: Tensor) -> None:
        """A UNet and a reader of sentences as diffusers and transformers have them, and the ratio of noise to signal at
        each of the UNet's times, ascending."""
        super().__init__()
        self.unet, self.reader = unet, reader
        self.register_buffer("ratios", ratios.float(), persistent=False)

    @classmethod
    def of(cls, pipe: Any) -> "Model":
        """The UNet of a pipeline in Stable Diffusion's layout that predicts velocities."""
        alphas = pipe.scheduler.alphas_cumprod.double()
        return cls(pipe.unet, pipe.text_encoder, ((1 - alphas) / alphas).sqrt())

    def forward(self, clip: Tensor, level: Tensor, ids: Tensor) -> Tensor:
        b, _, t, _, _ = clip.shape
        words = self.reader(ids).last_hidden_state.repeat_interleave(t, 0)  # (b t, l, d)
        drawn = self.draw(clip.transpose(1, 2).flatten(0, 1), level.flatten(), words)
        return drawn.unflatten(0, (b, t)).transpose(1, 2)

    def draw(self, frames: Tensor, level: Tensor, words: Tensor) -> Tensor:
        """Clean frames (n, c, h, w) behind noisy ones, of which each has its level (n,) and its words (n, l, d)."""
        spread = ((1 - level) ** 2 + level**2).sqrt()
        alpha, sigma = ((part / spread)[:, None, None, None].to(frames) for part in (1 - level, level))
        noisy = frames / spread[:, None, None, None].to(frames)  # of unit variance
        velocity = self.unet(noisy, self.time(level), encoder_hidden_states=words, return_dict=False)[0]
        return cast(Tensor, alpha * noisy - sigma * velocity)

    def time(self, level: Tensor) -> Tensor:
        """The UNet's times at which the ratio of noise to signal is that of these levels, fractions included."""
        ratio = level.double() / (1 - level.double()).clamp(min=1e-12)
        known = self.ratios.double().clamp(max=1e12).log()
        place = torch.searchsorted(known, ratio.clamp(min=1e-12).log().contiguous()).clamp(1, len(known) - 1)
        low, high = known[place - 1], known[place]
        return (place - 1 + ((ratio.log() - low) / (high - low)).clamp(0, 1)).float()
