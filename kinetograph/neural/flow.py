"""From noise to clips with a trained flow model: the model as a denoiser, guided, with some first frames known."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kinetograph.neural import sampling


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to sample: steps, sampler, shift of the levels toward noise, and how strongly the sentence guides."""

    steps: int = 24
    sampler: str = "dpmpp-2m"
    shift: float = 8.0
    guidance: float = 3.0
    rescale: float = 0.0


def sample(
    model: nn.Module,
    wanted: Tensor,
    other: Tensor,
    noise: Tensor,
    settings: Settings,
    *,
    known: Tensor | None = None,
    noise_source: sampling.NoiseSource | None = None,
    on_step: sampling.OnStep = lambda index, count, x, clean: None,
) -> Tensor:
    """Clips (b, c, t, h, w), as the model sees them, from noise of that shape and the token ids (b, l) of what is
    wanted.

    `other` are the ids of what guidance leads away from: no words, or a negative prompt. `known` (b, c, k, h, w) are
    the first k frames, where they are given.
    """
    denoise = sampling.guide(
        denoiser(model, wanted, known), denoiser(model, other, known), settings.guidance, rescale=settings.rescale
    )
    if known is not None:
        given = torch.arange(noise.shape[2], device=noise.device) < known.shape[2]
        denoise = sampling.keep(denoise, beside(known, noise), given[:, None, None])
    levels = sampling.schedule("flow", settings.steps, shift=settings.shift)
    return sampling.sample(denoise, noise, levels, settings.sampler, noise_source=noise_source, on_step=on_step)


def related(e: Tensor, shared: float) -> Tensor:
    """Noise (..., t, h, w) of which all frames have this share of the variance in common, out of noise of one frame
    more (Ge et al. 2023, "mixed noise"): frames of one clip begin as alike as they should end."""
    common, own = e[..., :1, :, :], e[..., 1:, :, :]
    return shared**0.5 * common + (1 - shared) ** 0.5 * own


def denoiser(model: nn.Module, ids: Tensor, known: Tensor | None = None) -> sampling.Denoiser:
    """The model, told these sentences and these first frames, as a denoiser of whole clips. It computes with numbers of
    the kind that its weights are."""
    kind = next(model.parameters(), torch.empty(0)).dtype

    def clean(x: Tensor, level: sampling.Level) -> Tensor:
        levels = x.new_full((len(x), x.shape[2]), level.sigma)
        if known is not None:
            x = beside(known, x)
            levels[:, : known.shape[2]] = 0.0
        guess: Tensor = model(x.to(kind), levels, ids.expand(len(x), -1))
        return guess.to(x.dtype)

    return clean


def beside(known: Tensor, x: Tensor) -> Tensor:
    """A clip whose first frames are known, the others as in x."""
    return torch.cat([known.to(x), x[:, :, known.shape[2] :]], dim=2)
