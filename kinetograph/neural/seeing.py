"""What models of clips see: pixels as they are, or an autoencoder's latents; and how they read sentences."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from kinetograph.language import tokens
from kinetograph.neural import flow, sampling
from kinetograph.neural.models import image_to_video, text, video_unet
from kinetograph.neural.pictures import denoiser, folder, words

Noise = Callable[..., Tensor]  # of a still, (1, c, 1, h, w); with a step's number, fresh noise for that step


class Seeing(Protocol):
    """A model of clips, (noisy, levels (b, t), ids (b, l)) -> clean, with what lies around it."""

    @property
    def model(self) -> nn.Module:
        """The model itself."""
        ...

    @property
    def frames(self) -> int:
        """It sees so many frames at a time: a clip's number of frames is a multiple."""
        ...

    @property
    def shared(self) -> float:
        """The share of a clip's noise that all frames have in common."""
        ...

    @property
    def windows(self) -> int:
        """So many times as many frames as in training are made in one window; longer clips in several."""
        ...

    @property
    def stages(self) -> int:
        """How many times it goes from noise to something clean for the first window: twice where it must `begin`."""
        ...

    def unread(self, prompt: str) -> list[str]:
        """What it does not read of a prompt, in words for whoever wrote it."""
        ...

    def ids(self, prompts: list[str]) -> Tensor:
        """Token ids (b, l) of prompts."""
        ...

    def shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """The shape (c, t, h, w) of what it sees of one clip of so many frames and pixels."""
        ...

    def begin(self, ids: Tensor, noise: Noise, settings: flow.Settings, on_step: sampling.OnStep) -> flow.Known | None:
        """What it must know before it makes a clip out of nothing but the ids (2, l) of what is wanted and of what is
        not, and noise; None where it need know nothing."""
        ...

    def encode(self, clips: Tensor) -> Tensor:
        """What it sees of clips (b, 3, t, H, W) in [-1, 1], float32."""
        ...

    def decode(self, seen: Tensor) -> Tensor:
        """Clips (b, 3, t, H, W), float32, out of what it sees."""
        ...

    def preview(self, seen: Tensor) -> Tensor:
        """The same roughly, where that is faster, to look at on the way."""
        ...

    def rounded(self, kind: torch.dtype) -> "Seeing":
        """The same with weights that are numbers of this kind."""
        ...


@dataclass(frozen=True)
class Pixels:
    """A model that sees pixels."""

    model: video_unet.Model
    vocabulary: text.Vocabulary
    where: torch.device
    shared: float = 0.0
    windows: int = 2
    stages: int = 1

    @property
    def frames(self) -> int:
        """Frames of a patch."""
        return self.model.config.frames

    def unread(self, prompt: str) -> list[str]:
        """Words that are not in the vocabulary, and what comes after the last that there is room for."""
        return self.vocabulary.unread(prompt, self.model.config.text.length)

    def ids(self, prompts: list[str]) -> Tensor:
        """Token ids (b, l), as long as the longest prompt."""
        return text.trimmed(self.vocabulary.encode(prompts, self.model.config.text.length)).to(self.where)

    def shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """That of the clip."""
        return (3, frames, height, width)

    def begin(self, ids: Tensor, noise: Noise, settings: flow.Settings, on_step: sampling.OnStep) -> None:
        """Nothing."""

    def encode(self, clips: Tensor) -> Tensor:
        """The clips themselves."""
        return clips

    def decode(self, seen: Tensor) -> Tensor:
        """The clips themselves."""
        return seen.float()

    def preview(self, seen: Tensor) -> Tensor:
        """The clips themselves."""
        return self.decode(seen)

    def rounded(self, kind: torch.dtype) -> "Pixels":
        """A copy in numbers of this kind."""
        return replace(self, model=copy.deepcopy(self.model).to(kind))


@dataclass(frozen=True)
class Latents:
    """A network that sets pictures in motion, with the model of stills that draws them, its autoencoder, its words."""

    model: image_to_video.Experts
    pictures: folder.Pictures
    frames: int  # of its training: it makes no fewer
    shared: float  # the share of the noise that frames have in common
    windows: int = 1
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

    def shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Of the latents (c, t, h, w): one cell for some pixels square."""
        return (self.pictures.channels, frames, height // self.pictures.cell, width // self.pictures.cell)

    def begin(self, ids: Tensor, noise: Noise, settings: flow.Settings, on_step: sampling.OnStep) -> flow.Known:
        """A still: the frame in the middle, for things have moved least from there, before and after."""
        more: Any = {"noise_source": noise, "on_step": on_step}
        still = flow.sample(self.model.stills, ids[:1], ids[1:], noise(), settings, **more)
        return flow.Known(still, image_to_video.middle(self.frames))

    def encode(self, clips: Tensor) -> Tensor:
        """Latents of each frame."""
        return _framewise(partial(self.pictures.encode, chunk=64), clips)

    def decode(self, seen: Tensor) -> Tensor:
        """Each frame out of its latents, a few at a time."""
        return _framewise(partial(self.pictures.decode, chunk=8), seen)

    def preview(self, seen: Tensor) -> Tensor:
        """A colour for each cell."""
        return _framewise(self.pictures.preview, seen)

    def rounded(self, kind: torch.dtype) -> "Latents":
        """A copy in numbers of this kind."""
        pictures = copy.copy(self.pictures)
        pictures.vae = copy.deepcopy(pictures.vae).to(kind)
        return replace(self, model=copy.deepcopy(self.model).to(kind), pictures=pictures)


def _framewise(what: Callable[[Tensor], Tensor], clips: Tensor) -> Tensor:
    """Clips (b, c, t, h, w) of what is made of each frame: (n, c, h, w) -> (n, ...)."""
    return what(clips.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(clips), -1)).transpose(1, 2)


def animating(path: Path, network: image_to_video.Model, where: torch.device, frames: int, shared: float) -> Latents:
    """A network that sets in motion what the picture model in a folder draws; it learnt from clips of so many frames,
    in noise that they share in part. Raises WeightsError."""
    pictures = folder.load(path, "sd", "float32", where)
    experts = image_to_video.Experts(network, denoiser.Model.of(pictures.pipe)).to(where)
    return Latents(experts, pictures, frames, shared)
