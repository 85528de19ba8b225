"""A picture set in motion: taken apart into layers, their courses sampled from noise, and put together as a clip."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from kinetograph.neural import layers, sampling
from kinetograph.neural.models import image_to_video, text

MOST_GIVEN = 4  # of the frames that come first, those that are looked at: as many as in training
SURELY = 0.15  # what is faded or seen from the side by less is not
GROWS, TURNS = 0.14, 0.04  # of the logarithm of a size, and in revolutions: what grows or turns by less does not


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How courses are sampled: steps, sampler, shift of the levels toward noise, and how strongly the sentence
    guides."""

    steps: int = 16
    sampler: str = "dpmpp-2m"
    shift: float = 2.0
    guidance: float = 1.5

    def levels(self) -> sampling.Levels:
        """The levels of noise on the way down."""
        return sampling.schedule("flow", self.steps, shift=self.shift)


@dataclass(frozen=True)
class Staged:
    """A still in layers, with all that is known of a clip before courses are: sample them, and make clips of them."""

    network: image_to_video.Courses
    said: text.Text  # what is wanted, and what guidance leads away from
    still: layers.Still
    seen: layers.Seen
    known: layers.Known

    def sample(
        self,
        noise: Tensor,
        settings: Settings,
        on_step: sampling.OnStep = lambda *told: None,
        noise_source: sampling.NoiseSource | None = None,
    ) -> Tensor:
        """Steps (1, layers, t, steps) from noise of that shape; `on_step` hears of noisy and clean ones. A sampler that
        draws noise on its way takes it from `noise_source`."""
        wanted, other = (self._denoiser(row) for row in (0, 1))
        denoise = sampling.guide(wanted, other, settings.guidance)
        levels = settings.levels()
        found = sampling.sample(denoise, noise, levels, settings.sampler, on_step=on_step, noise_source=noise_source)
        return self._steps(found)

    def clip(self, steps: Tensor) -> Tensor:
        """The clip (1, 3, t, h, w) in which layers go as these steps tell."""
        return layers.put_together(self.still, self.seen, steps)

    def noisy(self, x: Tensor) -> Tensor:
        """The clip (1, 3, t, h, w) of what the sampler holds, or takes it for, (1, layers, t, steps) of unit spread."""
        return self.clip(self._steps(x))

    def frame(self, x: Tensor) -> Tensor:
        """The same of the frame in the middle alone."""
        middle = x.shape[2] // 2
        return self.clip(self._steps(x)[:, :, middle : middle + 1])

    def _steps(self, x: Tensor) -> Tensor:
        return steadied(self.network.coloured(x.float()))

    def _denoiser(self, row: int) -> sampling.Denoiser:
        said = self.said.rows(slice(row, row + 1))

        def clean(x: Tensor, level: sampling.Level) -> Tensor:
            kind = said.whole.dtype
            levels = x.new_full((len(x),), level.sigma, dtype=torch.float32)
            return cast(Tensor, self.network(x.to(kind), levels, said, self.known)).to(x)

        return clean


def staged(model: image_to_video.Model, pictures: Tensor, ids: Tensor, frames: int, given: bool) -> Staged:
    """A still set on the stage of a clip of so many frames: the last of pictures (k, 3, h, w), which come first in the
    clip where they are `given`; else it is cast: it may stand elsewhere than in the picture, and outlines and colours
    are mended. The token ids (2, l) are of what is wanted and of what guidance leads away from."""
    still, facing = image_to_video.taken_apart(pictures, model.find(pictures, ids[:1]), not given)
    seen = layers.measured(still.mattes)
    shown = torch.zeros(1, frames, dtype=torch.bool, device=pictures.device)
    middles = torch.zeros(1, seen.middles.shape[1], frames, 2, device=pictures.device)
    if given:
        shown[:, : len(pictures)] = True
        middles[:, :, : len(pictures)] = seen.middles.transpose(0, 1)
    last = layers.Seen(*(part[-1:] for part in seen))
    known = layers.known(last, facing[-1:], shown, middles)
    return Staged(model.courses, model.read(ids), layers.Still(*(part[-1:] for part in still)), last, known)


def steadied(steps: Tensor) -> Tensor:
    """Steps (b, layers, t, steps) without what a network is never quite sure of: what hardly grows or turns in all of
    its frames does not, what does not turn round is nowhere seen edge on, and what is all but opaque is."""
    x, y, size, turn, mirror, opacity, order = steps.unbind(-1)
    size, turn = (torch.where(_span(part) < least, 0.0, part) for part, least in ((size, GROWS), (turn, TURNS)))
    round_ = (mirror.amin(2, keepdim=True) < -0.5) & (mirror.amax(2, keepdim=True) > 0.5)
    faces = torch.where(mirror.mean(2, keepdim=True) < 0, -1.0, 1.0).expand_as(mirror)
    whole = torch.where((mirror.abs() - 1).abs() < SURELY, mirror.sign(), mirror)
    opacity = torch.where((opacity - 1).abs() < SURELY, torch.ones_like(opacity), opacity)
    return torch.stack([x, y, size, turn, torch.where(round_, whole, faces), opacity, order], dim=-1)


def _span(part: Tensor) -> Tensor:
    """How far numbers (b, layers, t) reach over all frames."""
    return part.amax(2, keepdim=True) - part.amin(2, keepdim=True)


def retimed(steps: Tensor, frames: int) -> Tensor:
    """The same performance in so many frames, in straight lines between those that there are: (b, layers, t, steps)."""
    rows = steps.transpose(2, 3).flatten(0, 1)  # (b layers, steps, t)
    told = F.interpolate(rows, frames, mode="linear", align_corners=True) if frames > 1 else rows[:, :, :1]
    return told.unflatten(0, steps.shape[:2]).transpose(2, 3)
