"""What makes clips of sentences: a model that sees pixels, or one of layers and their courses."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from kinetograph.language import tokens
from kinetograph.layers import LAYERS
from kinetograph.neural import animating, flow, layers, sampling
from kinetograph.neural.models import layered, text, video_unet

DRAWN, COURSES = 2**31, 2**31 + 1  # steps of sampling that never come: the noise of what is drawn, and of courses

Noise = Callable[..., Tensor]  # of a window of a clip: of this shape, by a path of numbers


@dataclass(frozen=True)
class Step:
    """A step of sampling that is done: its index, how many there are, and what there is to be seen of it, made when it
    is asked for: what is noisy, what is clean (b, 3, t, H, W), and roughly one frame of that, (b, 3, 1, H, W)."""

    index: int
    count: int
    noisy: Callable[[], Tensor]
    clean: Callable[[], Tensor]
    preview: Callable[[], Tensor]


OnStep = Callable[[Step], None]


class Wanted(NamedTuple):
    """A window of a clip that is wanted: token ids of what is to be seen and of what is not, as `Seeing.told` gives
    them, so many frames of so many pixels, and those (1, 3, k, H, W) in [-1, 1] that are given and come first, or
    none."""

    ids: Tensor
    frames: int
    height: int
    width: int
    given: Tensor | None


class Seeing(Protocol):
    """What makes clips of sentences."""

    @property
    def windows(self) -> int:
        """So many times as many frames as in training are made in one window; longer clips in several."""
        ...

    @property
    def decides(self) -> bool:
        """Whether it decides what sentences leave open, never as a negative prompt says, unless frames are given."""
        ...

    def unread(self, prompt: str) -> list[str]:
        """What it does not read of a prompt, in words for whoever wrote it."""
        ...

    def ids(self, prompts: list[str]) -> Tensor:
        """Token ids (b, l) of prompts."""
        ...

    def told(self, prompt: str, negative: str) -> Tensor:
        """Token ids (2 or more, l) of a prompt and of what guidance leads away from, as far as this model hears it."""
        ...

    def sample(self, wanted: Wanted, noise: Noise, settings: flow.Settings, on_step: OnStep) -> Tensor:
        """The window (1, 3, frames, H, W) that is wanted, float32, with what is given. `on_step` hears of the steps."""
        ...

    def rounded(self, kind: torch.dtype) -> Self:
        """The same with weights that are numbers of this kind."""
        ...


@dataclass(frozen=True)
class Reading:
    """A model with the words that it knows."""

    model: Any
    vocabulary: text.Vocabulary
    where: torch.device

    def unread(self, prompt: str) -> list[str]:
        """Words that are not in the vocabulary, and what comes after the last that there is room for."""
        return self.vocabulary.unread(prompt, self.model.config.text.length)

    def ids(self, prompts: list[str]) -> Tensor:
        """Token ids (b, l), as long as the longest prompt."""
        return text.trimmed(self.vocabulary.encode(prompts, self.model.config.text.length)).to(self.where)

    def told(self, prompt: str, negative: str) -> Tensor:
        """Token ids (2, l) of a prompt and of what guidance leads away from."""
        return self.ids([prompt, negative])

    def rounded(self, kind: torch.dtype) -> Self:
        """A copy in numbers of this kind."""
        return replace(self, model=copy.deepcopy(self.model).to(kind))


@dataclass(frozen=True)
class Pixels(Reading):
    """A model that sees pixels, (noisy, levels (b, t), ids (b, l)) -> clean, and makes all frames at once."""

    model: video_unet.Model
    windows: int = 2
    decides: bool = False

    def sample(self, wanted: Wanted, noise: Noise, settings: flow.Settings, on_step: OnStep) -> Tensor:
        """All frames, in whole patches of frames; what is too many is cut off."""
        patch = self.model.config.frames
        shape = (1, 3, -(-wanted.frames // patch) * patch, wanted.height, wanted.width)

        def fresh(*path: int) -> Tensor:
            return noise(shape, *path).to(self.where)

        more: Any = {"known": wanted.given, "noise_source": fresh, "on_step": _seen(on_step, _itself, _itself)}
        clip = flow.sample(self.model, wanted.ids[:1], wanted.ids[1:], fresh(), settings, **more)
        return clip[:, :, : wanted.frames].float()


@dataclass(frozen=True)
class Layered(Reading):
    """A model that draws layers, or finds them in a picture, and tells where they go."""

    model: layered.Model
    windows: int = 4
    decides: bool = True

    def told(self, prompt: str, negative: str) -> Tensor:
        """Those, and of the prompt with each part of what is not wanted, between commas: what the sentence leaves open
        is not decided so. Where there is not room for both, the prompt makes room."""
        parts, room = [tokens(part) for part in negative.split(",")], self.model.config.text.length - 1
        beside = [[*tokens(prompt)[: max(room - len(part), 0)], *part] for part in parts if part]
        return self.ids([prompt, negative, *map(" ".join, beside)])

    def sample(self, wanted: Wanted, noise: Noise, settings: flow.Settings, on_step: OnStep) -> Tensor:
        """Layers, which are drawn where no picture is given, and where they go: what is drawn stands where the sentence
        puts it, and what is given stays where it is."""
        given, frames = wanted.given, self.model.config.frames
        if given is None:
            size = wanted.height, wanted.width
            staged = animating.drawn(self.model, wanted.ids, frames, size, lambda *shape: noise(shape, DRAWN))
            courses = self._courses(staged, noise, settings, on_step)
            if wanted.frames == 1:  # the one in the middle, which looks as it does there
                return staged.clip(courses)[:, :, frames // 2 : frames // 2 + 1]
            return staged.clip(animating.retimed(courses, wanted.frames))
        shown = given[0, :, -animating.MOST_GIVEN :].transpose(0, 1)
        staged = animating.given(self.model, shown, wanted.ids[:2], frames)
        courses = self._courses(staged, noise, settings, on_step)
        before = given.shape[2] - len(shown)  # frames that are given and were not looked at
        made = staged.clip(courses[:, :, len(shown) : wanted.frames - before])
        return torch.cat([given, made], dim=2)

    def _courses(self, staged: animating.Staged, noise: Noise, settings: flow.Settings, on_step: OnStep) -> Tensor:
        """The steps (1, layers, t, steps) of layers in the frames of training."""
        shape = (1, len(LAYERS), self.model.config.frames, len(layers.STEPS))
        levels = settings.levels()
        heard = _seen(on_step, staged.noisy, staged.frame, [math.hypot(at.alpha, at.sigma) for at in levels[1:]])

        def fresh(*path: int) -> Tensor:
            return noise(shape, COURSES, *path).to(self.where)

        return staged.sample(fresh(), settings, heard, fresh)


def _itself(seen: Tensor) -> Tensor:
    return seen.float()


def _seen(
    on_step: OnStep,
    whole: Callable[[Tensor], Tensor],
    roughly: Callable[[Tensor], Tensor],
    spreads: Sequence[float] | None = None,
) -> sampling.OnStep:
    """Tell of a sampler's steps what is to be seen of them: the whole, and roughly one frame. What is noisy is seen at
    the spread that noisy clips have after each step, where it does not have that by itself."""

    def heard(index: int, count: int, x: Tensor, clean: Tensor) -> None:
        spread = spreads[index] if spreads else 1.0
        on_step(Step(index, count, lambda: spread * whole(x), lambda: whole(clean), lambda: roughly(clean[:1])))

    return heard
