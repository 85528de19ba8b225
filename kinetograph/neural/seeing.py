"""What models of clips see: pixels as they are, or an autoencoder's latents; and how they read sentences."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from kinetograph.language import tokens
from kinetograph.neural import flow
from kinetograph.neural.models import moving_unet, text, video_unet
from kinetograph.neural.pictures import folder, words

Drawn = Callable[..., Tensor]  # independent noise of the `shape` that it is given


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

    def unread(self, prompt: str) -> list[str]:
        """What it does not read of a prompt, in words for whoever wrote it."""
        ...

    def ids(self, prompts: list[str]) -> Tensor:
        """Token ids (b, l) of prompts."""
        ...

    def shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """The shape (c, t, h, w) of what it sees of one clip of so many frames and pixels."""
        ...

    def noise(self, drawn: Drawn, shape: Sequence[int]) -> Tensor:
        """The noise (..., c, t, h, w) that it begins with, out of independent noise."""
        ...

    def encode(self, clips: Tensor) -> Tensor:
        """What it sees of clips (b, 3, t, H, W) in [-1, 1], float32."""
        ...

    def decode(self, seen: Tensor) -> Tensor:
        """Clips (b, 3, t, H, W), float32, out of what it sees."""
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

    def noise(self, drawn: Drawn, shape: Sequence[int]) -> Tensor:
        """Independent noise, as it is drawn."""
        return drawn(shape=tuple(shape))

    def encode(self, clips: Tensor) -> Tensor:
        """The clips themselves."""
        return clips

    def decode(self, seen: Tensor) -> Tensor:
        """The clips themselves."""
        return seen.float()

    def rounded(self, kind: torch.dtype) -> "Pixels":
        """A copy in numbers of this kind."""
        return replace(self, model=copy.deepcopy(self.model).to(kind))


@dataclass(frozen=True)
class Latents:
    """A model of moving pictures, and the model of stills that it is made of: its autoencoder and its words.

    `shared` is the share of its noise that all frames of a clip have in common.
    """

    model: moving_unet.Model
    pictures: folder.Pictures
    shared: float
    frames: int = 1

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

    def noise(self, drawn: Drawn, shape: Sequence[int]) -> Tensor:
        """Noise of frames that have some in common."""
        *before, frames, height, width = shape
        return flow.related(drawn(shape=(*before, frames + 1, height, width)), self.shared)

    def encode(self, clips: Tensor) -> Tensor:
        """Latents of each frame."""
        found = self.pictures.encode(clips.transpose(1, 2).flatten(0, 1), chunk=64)
        return found.unflatten(0, (len(clips), -1)).transpose(1, 2)

    def decode(self, seen: Tensor) -> Tensor:
        """Each frame out of its latents, a few at a time."""
        drawn = self.pictures.decode(seen.transpose(1, 2).flatten(0, 1), chunk=8)
        return drawn.unflatten(0, (len(seen), -1)).transpose(1, 2)

    def rounded(self, kind: torch.dtype) -> "Latents":
        """A copy in numbers of this kind."""
        pictures = copy.copy(self.pictures)
        pictures.vae = copy.deepcopy(pictures.vae).to(kind)
        return replace(self, model=copy.deepcopy(self.model).to(kind), pictures=pictures)


def moving(path: Path, where: torch.device, kind: torch.dtype = torch.float32, shared: float = 0.0) -> Latents:
    """A model whose frames are drawn by the picture model in a folder, which do not yet hear of each other. Pictures
    are encoded and drawn with numbers of this kind; `shared` of the noise is common to all frames. Raises
    WeightsError."""
    pictures = folder.load(path, "sd", "float32", where)
    pictures.vae.to(kind)
    alphas = pictures.pipe.scheduler.alphas_cumprod.double()
    config = moving_unet.Config(**moving_unet.PRESETS["pocket"])
    model = moving_unet.Model(pictures.network, pictures.pipe.text_encoder, ((1 - alphas) / alphas).sqrt(), config)
    return Latents(model.to(where), pictures, shared)
