"""A network of stills, set in motion: layers between the frames of a clip, laid into a UNet that knows pictures.

The UNet (Stable Diffusion's, see `neural.pictures.pocket`) draws each frame as it would draw a still. After each of its
blocks the frames hear of each other: where cells are many by a convolution over neighbours in space and time, where
they are few by attention of all cells of all frames to each other (Ho et al. 2022; Blattmann et al. 2023; as layers of
their own beside a network that stays as it is, Guo et al. 2023). At first these layers say nothing: an untrained model
makes a clip of unrelated stills.

Outside it is a model of flow matching as the others are, told of each frame's noise by itself: some frames may be known
(Chen et al. 2024). Inside it is told what the UNet was trained on: the same noisy latents, scaled to unit variance, at
the time whose ratio of noise to signal is theirs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinetograph.errors import WeightsError
from kinetograph.neural.models.video_unet import places, silent

MOTION = ".motion."  # what the names of weights between frames have within them
WAVES = 6 * 8  # numbers by which attention is told where a cell lies


@dataclass(frozen=True)
class Config:
    """What is not given by the UNet: heads of the attention between frames."""

    heads: int


PRESETS: dict[str, dict[str, Any]] = {"tiny": {"heads": 2}, "pocket": {"heads": 4}}


@dataclass
class Clip:
    """How many frames the clip has that is being drawn: what the layers within must know of it."""

    frames: int = 1


class Model(nn.Module):
    """(noisy latents (b, c, t, h, w), noise level of each frame (b, t), token ids (b, l)) -> clean latents.

    The noisy latents are (1 - level) clean + level noise; a level of 0 marks a known frame.
    """

    ratios: Tensor

    def __init__(self, unet: Any, reader: Any, ratios: Tensor, config: Config) -> None:
        """A UNet and a reader of sentences as diffusers and transformers have them, and the ratio of noise to signal at
        each of the UNet's times, ascending."""
        super().__init__()
        self.unet, self.reader = unet, reader
        self.register_buffer("ratios", ratios.float(), persistent=False)
        self._clip = Clip()
        for blocks, attending in _blocks(unet):
            for place, block in enumerate(blocks):
                channels = block.out_channels
                motion = Attention(channels, config.heads) if attending else Convolution(channels)
                blocks[place] = Followed(block, motion, self._clip)

    def motion(self) -> dict[str, nn.Parameter]:
        """The weights between the frames, by name: what a clip needs beside the UNet of stills."""
        return {name: weight for name, weight in self.named_parameters() if MOTION in name}

    def forward(self, clip: Tensor, level: Tensor, ids: Tensor) -> Tensor:
        b, _, t, _, _ = clip.shape
        self._clip.frames = t
        spread = ((1 - level) ** 2 + level**2).sqrt()
        alpha, sigma = ((part / spread)[:, None, :, None, None].to(clip) for part in (1 - level, level))
        noisy = clip / spread[:, None, :, None, None].to(clip)  # of unit variance
        frames = noisy.transpose(1, 2).flatten(0, 1)  # (b t, c, h, w)
        said = self.reader(ids).last_hidden_state.repeat_interleave(t, 0)  # (b t, l, d)
        velocity = self.unet(frames, self.time(level).flatten(), encoder_hidden_states=said, return_dict=False)[0]
        velocity = velocity.unflatten(0, (b, t)).transpose(1, 2)
        return cast(Tensor, alpha * noisy - sigma * velocity)

    def time(self, level: Tensor) -> Tensor:
        """The UNet's times at which the ratio of noise to signal is that of these levels, fractions included."""
        ratio = level.double() / (1 - level.double()).clamp(min=1e-12)
        known = self.ratios.double().clamp(max=1e12).log()
        place = torch.searchsorted(known, ratio.clamp(min=1e-12).log().contiguous()).clamp(1, len(known) - 1)
        low, high = known[place - 1], known[place]
        return (place - 1 + ((ratio.log() - low) / (high - low)).clamp(0, 1)).float()


def _blocks(unet: Any) -> Iterator[tuple[Any, bool]]:
    """The lists of blocks of a UNet after which frames hear of each other, attention where there is any, else
    convolutions; and whether the frames attend, which they do not where cells are as many as they come."""
    finest = (unet.down_blocks[0], unet.up_blocks[-1])
    for stage in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        own = getattr(stage, "attentions", None)
        yield (own or stage.resnets), bool(own) and stage not in finest


class Followed(nn.Module):
    """A block of the UNet, and what the frames then hear of each other."""

    def __init__(self, still: nn.Module, motion: nn.Module, clip: Clip) -> None:
        super().__init__()
        self.still, self.motion = still, motion
        self._clip = clip

    def forward(self, *args: Any, **more: Any) -> Any:
        drawn = self.still(*args, **more)
        if isinstance(drawn, tuple):
            return (self.motion(drawn[0], self._clip.frames), *drawn[1:])
        return self.motion(drawn, self._clip.frames)


class Convolution(nn.Module):
    """Frames (b t, c, h, w) hear of their neighbours, each cell of the 3 x 3 around it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)  # norms of groups crash where nothing before them learns (torch 2.13)
        self.near = nn.Linear(27 * channels, channels)  # the weight of a convolution, as a matrix
        self.out = silent(nn.Linear(channels, channels))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        c = x.shape[1]
        clip = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).unflatten(0, (-1, frames))  # (b, t, c, h, w)
        silence = torch.zeros_like(clip[:, :1])
        earlier, later = (torch.cat(pair, dim=1) for pair in ((silence, clip[:, :-1]), (clip[:, 1:], silence)))
        three = torch.cat([earlier, clip, later], dim=2).flatten(0, 1)  # (b t, 3 c, h, w)
        heard = F.silu(F.conv2d(three, self.near.weight.view(c, 3 * c, 3, 3), self.near.bias, padding=1))
        return x + F.conv2d(heard, self.out.weight[..., None, None], self.out.bias)


class Attention(nn.Module):
    """All cells of all frames (b t, c, h, w) attend to each other, knowing where and when each is."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.places = nn.Linear(WAVES, channels)
        self.seen = nn.Linear(channels, 3 * channels)
        self.out = silent(nn.Linear(channels, channels))
        self.again = nn.LayerNorm(channels)
        self.wide = nn.Linear(channels, 3 * channels)
        self.narrow = silent(nn.Linear(3 * channels, channels))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        n, c, h, w = x.shape
        cells = x.unflatten(0, (n // frames, frames)).permute(0, 1, 3, 4, 2)  # (b, t, h, w, c)
        where = self.places(places(cells.shape[1:4], x).to(x.dtype))
        seen = self.seen((self.norm(cells) + where).flatten(1, 3))  # (b, t h w, 3 c)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in seen.chunk(3, dim=2))
        heard = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        cells = cells + self.out(heard).view(cells.shape)
        cells = cells + self.narrow(F.gelu(self.wide(self.again(cells))))
        return cells.permute(0, 1, 4, 2, 3).reshape(n, c, h, w)


def put_into(model: nn.Module, layers: dict[str, Any]) -> None:
    """Give a model these layers. Raises WeightsError where they are not the model's own."""
    own = {name for name, _ in model.named_parameters() if MOTION in name}
    if layers.keys() != own:
        hint = f"they differ in {min(layers.keys() ^ own)}"
        raise WeightsError("these layers belong to another picture model", hint=hint)
    model.load_state_dict(layers, strict=False)
