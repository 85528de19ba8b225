"""What makes clips of sentences: a model that sees pixels, or one of stills with a network that sets them in motion."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from kinetograph.language import tokens
from kinetograph.layers import LAYERS
from kinetograph.neural import animating, flow, layers, sampling
from kinetograph.neural.models import image_to_video, text, video_unet
from kinetograph.neural.pictures import denoiser, folder, words

STILL, COURSES = 2**31, 2**31 + 1  # steps of sampling that never come: the noise of a first still, and of courses

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
    """A window of a clip that is wanted: token ids (2, l) of what is to be seen and of what is not, so many frames of
    so many pixels, and those (1, 3, k, H, W) in [-1, 1] that are given and come first, or none."""

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
    def stages(self) -> int:
        """How many times it goes from noise to something clean where no frame is given."""
        ...

    def unread(self, prompt: str) -> list[str]:
        """What it does not read of a prompt, in words for whoever wrote it."""
        ...

    def ids(self, prompts: list[str]) -> Tensor:
        """Token ids (b, l) of prompts."""
        ...

    def sample(self, wanted: Wanted, noise: Noise, settings: "Settings", on_step: Sequence[OnStep]) -> Tensor:
        """The window (1, 3, frames, H, W) that is wanted, float32, with what is given. `on_step` hears of the steps,
        one of them for each stage."""
        ...

    def rounded(self, kind: torch.dtype) -> "Seeing":
        """The same with weights that are numbers of this kind."""
        ...


class Settings(NamedTuple):
    """How to sample what is seen, and, where they are sampled apart, the courses of what moves."""

    seen: flow.Settings
    courses: animating.Settings = animating.Settings()


@dataclass(frozen=True)
class Pixels:
    """A model that sees pixels, (noisy, levels (b, t), ids (b, l)) -> clean, and makes all frames at once."""

    model: video_unet.Model
    vocabulary: text.Vocabulary
    where: torch.device
    windows: int = 2
    stages: int = 1

    def unread(self, prompt: str) -> list[str]:
        """Words that are not in the vocabulary, and what comes after the last that there is room for."""
        return self.vocabulary.unread(prompt, self.model.config.text.length)

    def ids(self, prompts: list[str]) -> Tensor:
        """Token ids (b, l), as long as the longest prompt."""
        return text.trimmed(self.vocabulary.encode(prompts, self.model.config.text.length)).to(self.where)

    def sample(self, wanted: Wanted, noise: Noise, settings: Settings, on_step: Sequence[OnStep]) -> Tensor:
        """All frames, in whole patches of frames; what is too many is cut off."""
        patch = self.model.config.frames
        shape = (1, 3, -(-wanted.frames // patch) * patch, wanted.height, wanted.width)

        def fresh(*path: int) -> Tensor:
            return noise(shape, *path).to(self.where)

        more: Any = {"known": wanted.given, "noise_source": fresh, "on_step": _seen(on_step[-1], _itself, _itself)}
        clip = flow.sample(self.model, wanted.ids[:1], wanted.ids[1:], fresh(), settings.seen, **more)
        return clip[:, :, : wanted.frames].float()

    def rounded(self, kind: torch.dtype) -> "Pixels":
        """A copy in numbers of this kind."""
        return replace(self, model=copy.deepcopy(self.model).to(kind))


@dataclass(frozen=True)
class Animated:
    """A network that sets pictures in motion, with the model of stills that draws them, its autoencoder, its words."""

    network: image_to_video.Model
    stills: denoiser.Model
    pictures: folder.Pictures
    frames: int  # of its training: courses have as many
    windows: int = 4
    stages: int = 2

    def unread(self, prompt: str) -> list[str]:
        """Words that are spelt because they are not known, and what comes after the last that there is room for."""
        tokenizer = self.pictures.pipe.tokenizer
        unknown = [word for word in tokens(prompt) if len(tokenizer.tokenize(word)) > 1]
        said = [f"the model does not know {', '.join(map(repr, unknown))}"] if unknown else []
        room = tokenizer.model_max_length - 2  # a token begins each sentence and one ends it
        if len(tokenizer.tokenize(prompt)) > room:
            said.append(f"the model reads {room} words, and leaves out the last of {prompt[:80]!r}")
        return said

    def ids(self, prompts: list[str]) -> Tensor:
        """Token ids (b, l), filled up to the longest that there may be."""
        return words.ids(self.pictures.pipe.tokenizer, prompts).to(self.pictures.device)

    def sample(self, wanted: Wanted, noise: Noise, settings: Settings, on_step: Sequence[OnStep]) -> Tensor:
        """A still, which is drawn where none is given, its layers, and where they go. What is drawn is cast, and stands
        where the sentence puts it; what is given stays where it is. A single frame is the still alone."""
        given = wanted.given
        if given is None:
            still = self._drawn(wanted, noise, settings.seen, on_step[0 if wanted.frames > 1 else -1])
            if wanted.frames == 1:
                return still
        shown = still[:, :, 0] if given is None else given[0, :, -animating.MOST_GIVEN :].transpose(0, 1)
        staged = animating.staged(self.network, shown, wanted.ids, self.frames, given is not None)
        shape = (1, len(LAYERS), self.frames, len(layers.STEPS))
        levels = settings.courses.levels()
        heard = _seen(on_step[-1], staged.noisy, staged.frame, [math.hypot(at.alpha, at.sigma) for at in levels[1:]])

        def fresh(*path: int) -> Tensor:
            return noise(shape, COURSES, *path).to(shown)

        courses = staged.sample(fresh(), settings.courses, heard, fresh)
        if given is not None:
            before = given.shape[2] - len(shown)  # frames that are given and were not looked at
            made = staged.clip(courses[:, :, len(shown) : wanted.frames - before])
            return torch.cat([given, made], dim=2)
        return staged.clip(animating.retimed(courses, wanted.frames))

    def _drawn(self, wanted: Wanted, noise: Noise, settings: flow.Settings, on_step: OnStep) -> Tensor:
        """A still (1, 3, 1, H, W)."""
        cell = self.pictures.cell
        shape = (1, self.pictures.channels, 1, wanted.height // cell, wanted.width // cell)

        def fresh(*path: int) -> Tensor:
            return noise(shape, STILL, *path).to(self.pictures.device)

        more: Any = {"noise_source": fresh, "on_step": _seen(on_step, self._decoded, self._preview)}
        still = flow.sample(self.stills, wanted.ids[:1], wanted.ids[1:], fresh(), settings, **more)
        return self._decoded(still)

    def _decoded(self, still: Tensor) -> Tensor:
        return self.pictures.decode(still[:, :, 0])[:, :, None].float()

    def _preview(self, still: Tensor) -> Tensor:
        return self.pictures.preview(still[:, :, 0])[:, :, None].float()

    def rounded(self, kind: torch.dtype) -> "Animated":
        """A copy in numbers of this kind."""
        pictures = copy.copy(self.pictures)
        pictures.vae = copy.deepcopy(pictures.vae).to(kind)
        network, stills = copy.deepcopy(self.network), copy.deepcopy(self.stills)
        return replace(self, network=network.to(kind), stills=stills.to(kind), pictures=pictures)


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
