"""Layers set in motion: drawn from a sentence or taken out of a picture, their courses sampled from noise, and put
together as a clip."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from kinetograph.layers import FIGURES, LAYERS, SHADOWS, UNSAID
from kinetograph.motions import times
from kinetograph.neural import flow, layers, sampling
from kinetograph.neural.models import layered, painting, text

MOST_GIVEN = 4  # of the frames that come first, those that are looked at: as many as in training
SURELY = 0.15  # what is faded by less is not
NARROW = 0.35  # of its width: what turns round is as wide as ever until it is narrower
ROUND = (0.16, 0.08)  # parts of a clip, before and after it turns round, in which a figure looks as outside of them
GROWS, TURNS = 0.14, 0.04  # of the logarithm of a size, and in revolutions: what grows or turns by less does not
# How courses are sampled where nothing is said of it: what guides a chase to its end spoils it (docs/flow.md).
COURSES = flow.Settings(steps=16, shift=2.0, guidance=2.0, guided_above=0.6)
CHANCES = [painting.SLOTS * painting.REST, len(UNSAID)]  # numbers by which layers are drawn

Noise = Callable[..., Tensor]  # standard normal, of this shape


class Scenery(Protocol):
    """Layers that can be put together."""

    def clip(self, steps: Tensor) -> Tensor:
        """The clip (1, 3, t, h, w) in which they go as these steps (1, layers, t, steps) tell."""
        ...


@dataclass(frozen=True)
class Staged:
    """Layers, with all that is known of a clip before courses are: sample them, and make clips of them."""

    network: layered.Courses
    said: text.Text  # what is wanted, and what guidance leads away from
    scenery: Scenery
    known: Tensor

    def sample(
        self,
        noise: Tensor,
        settings: flow.Settings,
        on_step: sampling.OnStep = lambda *told: None,
        noise_source: sampling.NoiseSource | None = None,
    ) -> Tensor:
        """Steps (1, layers, t, steps) from noise of that shape; `on_step` hears of noisy and clean ones. A sampler that
        draws noise on its way takes it from `noise_source`."""
        wanted, other = (self._denoiser(row) for row in (0, 1))
        more: Any = {"on_step": on_step, "noise_source": noise_source}
        denoise = settings.guided(wanted, other)
        return self._steps(sampling.sample(denoise, noise, settings.levels(), settings.sampler, **more))

    def clip(self, steps: Tensor) -> Tensor:
        """The clip (1, 3, t, h, w) in which layers go as these steps tell."""
        return self.scenery.clip(steps)

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


@dataclass(frozen=True)
class Given:
    """A picture that is given, in layers."""

    still: layers.Still
    seen: layers.Seen

    def clip(self, steps: Tensor) -> Tensor:
        """See `Scenery`."""
        return layers.put_together(self.still, self.seen, steps)


def given(model: layered.Model, pictures: Tensor, ids: Tensor, frames: int) -> Staged:
    """A clip of so many frames that begins with pictures (k, 3, h, w), the last of which is set in motion. The token
    ids (2, l) are of what is wanted and of what guidance leads away from."""
    still, facing = layered.taken_apart(pictures, model.find(pictures, ids[:1]))
    seen = layers.measured(still.mattes)
    shown = torch.zeros(1, frames, dtype=torch.bool, device=pictures.device)
    middles = torch.zeros(1, seen.middles.shape[1], frames, 2, device=pictures.device)
    shown[:, : len(pictures)] = True
    middles[:, :, : len(pictures)] = seen.middles.transpose(0, 1)
    last = layers.Seen(*(part[-1:] for part in seen))
    known = layers.known(last, facing[-1:], shown, middles)
    return Staged(model.courses, model.read(ids), Given(layers.Still(*(part[-1:] for part in still)), last), known)


class Drawn:
    """Layers that are drawn from a sentence, as they look in each frame of a clip of this height and width; of `seen`
    all but the middles holds in sides of the picture, these are in sides of each layer's square."""

    def __init__(self, painter: painting.Painter, said: text.Text, size: tuple[int, int], chance: Tensor) -> None:
        self._painter, self._size = painter, size
        like, slots = said.whole, torch.arange(painting.SLOTS, device=said.whole.device)
        rest, unsaid = chance.split(CHANCES)
        moments = torch.full(slots.shape, painting.STILL, device=like.device)
        chances = torch.special.ndtr(unsaid).expand(len(slots), -1)
        self._still = painting.Asked(slots, moments, chances, rest.view(len(slots), -1))
        self._heard = painter.listener(said.rows(torch.zeros_like(slots)), slots)
        self._hues = painter.hues(self._heard, self._still)
        codes, hues = (part[: len(LAYERS)] for part in (painter.codes(self._heard, self._still), self._hues))
        there, self._extents, self._turns = (part.float()[None] for part in painter.seen(codes))
        seen = layers.measured(painter.layers(codes, hues)[1].float().sigmoid()[None])
        sizes = seen.sizes + self._extents + math.log(2)
        self.seen = layers.Seen(seen.middles, sizes, torch.ones_like(sizes), there > 0)
        self._painted = cache(self._paint)

    def clip(self, steps: Tensor) -> Tensor:
        """See `Scenery`."""
        cast = self._painted(steps.shape[2])
        shown = looks(steps[0, ..., layers.STEPS.index("mirror")])
        colours, covers = (
            torch.stack([row.index_select(at, frames) for row, frames in zip(part[0], shown, strict=True)])[None]
            for part, at in ((cast.colours, 1), (cast.covers, 0))
        )
        return layers.performed(cast._replace(colours=colours, covers=covers), self.seen, steps, *self._size)

    def _at(self, slots: Tensor, moments: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Codes of layers at each of these moments, (layers t, c), and their colours."""
        rows = slots.repeat_interleave(len(moments))
        when = torch.tensor([*moments], device=rows.device).repeat(len(slots))
        asked = painting.Asked(*(part[rows] for part in self._still))._replace(moments=when)
        return self._painter.codes(self._heard[rows], asked), self._hues[rows]

    def _paint(self, frames: int) -> layers.Cast:
        """Everything as it looks in so many frames; shadows look alike in all of them."""
        moments = times(frames).tolist() if frames > 1 else [painting.STILL]
        slots, there = self._still.slots, self.seen.there[0]
        colours = torch.zeros(len(LAYERS), frames, 3, painting.SIDE, painting.SIDE, device=slots.device)
        covers = colours[:, :, 0].clone()
        for some, when in ((FIGURES, moments), (SHADOWS, [painting.STILL])):
            here = slots[list(some)][there[list(some)]]
            if len(here):
                found, cover = self._painter.layers(*self._at(here, when))
                colours[here] = found.float().unflatten(0, (-1, len(when)))
                covers[here] = cover.float().sigmoid().unflatten(0, (-1, len(when)))
        behind = self._painter.grounds(*self._at(slots[painting.BEHIND :], moments)).float()
        middles = 2 * self.seen.middles - 1  # in half sides from the middle
        drawn = colours.transpose(1, 2)[None], covers[None], self._extents, self._turns, middles
        return layers.Cast(*drawn, behind.transpose(0, 1)[None])


def drawn(model: layered.Model, ids: Tensor, frames: int, size: tuple[int, int], noise: Noise) -> Staged:
    """A clip of so many frames, of this height and width, whose layers are drawn. The token ids (2 or more, l) are of
    what is wanted, of what guidance leads away from, and of sentences that say what is not to be decided."""
    said = model.read(ids)
    chance = noise(sum(CHANCES) + model.completion.most).to(said.whole)
    said = model.complete(said, chance[sum(CHANCES) :])
    scenery = Drawn(model.painter, said, size, chance[: sum(CHANCES)])
    seen = scenery.seen
    facing, nowhere = torch.ones_like(seen.sizes), torch.zeros_like(seen.middles)[:, :, None].expand(-1, -1, frames, -1)
    shown = torch.zeros(1, frames, dtype=torch.bool, device=facing.device)
    return Staged(model.courses, said.rows(slice(2)), scenery, layers.known(seen, facing, shown, nowhere))


def looks(mirror: Tensor) -> Tensor:
    """The frames (layers, t) as in which layers are drawn, by where they face (layers, t): their own, but about when a
    figure turns round the last before and the first after that. What is edge on can hardly be learnt from, and is
    drawn as a smear."""
    s = torch.tensor(times(mirror.shape[1]))
    found = torch.arange(len(s)).repeat(len(mirror), 1)
    for layer, frame in (mirror[:, 1:].sign() != mirror[:, :-1].sign()).nonzero().tolist():
        turn = float(s[frame] + s[frame + 1]) / 2
        first = max(int((s < turn - ROUND[0]).sum()) - 1, 0)
        last = min(int((s <= turn + ROUND[1]).sum()), len(s) - 1)
        found[layer, first : frame + 1] = first
        found[layer, frame + 1 : last] = last
    return found.to(mirror.device)


def steadied(steps: Tensor) -> Tensor:
    """Steps (b, layers, t, steps) without what a network is never quite sure of: what hardly grows or turns in all of
    its frames does not, what does not turn round is nowhere seen edge on, and what is all but opaque is."""
    x, y, size, turn, mirror, opacity, order = steps.unbind(-1)
    size, turn = (torch.where(_span(part) < least, 0.0, part) for part, least in ((size, GROWS), (turn, TURNS)))
    round_ = (mirror.amin(2, keepdim=True) < -0.5) & (mirror.amax(2, keepdim=True) > 0.5)
    faces = torch.where(mirror.mean(2, keepdim=True) < 0, -1.0, 1.0).expand_as(mirror)
    whole = torch.where(mirror.abs() > NARROW, mirror.sign(), mirror)
    opacity = torch.where((opacity - 1).abs() < SURELY, torch.ones_like(opacity), opacity)
    return torch.stack([x, y, size, turn, torch.where(round_, whole, faces), opacity, order], dim=-1)


def _span(part: Tensor) -> Tensor:
    """How far numbers (b, layers, t) reach over all frames."""
    return part.amax(2, keepdim=True) - part.amin(2, keepdim=True)


def retimed(steps: Tensor, frames: int) -> Tensor:
    """The same performance in so many frames, in straight lines between those that there are: (b, layers, t, steps)."""
    rows = steps.transpose(2, 3).flatten(0, 1)  # (b layers, steps, t)
    told = F.interpolate(rows, frames, mode="linear", align_corners=True)
    return told.unflatten(0, steps.shape[:2]).transpose(2, 3)
