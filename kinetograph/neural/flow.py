"""From noise to clips with a trained flow model: the model as a denoiser, guided, with some frames known."""

import math
from dataclasses import dataclass

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

    def levels(self) -> sampling.Levels:
        """The levels of noise on the way down."""
        return sampling.schedule("flow", self.steps, shift=self.shift)

    def guided(self, wanted: sampling.Denoiser, other: sampling.Denoiser) -> sampling.Denoiser:
        """What is wanted, led away from the other where levels are high enough."""
        low = self.guided_above / (1 - self.guided_above)  # the ratio of noise to signal there
        return sampling.guide(wanted, other, self.guidance, interval=(low, math.inf), rescale=self.rescale)


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
    the first frames, where they are given.
    """
    denoise = settings.guided(denoiser(model, wanted, known), denoiser(model, other, known))
    if known is not None:
        given = torch.zeros(noise.shape[2], dtype=torch.bool, device=noise.device)
        given[: known.shape[2]] = True
        denoise = sampling.keep(denoise, begun(known, noise), given[:, None, None])
    levels = settings.levels()
    return sampling.sample(denoise, noise, levels, settings.sampler, noise_source=noise_source, on_step=on_step)


def begun(known: Tensor, x: Tensor) -> Tensor:
    """A clip that begins with these frames, the others as in x."""
    return torch.cat([known.to(x), x[:, :, known.shape[2] :]], dim=2)


def denoiser(model: nn.Module, ids: Tensor, known: Tensor | None = None) -> sampling.Denoiser:
    """The model, told these sentences and the known frames, as a denoiser of whole clips. It computes with numbers of
    the kind that its weights are."""
    kind = next(model.parameters(), torch.empty(0)).dtype

    def clean(x: Tensor, level: sampling.Level) -> Tensor:
        levels = x.new_full((len(x), x.shape[2]), level.sigma)
        if known is not None:
            x = begun(known, x)
            levels[:, : known.shape[2]] = 0.0
        guess: Tensor = model(x.to(kind), levels, ids.expand(len(x), -1))
        return guess.to(x.dtype)

    return clean
