"""What a network that draws layers learns from: each layer of a scene cut out of its picture, upright, facing right,
filling a square of its own; and how wrong the network is about it."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from kinetograph import layers
from kinetograph.neural.models import painting
from kinetograph.neural.models.painting import BEHIND, SIDE, Asked
from kinetograph.neural.models.text import Text

FAINT = 0.3  # what is fainter is not drawn: its colours are hardly to be seen
KEPT = 0.04  # weight of what is said that the sentence does not say (nats)
PARTS = ("there", "outlines", "hues", "ground", "rest")  # of the error
EXTENT, TURN = 0.05, 0.05  # of the logarithm of an extent, and in revolutions: off by so much is as bad as by a logit


class Cut(NamedTuple):
    """Squares out of pictures: colours (n, 3, SIDE, SIDE) in [-1, 1], how far each pixel is covered, and how much of
    that is to be seen, (n, SIDE, SIDE); what is not there has none."""

    colours: Tensor
    covers: Tensor
    shown: Tensor


def cut(colours: Tensor, covers: Tensor, visible: Tensor, courses: Tensor, extents: Tensor) -> Cut:
    """Layers cut out: of pictures' colours (n, 3, h, w), how far each covers them by itself and as far as it is to be
    seen (n, h, w), where each is (n, COURSE), and half the sides of their squares (n,), in sides of the picture."""
    side = min(colours.shape[2:])
    at = (torch.arange(2 * SIDE, device=colours.device) + 0.5) / SIDE - 1
    v, u = torch.meshgrid(at, at, indexing="ij")
    angle = 2 * torch.pi * courses[:, layers.TURN, None, None]
    across = (angle.cos() * u - angle.sin() * v) * courses[:, layers.FACING, None, None]
    along = angle.sin() * u + angle.cos() * v
    half = extents[:, None, None]
    x, y = courses[:, layers.X, None, None] + half * across, courses[:, layers.Y, None, None] + half * along
    height, width = colours.shape[2:]
    grid = torch.stack([(x - 0.5) * 2 * side / width, (y - 0.5) * 2 * side / height], dim=-1)
    stack = torch.cat([colours * visible[:, None], covers[:, None], visible[:, None]], dim=1)
    found = F.avg_pool2d(F.grid_sample(stack, grid, align_corners=False), 2)
    cover, shown = found[:, 3], found[:, 4]
    return Cut(found[:, :3] / shown[:, None].clamp(min=1e-3), cover, shown)


@dataclass(frozen=True)
class Drawings:
    """What is to be drawn: of which sentences, by their numbers (n,); what is asked; whether it is there (n,); and of
    what is there and clear enough, by its numbers (m,), the squares, the logarithms of their extents and their turns in
    revolutions. `grounds` (k, 3, 2 SIDE, 2 SIDE) are of the last k of what is asked."""

    sentences: Tensor
    asked: Asked
    there: Tensor
    clear: Tensor
    cut: Cut
    extents: Tensor
    turns: Tensor
    grounds: Tensor


def error(painter: painting.Painter, reader: painting.Reader, told: Text, wanted: Drawings) -> dict[str, Tensor]:
    """How wrong a network is, told these sentences: about whether layers are there and how large, their `outlines`,
    `hues`, the `ground` behind them, and how much has to be said beside the sentence."""
    said, asked = told.rows(wanted.sentences), wanted.asked
    behind = asked.slots == BEHIND
    heard = painter.listener(said, asked.slots)
    shapes = torch.cat([wanted.cut.covers[:, None], wanted.cut.colours * wanted.cut.covers[:, None]], dim=1)
    plain = F.avg_pool2d(wanted.grounds, 2)
    seen = torch.cat([shapes, torch.cat([torch.ones_like(plain[:, :1]), plain], dim=1)])
    rows = torch.cat([wanted.clear, behind.nonzero()[:, 0]])
    extents = torch.cat([wanted.extents, wanted.extents.new_zeros(len(plain))])
    mean, log_variance = reader(seen, extents, heard[rows])
    rest = asked.rest.clone()  # of what is not there, by chance alone
    rest[rows] = mean + (log_variance / 2).exp() * asked.rest[rows]
    asked = asked._replace(rest=rest)
    codes, hues = painter.codes(heard, asked), painter.hues(heard, asked)
    there, extent, turn = painter.seen(codes)
    colours, covers = painter.layers(codes[wanted.clear], hues[wanted.clear])
    grounds = painter.grounds(codes[behind], hues[behind])
    counted = (wanted.cut.covers * (wanted.cut.shown / wanted.cut.covers.clamp(min=0.1)).clamp(max=1))[:, None]
    kept = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
    size = _mean(F.smooth_l1_loss(extent[wanted.clear] / EXTENT, wanted.extents / EXTENT, reduction="none"))
    size = size + _mean(F.smooth_l1_loss(turn[wanted.clear] / TURN, wanted.turns / TURN, reduction="none"))
    figures = ~behind
    return {
        "there": F.binary_cross_entropy_with_logits(there[figures], wanted.there[figures].float()) + 0.1 * size,
        "outlines": 10 * _mean(F.binary_cross_entropy_with_logits(covers, wanted.cut.covers, reduction="none")),
        "hues": 5 * ((colours - wanted.cut.colours).abs() * counted).sum() / (3 * counted.sum()).clamp(min=1),
        "ground": 5 * (grounds - wanted.grounds).abs().mean(),
        "rest": KEPT * kept.mean(),
    }


def _mean(errors: Tensor) -> Tensor:
    """The mean of errors; of none, where no layer is clear, nothing."""
    return errors.sum() / max(1, errors.numel())
