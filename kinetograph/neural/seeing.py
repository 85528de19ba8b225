"""What models of clips see: pixels as they are, or an autoencoder's latents; and how they read sentences."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from kinetograph.language import tokens
from kinetograph.neural.models import moving_unet, text, video_unet
from kinetograph.neural.pictures import folder


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
    """A model of moving pictures, with the autoencoder and the words of the model of stills that it is made of."""

    model: moving_unet.Model
    vae: Any
    tokenizer: Any
    where: torch.device
    frames: int = 1

    def unread(self, prompt: str) -> list[str]:
        """Words that are spelt because they are not known, and what comes after the last that there is room for."""
        unknown = [word for word in tokens(prompt) if len(self.tokenizer.tokenize(word)) > 1]
        said = [f"the model does not know {', '.join(map(repr, unknown))}"] if unknown else []
        room = self.tokenizer.model_max_length - 2  # a token begins each sentence and one ends it
        if len(self.tokenizer.tokenize(prompt)) > room:
            said.append(f"the model reads {room} words, and leaves out the last of {prompt[:80]!r}")
        return said

    def ids(self, prompts: list[str]) -> Tensor:
        """Token ids (b, l), filled up to the longest that there may be."""
        length = self.tokenizer.model_max_length
        how = {"max_length": length, "padding": "max_length", "truncation": True, "return_tensors": "pt"}
        return cast(Tensor, self.tokenizer(prompts, **how).input_ids.to(self.where))

    def shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Of the latents (c, t, h, w): one cell for some pixels square."""
        cell = 2 ** (len(self.vae.config.block_out_channels) - 1)
        return (self.vae.config.latent_channels, frames, height // cell, width // cell)

    @torch.no_grad()
    def encode(self, clips: Tensor) -> Tensor:
        """Latents of each frame."""
        frames = clips.transpose(1, 2).flatten(0, 1).to(self.vae.dtype).contiguous(memory_format=torch.channels_last)
        found = self.vae.encode(frames).latent_dist.mean.float() * self.vae.config.scaling_factor
        return cast(Tensor, found.unflatten(0, (len(clips), -1)).transpose(1, 2))

    @torch.no_grad()
    def decode(self, seen: Tensor) -> Tensor:
        """Each frame out of its latents, a few at a time."""
        frames = (seen.transpose(1, 2).flatten(0, 1) / self.vae.config.scaling_factor).to(self.vae.dtype)
        drawn = torch.cat([self.vae.decode(some).sample.float() for some in frames.split(8)])
        return drawn.unflatten(0, (len(seen), -1)).transpose(1, 2)

    def rounded(self, kind: torch.dtype) -> "Latents":
        """A copy in numbers of this kind."""
        return replace(self, model=copy.deepcopy(self.model).to(kind), vae=copy.deepcopy(self.vae).to(kind))


def moving(pictures: Path, where: torch.device, kind: torch.dtype = torch.float32) -> Latents:
    """A model whose frames are drawn by the picture model in a folder, which do not yet hear of each other. Pictures
    are encoded and drawn with numbers of this kind. Raises WeightsError."""
    found = folder.load(pictures, "sd", "float32", where).pipe
    alphas = found.scheduler.alphas_cumprod.double()
    config = moving_unet.Config(**moving_unet.PRESETS["pocket"])
    model = moving_unet.Model(found.unet, found.text_encoder, ((1 - alphas) / alphas).sqrt(), config).to(where)
    return Latents(model, found.vae.to(kind), found.tokenizer, where)
