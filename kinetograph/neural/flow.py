"""From noise to clips with a trained flow model: the model as a denoiser, guided, with some frames known."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kinetograph.neural import sampling


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to sample: steps, sampler, shift of the levels toward noise, how strongly the sentence guides, and above
    which level of noise."""

    steps: int = 24
    sampler: str = "dpmpp-2m"
    shift: float = 8.0
    guidance: float = 3.0
    guided_above: float = 0.0
    rescale: float = 0.0


@dataclass(frozen=True)
class Known:
    """Frames (b, c, k, h, w) of a clip that are given, as the model sees them, from number `at` on."""

    frames: Tensor
    at: int = 0

    @property
    def places(self) -> slice:
        """Where they lie in the clip."""
        return slice(self.at, self.at + self.frames.shape[2])

    def within(self, x: Tensor) -> Tensor:
        """A clip with these frames where they lie, the others as in x."""
        return torch.cat([x[:, :, : self.at], self.frames.to(x), x[:, :, self.places.stop :]], dim=2)


def sample(
    model: nn.Module,
    wanted: Tensor,
    other: Tensor,
    noise: Tensor,
    settings: Settings,
    *,
    known: Known | None = None,
    noise_source: sampling.NoiseSource | None = None,
    on_step: sampling.OnStep = lambda index, count, x, clean: None,
) -> Tensor:
    """Clips (b, c, t, h, w), as the model sees them, from noise of that shape and the token ids (b, l) of what is
    wanted.

    `other` are the ids of what guidance leads away from: no words, or a negative prompt.
    """
    low = settings.guided_above / (1 - settings.guided_above)  # the ratio of noise to signal there
    how: Any = {"interval": (low, math.inf), "rescale": settings.rescale}
    both = denoiser(model, wanted, known), denoiser(model, other, known)
    denoise = sampling.guide(*both, settings.guidance, **how)
    if known is not None:
        given = torch.zeros(noise.shape[2], dtype=torch.bool, device=noise.device)
        given[known.places] = True
        denoise = sampling.keep(denoise, known.within(noise), given[:, None, None])
    levels = sampling.schedule("flow", settings.steps, shift=settings.shift)
    return sampling.sample(denoise, noise, levels, settings.sampler, noise_source=noise_source, on_step=on_step)


def related(common: Tensor, own: Tensor, shared: float) -> Tensor:
    """Noise (..., t, h, w) of which all frames have this share of the variance in common, out of that of one frame
    (..., 1, h, w) and of all (Ge et al. 2023, "mixed noise"): frames of one clip begin as alike as they should end."""
    return shared**0.5 * common + (1 - shared) ** 0.5 * own


def denoiser(model: nn.Module, ids: Tensor, known: Known | None = None) -> sampling.Denoiser:
    """The model, told these sentences and the known frames, as a denoiser of whole clips. It computes with numbers of
    the kind that its weights are."""
    kind = next(model.parameters(), torch.empty(0)).dtype

    def clean(x: Tensor, level: sampling.Level) -> Tensor:
        levels = x.new_full((len(x), x.shape[2]), level.sigma)
        if known is not None:
            x = known.within(x)
            levels[:, known.places] = 0.0
        guess: Tensor = model(x.to(kind), levels, ids.expand(len(x), -1))
        return guess.to(x.dtype)

    return clean
