"""A small space-time U-Net that guesses the clean clip behind a noisy one, from a sentence.

It needs no autoencoder. A clip is cut into patches (some frames of a few pixels square), and each patch is told by its
principal components. Around the network lies what a linear filter knows of them, the best one at every level of noise
(Wiener's); the network is asked for the rest, in the measure in which there is a rest. That is the preconditioning of
EDM (Karras et al. 2022, section 5), for each component by itself: where a component drowns in noise the network says
what it is, where it stands out the network says what to take away. A filter alone makes a clip of mud; a network alone
spends most of its training on learning to copy.

Outside, convolutions over space and over three neighbours in time: their shared weights are worth much in worlds of
moving sprites. Inside, at a quarter of the patches, a transformer in which patches of all frames attend to each other
and to the words of the sentence (after Esser et al. 2024).

How noisy the clip is enters twice: as one number for all layers (adaptive normalisation, Peebles & Xie 2023, one table
for all layers as in PixArt, Chen et al. 2023), and frame by frame beside the pixels, so that some frames may be known
while the others are still noise (diffusion forcing, Chen et al. 2024): that is how a picture is set in motion and a
clip continued.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinetograph.neural.models import text

WAVES = 8  # frequencies with which a number is told to the network
LEAST_SPREAD = 1e-3  # of a component: less than half a level of 255 is nothing to see
WIDER = 4  # a perceptron is so many times as wide inside


@dataclass(frozen=True)
class Config:
    """Sizes: the sentence; frames of a patch, the pixels of its side and its principal components; channels of the
    convolutions and how many blocks there are on either side; width of the transformer, its layers and heads."""

    text: text.Config
    frames: int
    side: int
    components: int
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
        self.components = Components(3 * config.frames * config.side**2, config.components)
        self.text = text.Model(config.text)
        self.words = nn.Linear(config.text.width, d)
        self.condition = nn.Sequential(nn.Linear(2 * WAVES + config.text.width + 3, d), nn.SiLU(), nn.Linear(d, d))
        self.cut = nn.Linear(config.components + config.frames * 2 * WAVES, c)
        self.before = nn.ModuleList(Convolutions(c, d) for _ in range(config.blocks))
        self.down = nn.Conv2d(c, d, 2, 2)
        self.middle = Transformer(d, config.layers, config.heads)
        self.up = nn.Linear(d, 4 * c)
        self.after = nn.ModuleList(Convolutions(c, d) for _ in range(config.blocks))
        self.adapt = silent(nn.Linear(d, 2 * c))
        self.paste = nn.Sequential(nn.Linear(c, WIDER * c), nn.GELU(), silent(nn.Linear(WIDER * c, config.components)))

    def matrices(self) -> list[Tensor]:
        """The weights of the layers between the clip and itself: what an optimiser for matrices is for."""
        blocks = [*self.blocks(), self.paste]
        layers = [part for block in blocks for name, part in block.named_modules() if name != "adapt"]
        return [layer.weight for layer in layers if isinstance(layer, nn.Linear)]

    @torch.no_grad()
    def look_at(self, clips: Iterable[Tensor]) -> None:
        """Take the principal components of patches from these clean clips, (b, 3, t, h, w) each: once, before the
        network learns."""
        patch = self.config.frames, self.config.side
        self.components.find([to_patches(clip, *patch).flatten(0, 3) for clip in clips])

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
        level = level.view(b, t // frames, 1, 1, frames)
        levels = waves(logit(level)).to(clip.dtype).flatten(4).expand(-1, -1, h // side, w // side, -1)
        seen = self.components.see(to_patches(clip, *patch), level.amax(-1, keepdim=True))
        x = self.cut(torch.cat([seen.whitened, levels], dim=-1))  # (b, t', h', w', c)
        for block in self.before:
            x = block(x, c[:, None])
        deep = self.middle(
            spatially(x, self.down.weight, self.down.bias, stride=2), self.words(said.states), said.mask, c
        )
        x = x + twice(self.up(deep))
        for block in self.after:
            x = block(x, c[:, None])
        shift, scale = self.adapt(c)[:, None, None, None].chunk(2, dim=-1)
        rest = self.paste(torch.addcmul(shift, norm(x), 1 + scale))
        return to_clip(self.components.draw(seen.filtered + seen.spread * rest), *patch)


@dataclass(frozen=True)
class Seen:
    """Noisy patches (..., n) in principal components: at unit variance, what a linear filter takes them for, and how
    far that is from the truth in the mean (root of the mean square)."""

    whitened: Tensor
    filtered: Tensor
    spread: Tensor


class Components(nn.Module):
    """The principal components of clean patches, the largest first: where they lie and how far they spread."""

    mean: Tensor
    axes: Tensor
    spread: Tensor

    def __init__(self, pixels: int, count: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("axes", nn.init.orthogonal_(torch.empty(count, pixels)))
        self.register_buffer("spread", torch.ones(count))

    def find(self, patches: Sequence[Tensor]) -> None:
        """Take them from patches (n, pixels) that come in several parts."""
        count = sum(len(part) for part in patches)
        mean = torch.stack([part.double().sum(0) for part in patches]).sum(0) / count
        spread = torch.stack([(part.double() - mean).T @ (part.double() - mean) for part in patches]).sum(0) / count
        variances, axes = torch.linalg.eigh(spread)  # ascending
        largest = variances.argsort(descending=True)[: len(self.spread)]
        axes = axes.T[largest]
        axes *= axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()  # an axis has two directions: one for all
        self.mean.copy_(mean)
        self.axes.copy_(axes)
        self.spread.copy_(variances[largest].clamp(min=LEAST_SPREAD**2).sqrt())

    def see(self, patches: Tensor, level: Tensor) -> Seen:
        """Patches (b, t, h, w, pixels) at levels (b, t, 1, 1, 1) of noise."""
        signal, noise, kind = 1 - level, level, patches.dtype
        variance = signal**2 * self.spread.float() ** 2 + noise**2
        found = F.linear(patches - signal.to(kind) * self.mean.to(kind), self.axes.to(kind))  # (b, t, h, w, n)
        gain = signal * self.spread**2 / variance
        left = noise * self.spread / variance.sqrt()
        return Seen(found * variance.rsqrt().to(kind), found * gain.to(kind), left.to(kind))

    def draw(self, found: Tensor) -> Tensor:
        """Patches (..., pixels) from their components (..., n)."""
        return found @ self.axes.to(found.dtype) + self.mean.to(found.dtype)


class Convolutions(nn.Module):
    """A 3 x 3 convolution over space, then one over three neighbours in time, beside the identity: (b, t, h, w, c),
    told something of each frame (b, t, d) or the same of all (b, 1, d)."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.adapt = silent(nn.Linear(condition, channels))
        self.space = nn.Linear(channels * 3 * 3, channels)  # the weights of convolutions, as matrices
        self.time = nn.Linear(channels * 3, channels)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        y = spatially(norm(x), self.space.weight.unflatten(1, (-1, 3, 3)), self.space.bias, padding=1)
        y = F.silu(y + self.adapt(c)[:, :, None, None])
        return x + temporally(y, self.time.weight.unflatten(1, (-1, 3)), self.time.bias)


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


def spatially(x: Tensor, weight: Tensor, bias: Tensor | None, **how: Any) -> Tensor:
    """Convolve (b, t, h, w, c), which in memory is its channels-last form already, over space."""
    y = F.conv2d(x.flatten(0, 1).permute(0, 3, 1, 2), weight, bias, **how)
    return y.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


def temporally(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve (b, t, h, w, c) over time with a weight (c', c, k): without a copy, places lie in a row for it."""
    y = F.conv2d(x.flatten(2, 3).permute(0, 3, 1, 2), weight[..., None], bias, padding=(weight.shape[2] // 2, 0))
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
    "tiny": {
        "frames": 2,
        "side": 8,
        "components": 64,
        "channels": 16,
        "blocks": 1,
        "width": 32,
        "layers": 1,
        "heads": 2,
    },
    "circle": {
        "frames": 2,
        "side": 4,
        "components": 64,
        "channels": 96,
        "blocks": 2,
        "width": 192,
        "layers": 4,
        "heads": 3,
    },
    "small": {
        "frames": 4,
        "side": 8,
        "components": 384,
        "channels": 192,
        "blocks": 2,
        "width": 320,
        "layers": 6,
        "heads": 5,
    },
    "plain": {
        "frames": 4,
        "side": 8,
        "components": 384,
        "channels": 192,
        "blocks": 0,
        "width": 384,
        "layers": 9,
        "heads": 6,
    },
    "large": {
        "frames": 2,
        "side": 8,
        "components": 256,
        "channels": 256,
        "blocks": 4,
        "width": 512,
        "layers": 12,
        "heads": 8,
    },
}
