"""The loop of a clip: steps outside, chunks of frames inside, the anchor first.

All frames' latents are kept, and one step takes them all, chunk by chunk, before the next begins. So memory depends on
the chunk and the result does not, frames beyond the first are computed once a step, and any sampler works.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from kinetograph.errors import InvalidRequest
from kinetograph.neural import sampling
from kinetograph.neural.pictures.words import Words, rows
from kinetograph.neural.sampling import Denoiser, Level, Levels, OnStep, Walk
from kinetograph.neural.zeroshot import motion as motions
from kinetograph.neural.zeroshot import noise as noises
from kinetograph.neural.zeroshot.attention import Crossing
from kinetograph.neural.zeroshot.reuse import Reuse

# (x (n, c, h, w), level, the words of each row, which frames) -> what the network says; rows are (groups clips frames)
Predict = Callable[[Tensor, Level, Mapping[str, Tensor], range], Tensor]
SD = sampling.Table.of(sampling.scaled_linear_betas())  # in whose times the paper tells its noise levels


def frames_denoiser(
    predict: Predict,
    prediction: str,
    told: Sequence[tuple[float, Words]],
    *,
    crossing: Crossing | None = None,
    reuse: Reuse | None = None,
    chunk: int = 8,
    tick: Callable[[], None] = lambda: None,
) -> Denoiser:
    """A network of pictures as a denoiser of clips (b, c, t, h, w), so many frames at a time.

    `told` are the groups of guidance, each with its weight: what is said is their weighted sum. Plain guidance by w is
    [(1 - w, negative), (w, positive)]. `tick` is called after each chunk; what it raises ends the sampling.
    """
    groups = [(weight, words) for weight, words in told if weight]
    heard_by_all = groups if all(words.steady for _, words in groups) else None
    if not groups or chunk < 1:
        raise InvalidRequest(f"{len(groups)} groups in chunks of {chunk}", field="chunk", hint="1 or more of each")

    def said(x: Tensor, level: Level) -> Tensor:
        parts = []
        for frames in chunks(x.shape[2], chunk):
            if crossing is not None:
                crossing.look(frames, x.shape[2], heard_by_all, (x.shape[3], x.shape[4]))
            if reuse is not None:
                reuse.look(frames, x.shape[2])
            some = x[:, :, frames.start : frames.stop].transpose(1, 2)  # (b, f, c, h, w)
            batch = some.flatten(0, 1).repeat(len(groups), 1, 1, 1)
            heard = predict(batch, level, rows([words for _, words in groups], frames), frames).to(x)
            each = heard.unflatten(0, (len(groups), *some.shape[:2]))
            parts.append(sum((weight * one for (weight, _), one in zip(groups, each)), start=torch.zeros_like(some)))
            tick()
        return torch.cat(parts, dim=1).transpose(1, 2)

    return sampling.denoiser(said, prediction)


def guided(positive: Words, negative: Words, weight: float) -> list[tuple[float, Words]]:
    """The groups of classifier-free guidance. A weight of 1 asks nothing of the negative."""
    return [(1 - weight, negative), (weight, positive)]


def chunks(total: int, size: int) -> list[range]:
    """All frames, so many at a time."""
    return [range(start, min(start + size, total)) for start in range(0, total, size)]


# ---- a clip out of one picture


@dataclass(frozen=True)
class Turn:
    """The two noise levels of motion dynamics, told as times of Stable Diffusion.

    At `back`, the paper's T', the first frame is moved for each other; to `forth`, its T, those are noised, to go on
    from there. The further they are apart, the more freedom has each frame.
    """

    back: float = 881
    forth: float = 941

    def placed(self, levels: Levels) -> "Placed":
        """Where that is on a schedule, whatever its kind and its number of steps; what lies above it is its top."""
        back = min(_time(SD.at(self.back)), _time(levels[0]))
        forth = max(min(_time(SD.at(self.forth)), _time(levels[0])), back)
        able = [index for index, level in enumerate(levels[:-1]) if _time(level) > back - CLOSE]
        scouted = sum(_time(level) > back + CLOSE for level in levels)
        return Placed(
            _level(levels, back),
            _level(levels, forth),
            min(able, key=lambda index: abs(_time(levels[index]) - forth)),
            scouted,
        )


@dataclass(frozen=True)
class Placed:
    """T' and T as levels like those of a schedule, the step at which all frames start, and the steps down to T'."""

    back: Level
    forth: Level
    start: int
    scouted: int


CLOSE = 1e-6  # levels nearer to each other than that are the same


def _time(level: Level) -> float:
    """Where a level is, as flow matching counts: finite even at pure noise."""
    return level.sigma / (level.alpha + level.sigma)


def _level(levels: Levels, time: float) -> Level:
    """The level at this place: one of these, or one like them: variance preserving, exploding or flow matching."""
    for level in levels:
        if abs(_time(level) - time) < CLOSE:
            return level
    alpha, sigma = levels[0].alpha, levels[0].sigma
    if time < 1 and all(level.alpha == 1 for level in levels):
        return Level(1.0, time / (1 - time))
    flow = abs(alpha + sigma - 1) < CLOSE and all(abs(level.alpha + level.sigma - 1) < CLOSE for level in levels)
    scale = 1.0 if flow else math.hypot(time, 1 - time)
    return Level((1 - time) / scale, time / scale)


def animate(
    denoise: Denoiser,
    first: Tensor,
    levels: Levels,
    sampler: str,
    *,
    motion: motions.Motion,
    moments: Sequence[float],
    noise: Sequence[noises.Noise],
    turn: Turn = Turn(),
    codec: motions.Codec | None = None,
    eta: float = 0.0,
    fresh_above: Level = sampling.CLEAN,
    on_step: OnStep = lambda index, count, x, clean: None,
) -> Tensor:
    """Clips (b, c, t, h, w) out of what their first frames begin as, (b, c, 1, h, w) at levels[0].

    `moments` are the seconds of all frames, `noise` the noise of each clip. The first frame goes its own way down, as
    if it were alone. A scout goes ahead of it to T', and is moved from there for each other frame. Those go on from T
    in step with the first: `denoise` is asked for the first alone until T, then for all. Their samplers are two, so
    what one of several steps remembers of the first frame is nobody else's. For a `codec` see `motion.launched`.
    """
    place = turn.placed(levels)
    walk = partial(sampling.walked, sampler=sampler, eta=eta, fresh_above=fresh_above)
    with torch.no_grad():
        heard: list[tuple[Tensor, Tensor]] = []

        def tell_one(index: int, count: int, x: Tensor, clean: Tensor) -> None:
            heard.append((x, clean))
            if index < place.start or len(moments) == 1:
                on_step(index, count, x, clean)

        def tell_all(index: int, count: int, x: Tensor, clean: Tensor) -> None:
            both = [torch.cat(pair, dim=2) for pair in zip(heard[-1], (x, clean))]
            on_step(place.start + index, len(levels) - 1, *both)

        alone = partial(walk, first, levels, noise_source=_source(noise, range(1)))
        one = _Walker(alone, tell_one)
        if len(moments) == 1:
            while one.result is None:
                one.send(denoise(*one.asked))
            return one.result
        known, x, clean = _scouted(denoise, _Walker(alone), place)
        seen = codec if place.scouted else None  # at the very top nothing is clean, and there is no picture
        starts = [
            motions.launched(a[:, 0], b[:, 0], place.back, place.forth, levels[place.start], motion, moments, its, seen)
            for a, b, its in zip(x, clean, noise)
        ]
        while len(heard) < place.start:
            one.send(known.pop(0) if known else denoise(*one.asked))
        source = _source(noise, range(1, len(moments)), place.start)
        others = torch.stack(starts).to(first)
        rest = _Walker(partial(walk, others, levels[place.start :], noise_source=source), tell_all)
        while one.result is None or rest.result is None:
            clean = denoise(torch.cat([one.asked[0], rest.asked[0]], dim=2), rest.asked[1])
            one.send(clean[:, :, :1])
            rest.send(clean[:, :, 1:])
        return torch.cat([one.result, rest.result], dim=2)


def evaluations(levels: Levels, frames: int, turn: Turn = Turn()) -> int:
    """How often `animate` asks for a frame, with a sampler that asks once a step: 389 for the paper's setting."""
    if frames == 1:
        return len(levels) - 1
    place = turn.placed(levels)
    return place.scouted + (len(levels) - 1 - place.start) * frames


class _Walker:
    """A sampler that is stopped where it asks, and counts its steps."""

    def __init__(self, walk: Callable[..., Walk], tell: OnStep = lambda index, count, x, clean: None) -> None:
        self.steps = 0
        self.result: Tensor | None = None

        def step(index: int, count: int, x: Tensor, clean: Tensor) -> None:
            self.steps = index + 1
            tell(index, count, x, clean)

        self.walk: Walk = walk(on_step=step)
        self.asked = next(self.walk)

    def send(self, clean: Tensor) -> None:
        """Answer, and go on to the next question or to the end."""
        try:
            self.asked = self.walk.send(clean)
        except StopIteration as end:
            self.result = end.value


def _scouted(denoise: Denoiser, scout: _Walker, place: Placed) -> tuple[list[Tensor], Tensor, Tensor]:
    """Down to T' with the first frame: what was heard on the way, x there, and what is clean in it by then."""
    known: list[Tensor] = []
    while scout.steps < place.scouted:
        x, level = scout.asked
        known.append(denoise(x, level))
        if scout.steps == place.scouted - 1:
            return known, sampling.move(x, known[-1], level, place.back), known[-1]
        scout.send(known[-1])
    return known, scout.asked[0], torch.zeros_like(scout.asked[0])


def _source(noise: Sequence[noises.Noise], frames: range, start: int = 0) -> sampling.NoiseSource:
    return lambda index: noises.swapped(noise, frames, start + index)
