"""A small model of clips in layers: each is drawn from the sentence, and goes where a diffusion model says.

What things look like and how they move are made apart, as Emu Video (Girdhar et al. 2023) and Motion-I2V (Shi et al.
2024) do. `models.painting` draws layers (those of Wang & Adelson 1994) and what is behind them. `Courses` is a
diffusion model of their paths, sizes, turns and the like (as Tevet et al. 2023 make human motion): a few hundred
numbers a clip, which a perceptron guesses behind noise, told the sentence and what was measured of the layers.
`neural.layers` lays the layers where it says. Where a picture is given, nothing is drawn: `Matting` finds the layers in
it (alpha mattes), told by the sentence who is the subject.

All read sentences with one encoder, and `models.completing` decides what these leave open, so that what is drawn and
where it goes belong together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinetograph.layers import LAYERS, SHADOWS
from kinetograph.neural.layers import AROUND, CENTRE, STEPS, TOLD, Still, coloured, filled
from kinetograph.neural.models import completing, painting, text
from kinetograph.neural.models.video_unet import WAVES, Components, Transformer, logit, norm, silent, waves

HALVINGS = 4  # of a picture's sides, one before anything is computed: heights and widths are multiples of 16
SURE = 5.0  # what covers a fifth of a pixel, as shadows do, hides all that is behind it
FRINGE = 3  # pixels around a layer in which a picture may still show a little of it
DECIDED = 4  # to this power shares of a pixel say whose it is: seldom two layers', where a network wavers
SELDOM = -4.0  # the logit of being covered, before anything is learnt

# The numbers of `STEPS`: about what they are in the mean, and how far they spread.
USUAL = (CENTRE, CENTRE, 0.0, 0.0, 0.0, 1.0, 1.0)
SPREAD = (AROUND, AROUND, 0.3, 0.2, 1.0, 0.5, 1.0)


@dataclass(frozen=True)
class Config:
    """Sizes: of the encoder of sentences; channels of the network that finds layers, at half of each side, and of the
    one that draws them, where they are finest; frames of a course; width of the network that tells courses, and its
    blocks; for each world how many values its attributes have, and the width of what completes sentences."""

    text: text.Config
    channels: int
    drawn: int
    frames: int
    hidden: int
    blocks: int
    values: tuple[tuple[int, ...], ...]
    completed: int = completing.PRESETS["pocket"]["hidden"]  # where a checkpoint does not say

    @property
    def width(self) -> int:
        """Of what is read in a sentence."""
        return self.text.width

    @property
    def heads(self) -> int:
        """Of all attention."""
        return self.text.heads

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> "Config":
        """The configuration in the header of a checkpoint."""
        values = tuple(map(tuple, table["values"]))
        return cls(**{**table, "text": text.Config(**table["text"]), "values": values})


class Model(nn.Module):
    """The networks, and what reads sentences for them."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.text = text.Model(config.text)
        self.completion = completing.Completion(completing.Config(config.width, config.values, config.completed))
        self.painter = painting.Painter(painting.Config(config.width, config.heads, config.drawn))
        self.matting = Matting(config)
        self.courses = Courses(config)

    def read(self, ids: Tensor) -> text.Text:
        """What sentences say, by their token ids (b, l)."""
        heard: text.Text = self.text(text.trimmed(ids))
        return heard

    def complete(self, said: text.Text, noise: Tensor) -> text.Text:
        """Sentences with all that is to be true of what the first of them tells, by normal noise (attributes,). What it
        leaves open is not as those after the second say."""
        beside = self.completion.tell(self.completion.complete(said.whole[:1], noise[None], said.whole[2:]))
        which = torch.arange(len(said.whole), device=noise.device) == 0
        return said.beside(beside, which)

    def find(self, pictures: Tensor, ids: Tensor) -> "Found":
        """What is found in pictures (b, 3, h, w) of which the sentence with these token ids (1, l) tells, in float32.

        Which way layers face they say alone: a sentence says which way they should, and pictures need not heed it."""
        silence = torch.full_like(ids, text.PADDING)
        silence[:, 0] = ids[:, 0]
        count, kind = len(pictures), next(self.parameters()).dtype
        both = self.read(torch.cat([ids, silence]).repeat_interleave(count, 0))
        found: Found = self.matting(pictures.to(kind).repeat(2, 1, 1, 1), both)
        return Found(found.mattes[:count].float(), found.facing[count:].float())


# --- which layers there are -------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """What is found in pictures: logits of mattes (b, layers, h, w), and for each layer how surely it faces right, a
    logit (b, layers)."""

    mattes: Tensor
    facing: Tensor


class Matting(nn.Module):
    """(pictures (b, 3, h, w) in [-1, 1], what is said of them) -> what is found: a U-Net whose innermost cells attend
    to each other and to the words. h and w are multiples of 16."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = config.channels
        wide = [c, 2 * c, 3 * c, 4 * c]
        self.cut = nn.Conv2d(3 * 4, c, 3, padding=1)
        self.before = nn.ModuleList(Convolutions(n) for n in wide[:-1])
        self.down = nn.ModuleList(nn.Conv2d(n, m, 2, 2) for n, m in pairwise(wide))
        self.words = nn.Linear(config.width, wide[-1])
        self.silence = nn.Parameter(torch.zeros(wide[-1]))
        self.middle = Transformer(wide[-1], 2, config.heads)
        self.up = nn.ModuleList(nn.Conv2d(m, 4 * n, 1) for n, m in pairwise(wide))
        self.after = nn.ModuleList(Convolutions(n) for n in wide[:-1])
        self.paste = nn.Conv2d(c, 4 * len(LAYERS), 3, padding=1)
        self.paste.bias = nn.Parameter(torch.full((4 * len(LAYERS),), SELDOM))
        self.faces = nn.Conv2d(wide[-2], len(LAYERS), 1)

    def forward(self, pictures: Tensor, said: text.Text) -> Found:
        x, kept = self.cut(F.pixel_unshuffle(pictures, 2)), []
        for block, down in zip(self.before, self.down, strict=True):
            kept.append(block(x))
            x = down(kept[-1])
        silence = self.silence.expand(len(x), -1)
        deep = self.middle(x.permute(0, 2, 3, 1)[:, None], self.words(said.states), said.mask, silence)
        x = deep[:, 0].permute(0, 3, 1, 2)
        cells = []  # the first are the innermost
        for block, up, beside in zip(reversed(self.after), reversed(self.up), reversed(kept), strict=True):
            x = block(F.pixel_shuffle(up(x), 2) + beside)
            cells.append(x)
        mattes = F.pixel_shuffle(self.paste(x), 2)
        return Found(mattes, self._facing(cells[0], mattes))

    def _facing(self, cells: Tensor, mattes: Tensor) -> Tensor:
        """Where layers face: what their cells say of it, by how far each is covered."""
        cover = F.avg_pool2d(mattes.sigmoid(), 2 ** (HALVINGS - 1)).detach()
        return (self.faces(cells) * cover).sum((2, 3)) / cover.sum((2, 3)).clamp(min=1e-4)


class Convolutions(nn.Module):
    """Two 3 x 3 convolutions beside the identity: (b, c, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        groups = max(1, channels // 8)
        self.norm = nn.GroupNorm(groups, channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(self.norm(x))))


def taken_apart(pictures: Tensor, found: Found) -> tuple[Still, Tensor]:
    """Stills in layers out of what was found in pictures, and where layers face, 1 or -1 (b, layers)."""
    mattes = found.mattes.sigmoid()
    total = mattes.sum(1, keepdim=True)
    parts = mattes**DECIDED
    mattes = total.clamp(max=1) * parts / parts.sum(1, keepdim=True).clamp(min=1e-12)
    around = F.max_pool2d(mattes.sum(1, keepdim=True), 2 * FRINGE + 1, 1, FRINGE)
    covered = (SURE * around).clamp(max=1)
    facing = torch.where(found.facing < 0, -1.0, 1.0)
    facing[:, SHADOWS] = 1.0
    behind = filled(pictures, covered)
    return Still(coloured(pictures, mattes, behind), mattes, behind), facing


# --- where they go ----------------------------------------------------------------------------------------------------


class Courses(nn.Module):
    """(noisy steps (b, layers, t, steps) of about unit spread, level of noise (b,), what is said, what is known, (b,
    layers, t, TOLD)) -> clean steps. The noisy ones are (1 - level) clean + level noise; t is the frames of its
    training.

    Around the network lies the best linear filter for the principal components of each layer's courses, as around
    `models.video_unet`, which learns to heed the sentence: what shrinks does not turn. So it is known that courses are
    smooth, and what they are in the mean, before a perceptron, to which a clip is a single row of numbers, says what is
    missing. (A transformer over frames learns as much in a step and takes six times as long: docs/flow.md.)
    """

    usual: Tensor
    spread: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        d, slots, numbers = config.width, len(LAYERS), config.frames * len(STEPS)
        self.condition = nn.Sequential(nn.Linear(2 * WAVES + d, d), nn.SiLU(), nn.Linear(d, d))
        self.components = nn.ModuleList(Components(numbers, numbers) for _ in range(slots))
        self.heed = silent(nn.Linear(d, 2 * slots * numbers))
        told = config.frames * len(TOLD)
        self.enter = nn.Linear(slots * (2 * numbers + told), config.hidden)
        self.blocks = nn.ModuleList(Perceptron(config.hidden, d) for _ in range(config.blocks))
        self.leave = silent(nn.Linear(config.hidden, slots * numbers))
        self.register_buffer("usual", torch.tensor(USUAL), persistent=False)
        self.register_buffer("spread", torch.tensor(SPREAD), persistent=False)

    def whitened(self, steps: Tensor) -> Tensor:
        """Steps of about unit spread."""
        return (steps - self.usual.to(steps)) / self.spread.to(steps)

    def coloured(self, steps: Tensor) -> Tensor:
        """What `whitened` does, undone."""
        return steps * self.spread.to(steps) + self.usual.to(steps)

    @torch.no_grad()
    def look_at(self, steps: Tensor, there: Tensor) -> None:
        """Take the principal components of courses from these steps (n, layers, t, steps) of about unit spread, of the
        layers that are there (n, layers): once, before the network learns."""
        for slot, components in enumerate(self._laws):
            rows = steps[there[:, slot], slot].flatten(1)
            if len(rows) > 1:
                components.find([rows])

    def forward(self, noisy: Tensor, level: Tensor, said: text.Text, known: Tensor) -> Tensor:
        c = F.silu(self.condition(torch.cat([waves(logit(level)).to(noisy), said.whole], dim=1)))
        filtered, spreads = self._filtered(noisy, level, c)
        x = self.enter(torch.cat([part.to(noisy).flatten(1) for part in (noisy, filtered, known)], dim=1))
        for block in self.blocks:
            x = block(x, c)
        found = filtered + self._spread(self.leave(norm(x)).view_as(noisy), spreads)
        return torch.where(known[..., :1] > 0, found, self.whitened(torch.zeros_like(found)))

    def _filtered(self, noisy: Tensor, level: Tensor, c: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What linear filters that heed the sentence take noisy steps for, and how far the components of each layer are
        from what those that do not would take them for."""
        gates, usual = self.heed(c).unflatten(1, (2, len(LAYERS), -1)).unbind(1)
        found, spreads = [], []
        for slot, (one, rows) in enumerate(zip(self._laws, noisy.flatten(2).unbind(1), strict=True)):
            seen = one.see(rows, level[:, None])
            found.append(one.draw(seen.filtered * (1 + gates[:, slot]) + seen.spread * usual[:, slot]))
            spreads.append(seen.spread)
        return torch.stack(found, dim=1).view_as(noisy), spreads

    def _spread(self, rest: Tensor, spreads: list[Tensor]) -> Tensor:
        """What the network says is missing (b, layers, t, steps), each component in the measure in which there is."""
        found = []
        for one, told, spread in zip(self._laws, rest.flatten(2).unbind(1), spreads, strict=True):
            axes = one.axes.to(told)
            found.append(F.linear(told, axes) * spread @ axes)
        return torch.stack(found, dim=1).view_as(rest)

    @property
    def _laws(self) -> list[Components]:
        return cast(list[Components], [*self.components])


class Perceptron(nn.Module):
    """Rows (b, d) with what two layers add to them, by a condition (b, c)."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.adapt = silent(nn.Linear(condition, 2 * width))
        self.first, self.second = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adapt(c).chunk(2, dim=1)
        return x + self.second(F.gelu(self.first(torch.addcmul(shift, norm(x), 1 + scale))))


COMPLETED = {size: {"completed": row["hidden"]} for size, row in completing.PRESETS.items()}
DRAWN = {size: row["channels"] for size, row in painting.PRESETS.items()}
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"text": "tiny", "channels": 8, "drawn": DRAWN["tiny"], "hidden": 64, "blocks": 1, **COMPLETED["tiny"]},
    "pocket": {
        "text": "wide",
        "channels": 32,
        "drawn": DRAWN["pocket"],
        "hidden": 448,
        "blocks": 3,
        **COMPLETED["pocket"],
    },
    "large": {
        "text": "large",
        "channels": 48,
        "drawn": DRAWN["large"],
        "hidden": 1024,
        "blocks": 4,
        **COMPLETED["large"],
    },
}
