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

    def __init__(self, unet: Any, reader: Any, alphas: Tensor) -> None:
        """A UNet that predicts velocities and a reader of sentences as diffusers and transformers have them, and the
        share of the signal in the variance at each of the UNet's times, descending."""
        super().__init__()
        self.unet, self.reader = unet, reader
        bars = alphas.double().cpu()
        ratios = ((1 - bars) / bars.clamp(min=1e-24)).sqrt().clamp(max=1e12)
        self._ratios = ratios.log().float()  # of noise to signal; no buffer, for it is not to be rounded

    @classmethod
    def of(cls, pipe: Any) -> "Model":
        """The network of a pipeline in Stable Diffusion's layout."""
        return cls(pipe.unet, pipe.text_encoder, pipe.scheduler.alphas_cumprod)

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
        kind = self.unet.dtype
        told = {"encoder_hidden_states": words.to(kind), "return_dict": False}
        velocity = self.unet(noisy.to(kind), self.time(level), **told)[0]
        return cast(Tensor, alpha * noisy - sigma * velocity.to(frames))

    def time(self, level: Tensor) -> Tensor:
        """The UNet's times at which the ratio of noise to signal is that of these levels, fractions included."""
        known, s = self._ratios.to(level.device), level.float()
        ratio = s.clamp(min=1e-12).log() - torch.log1p(-s)
        place = torch.searchsorted(known, ratio.contiguous()).clamp(1, len(known) - 1)
        low, high = known[place - 1], known[place]
        return place - 1 + ((ratio - low) / (high - low)).clamp(0, 1)
