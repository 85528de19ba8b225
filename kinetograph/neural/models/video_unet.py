"""A small space-time U-Net that guesses the clean clip behind a noisy one, from a sentence.

It works on patches of the clip (some frames of a few pixels square), so that no autoencoder is needed: what it returns
is the clean clip itself, which lies on a low-dimensional manifold even where noise does not (Li & He 2025, "Back to
basics: let denoising generative models denoise"). Outside, convolutions over space and over three neighbours in time:
their shared weights are worth much in worlds of moving sprites. Inside, at a quarter of the patches, a transformer in
which patches of all frames attend to each other and to the words of the sentence (after Esser et al. 2024).

How noisy the clip is enters twice: as one number for all layers (adaptive normalisation, Peebles & Xie 2023, one table
for all layers as in PixArt, Chen et al. 2023), and frame by frame beside the pixels, so that some frames may be known
while the others are still noise (diffusion forcing, Chen et al. 2024): that is how a picture is set in motion and a
clip continued.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinetograph.neural.models import text

WAVES = 8  # frequencies with which a number is told to the network
WIDER = 4  # a perceptron is so many times as wide inside


@dataclass(frozen=True)
class Config:
    """Sizes: the sentence; frames of a patch and the pixels of its side; channels of the convolutions and how many
    blocks there are on either side; width of the transformer, its layers and heads."""

    text: text.Config
    frames: int
    side: int
    channels: int
    blocks: int
    width: int
    layers: int
    heads: int

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> "Config":
        """The configuration in the header of a checkpoint."""
        return cls(**{**table, "text": text.Config(**table["text"])})


class Model(nn.Module):
    """(noisy clip (b, 3, t, h, w), noise level of each frame (b, t), token ids (b, l)) -> clean clip (b, 3, t, h, w).

    The noisy clip is (1 - level) clean + level noise; a level of 0 marks a known frame. t is a multiple of the frames
    of a patch, h and w are multiples of twice its side, for the middle sees every second patch.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        c, d = config.channels, config.width
        pixels = 3 * config.frames * config.side**2
        self.text = text.Model(config.text)
        self.words = nn.Linear(config.text.width, d)
        self.condition = nn.Sequential(nn.Linear(2 * WAVES + config.text.width + 3, d), nn.SiLU(), nn.Linear(d, d))
        self.cut = nn.Linear(pixels + config.frames * 2 * WAVES, c)
        self.before = nn.ModuleList(Convolutions(c, d) for _ in range(config.blocks))
        self.down = nn.Conv2d(c, d, 2, 2)
        self.middle = Transformer(d, config.layers, config.heads)
        self.up = nn.Linear(d, 4 * c)
        self.after = nn.ModuleList(Convolutions(c, d) for _ in range(config.blocks))
        self.adapt = silent(nn.Linear(d, 2 * c))
        self.paste = nn.Sequential(nn.Linear(c, WIDER * c), nn.GELU(), nn.Linear(WIDER * c, pixels))

    def matrices(self) -> list[nn.Parameter]:
        """The weights of the layers between the clip and itself: what an optimiser for matrices is for."""
        layers = [part for block in self.blocks() for name, part in block.named_modules() if name != "adapt"]
        return [layer.weight for layer in layers if isinstance(layer, nn.Linear)]

    def blocks(self) -> list[nn.Module]:
        """The parts that hold most of the weights and are used one after another: what sharding divides by."""
        return [*self.before, *self.middle.layers, *self.after]

    def forward(self, clip: Tensor, level: Tensor, ids: Tensor) -> Tensor:
        b, _, t, h, w = clip.shape
        patch = frames, side = self.config.frames, self.config.side
        said = self.text(ids)
        loudest = waves(logit(level.amax(1))).to(clip.dtype)  # known frames say nothing of how noisy the others are
        size = clip.new_tensor([math.log2(t / 16), math.log2(h / 128), math.log2(w / 128)]).expand(b, 3)
        c = F.silu(self.condition(torch.cat([loudest, said.whole, size], dim=1)))  # (b, d)
        levels = (
            waves(logit(level)).to(clip.dtype).view(b, t // frames, 1, 1, -1).expand(-1, -1, h // side, w // side, -1)
        )
        x = self.cut(torch.cat([to_patches(clip, *patch), levels], dim=-1))  # (b, t', h', w', c)
        for block in self.before:
            x = block(x, c)
        deep = self.middle(spatially(self.down, x), self.words(said.states), said.mask, c)
        x = x + twice(self.up(deep))
        for block in self.after:
            x = block(x, c)
        shift, scale = self.adapt(c)[:, None, None, None].chunk(2, dim=-1)
        return to_clip(self.paste(torch.addcmul(shift, norm(x), 1 + scale)), *patch)


class Convolutions(nn.Module):
    """A 3 x 3 convolution over space, then one over three neighbours in time, beside the identity: (b, t, h, w, c)."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.adapt = silent(nn.Linear(condition, channels))
        self.space = nn.Conv2d(channels, channels, 3, padding=1)
        self.time = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        y = F.silu(spatially(self.space, norm(x)) + self.adapt(c)[:, None, None, None])
        return x + temporally(self.time, y)


class Transformer(nn.Module):
    """Patches of all frames (b, t, h, w, d) attend to each other and to the words (b, l, d)."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.places = nn.Linear(3 * 2 * WAVES, width)
        self.adapt = nn.Linear(width, 4 * width)  # one for all layers; each adds a table of its own
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))

    def forward(self, x: Tensor, words: Tensor, mask: Tensor, c: Tensor) -> Tensor:
        shape = x.shape
        x = (x + self.places(places(shape[1:4], x).to(x.dtype))).flatten(1, 3)  # (b, n, d)
        seen = F.pad(mask, (x.shape[1], 0), value=True)[:, None, None]  # (b, 1, 1, n + l)
        adaptation = self.adapt(c).unflatten(1, (4, -1))
        for layer in self.layers:
            x = layer(x, norm(words), seen, adaptation)
        return x.view(shape)


class Layer(nn.Module):
    """Attention of patches to patches and words, then a perceptron for each patch."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.adapt = nn.Parameter(torch.zeros(4, width))
        self.queries, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.keys_values = nn.Linear(width, 2 * width)
        self.mlp = nn.Sequential(nn.Linear(width, WIDER * width), nn.GELU(), nn.Linear(WIDER * width, width))

    def forward(self, x: Tensor, words: Tensor, seen: Tensor, adaptation: Tensor) -> Tensor:
        shift_1, scale_1, shift_2, scale_2 = (self.adapt + adaptation)[:, :, None].unbind(1)
        y = torch.addcmul(shift_1, norm(x), 1 + scale_1)
        q = self._split(self.queries(y))
        k, v = (self._split(part) for part in self.keys_values(torch.cat([y, words], dim=1)).chunk(2, dim=2))
        h = F.scaled_dot_product_attention(norm(q), norm(k), v, attn_mask=seen)  # (b, heads, n, d')
        x = x + self.out(h.transpose(1, 2).flatten(2))
        return x + self.mlp(torch.addcmul(shift_2, norm(x), 1 + scale_2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


def silent(layer: nn.Linear) -> nn.Linear:
    """The layer, saying nothing until it has learnt to."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def norm(x: Tensor) -> Tensor:
    """Layer normalisation without weights: adaptation has them."""
    return F.layer_norm(x, x.shape[-1:])


def spatially(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a convolution over space to (b, t, h, w, c), which in memory is its channels-last form already."""
    y = convolution(x.flatten(0, 1).permute(0, 3, 1, 2))
    return y.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


def temporally(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a convolution over time, one place high as that is for it, to (b, t, h, w, c)."""
    y = convolution(x.flatten(2, 3).permute(0, 3, 1, 2))
    return y.permute(0, 2, 3, 1).unflatten(2, x.shape[2:4])


def twice(x: Tensor) -> Tensor:
    """(b, t, h, w, 4 c) -> (b, t, 2 h, 2 w, c)."""
    b, t, h, w, c = x.shape
    return x.view(b, t, h, w, 2, 2, c // 4).permute(0, 1, 2, 4, 3, 5, 6).reshape(b, t, 2 * h, 2 * w, c // 4)


def to_patches(clip: Tensor, frames: int, side: int) -> Tensor:
    """(b, c, t, h, w) -> (b, t / frames, h / side, w / side, frames side side c)."""
    b, c, t, h, w = clip.shape
    x = clip.view(b, c, t // frames, frames, h // side, side, w // side, side)
    return x.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4)


def to_clip(patches: Tensor, frames: int, side: int) -> Tensor:
    """What `to_patches` does, undone."""
    b, t, h, w, _ = patches.shape
    x = patches.view(b, t, h, w, frames, side, side, 3).permute(0, 7, 1, 4, 2, 5, 3, 6)
    return x.reshape(b, 3, t * frames, h * side, w * side)


def logit(level: Tensor) -> Tensor:
    """log(level / (1 - level)), within bounds: noise levels in the measure in which they differ alike."""
    return torch.logit(level.float(), eps=1e-3)


def waves(x: Tensor) -> Tensor:
    """Numbers (...) as cosines and sines of several frequencies (..., 2 WAVES)."""
    angles = x[..., None] * 2.0 ** torch.arange(-3, WAVES - 3, device=x.device)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def places(grid: torch.Size, like: Tensor) -> Tensor:
    """Where each patch of a grid (t, h, w) lies in its clip, as waves: (t, h, w, 6 WAVES).

    Time runs from 0 to 1 whatever the number of frames; the middle square of the picture spans [-1, 1].
    """
    side = min(grid[1:])
    axes = [(torch.arange(n, device=like.device) + 0.5) / n for n in grid[:1]]
    axes += [(torch.arange(n, device=like.device) + 0.5 - n / 2) * 2 / side for n in grid[1:]]
    return torch.cat([waves(axis) for axis in torch.meshgrid(*axes, indexing="ij")], dim=-1)


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"frames": 2, "side": 8, "channels": 16, "blocks": 1, "width": 32, "layers": 1, "heads": 2},
    "circle": {"frames": 2, "side": 4, "channels": 96, "blocks": 2, "width": 192, "layers": 4, "heads": 3},
    "small": {"frames": 4, "side": 8, "channels": 192, "blocks": 2, "width": 320, "layers": 6, "heads": 5},
    "plain": {"frames": 4, "side": 8, "channels": 192, "blocks": 0, "width": 384, "layers": 9, "heads": 6},
    "large": {"frames": 2, "side": 8, "channels": 256, "blocks": 4, "width": 512, "layers": 12, "heads": 8},
}
