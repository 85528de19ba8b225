"""Sampling: from noise to a clean sample in a few calls of a denoiser. Pure functions: no state, no device, no bar.

Everything stands on one equation. At a level (alpha, sigma) a noisy sample is

    x = alpha * clean + sigma * noise

and a *denoiser* is any callable (x, level) -> clean estimate. A *schedule* is a falling sequence of levels. Variance
preserving (alpha² + sigma² = 1), variance exploding (alpha = 1) and flow matching (alpha + sigma = 1) are three curves
in one plane, so one set of samplers serves them all. It is one set in a stronger sense, too: as long as the clean
estimate stands still, the exact way to the next level is a straight `move` towards it. Every sampler below makes that
move; they differ in the estimate they move towards, and in whether they swap old noise for fresh.

    levels = schedule("flow", 30, shift=3.0)
    clip = sample(denoise, begin(noise, levels[0]), levels, "unipc")

Letters are those of DPM-Solver++ (Lu et al. 2022); what EDM (Karras et al. 2022) calls sigma is `Level.ratio` here.
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from kinetograph.errors import InvalidRequest, UnknownName

MOST_STEPS = 1000
TRAINING_TIMES = 1000  # of discrete models, from Ho et al. 2020 to Stable Diffusion


@dataclass(frozen=True)
class Level:
    """How much signal and how much noise: x = alpha * clean + sigma * noise.

    `time` is what the network was trained to be told there: the index 0 ... 999 of a discrete model, t in [0, 1] of
    flow matching, ln(sigma) / 4 of EDM. The arithmetic of this file never looks at it.
    """

    alpha: float
    sigma: float
    time: float = 0.0

    @property
    def ratio(self) -> float:
        """Noise over signal, EDM's sigma: 0 for a clean sample, infinite for pure noise."""
        return self.sigma / self.alpha if self.alpha else math.inf

    @property
    def lam(self) -> float:
        """log(alpha / sigma), half the log of the signal-to-noise ratio: the clock of DPM-Solver."""
        return -math.log(self.ratio) if self.sigma else math.inf


CLEAN = Level(1.0, 0.0)

Levels = Sequence[Level]
Denoiser = Callable[[Tensor, Level], Tensor]
NoiseSource = Callable[[int], Tensor]  # (index of the step, from 0) -> standard normal noise of x's shape
OnStep = Callable[[int, int, Tensor, Tensor], None]  # (index from 0, count, x after the step, clean estimate before it)
Walk = Generator[tuple[Tensor, Level], Tensor, Tensor]  # asks what is clean in x at a level, is sent it, returns x


def begin(noise: Tensor, level: Level) -> Tensor:
    """Where to start from nothing: noise, scaled to the spread that data of unit variance has at this level."""
    return math.hypot(level.alpha, level.sigma) * noise


def noised(x: Tensor, noise: Tensor, level: Level, now: Level = CLEAN) -> Tensor:
    """Take x from the level where it is `now` to a noisier one, as the forward process does.

    From CLEAN it is the equation above. To vary a clip, start from its noised self part of the way down:
    `sample(denoise, noised(clip, noise, levels[k]), levels[k:])`.
    """
    if not now.alpha or level.ratio < now.ratio:
        hint = f"choose a level whose ratio is above {now.ratio:g}"
        raise InvalidRequest("noise can be added, but not taken away", field="level", hint=hint)
    kept = level.alpha / now.alpha
    return kept * x + math.sqrt(max(level.sigma**2 - (kept * now.sigma) ** 2, 0)) * noise


# ---- predictions: what networks say, brought to what samplers want


@dataclass(frozen=True)
class Prediction:
    """One thing that a network may be trained to say: the clean sample in it, and the target to train towards."""

    clean: Callable[[Tensor, Tensor, Level], Tensor]  # (said, x, level)
    target: Callable[[Tensor, Tensor, Level], Tensor]  # (clean, noise, level)


def _clean_of_epsilon(said: Tensor, x: Tensor, level: Level) -> Tensor:
    if level.alpha == 0:
        hint = "use a network that predicts v, or a schedule without zero_terminal"
        raise InvalidRequest("the noise in pure noise says nothing of the clean sample", field="levels", hint=hint)
    return (x - level.sigma * said) / level.alpha


PREDICTIONS = {
    "clean": Prediction(lambda said, x, level: said, lambda clean, noise, level: clean),
    "epsilon": Prediction(_clean_of_epsilon, lambda clean, noise, level: noise),
    "v": Prediction(  # Salimans & Ho 2022, appendix D
        lambda said, x, level: (level.alpha * x - level.sigma * said) / (level.alpha**2 + level.sigma**2),
        lambda clean, noise, level: level.alpha * noise - level.sigma * clean,
    ),
    "velocity": Prediction(  # dx/dt of x = (1 - t) clean + t noise, Liu et al. 2022
        lambda said, x, level: (x - level.sigma * said) / (level.alpha + level.sigma),
        lambda clean, noise, level: noise - clean,
    ),
}


def denoiser(network: Denoiser, prediction: str) -> Denoiser:
    """Bring a network (x, level) -> what it predicts to the one contract, (x, level) -> clean estimate."""
    kind = _named("prediction", prediction, PREDICTIONS)
    return lambda x, level: kind.clean(network(x, level), x, level)


def convert(said: Tensor, x: Tensor, level: Level, source: str, to: str) -> Tensor:
    """Say the same as another kind of prediction. There must be noise in x, or nothing can be said of it."""
    if level.sigma == 0:
        raise InvalidRequest("a clean sample has no noise to speak of", field="level", hint="give one with sigma > 0")
    clean = _named("prediction", source, PREDICTIONS).clean(said, x, level)
    return _named("prediction", to, PREDICTIONS).target(clean, (x - level.alpha * clean) / level.sigma, level)


# ---- schedules: how many steps -> which levels, the noisiest first, CLEAN last


def schedule(name: str, steps: int, **options: Any) -> Levels:
    """The levels of a named schedule, one more than there are steps. Raises UnknownName and InvalidRequest."""
    return _named("schedule", name, SCHEDULES)(steps, **options)


def flow(steps: int, shift: float = 1.0) -> Levels:
    """Flow matching: t falls evenly from 1 to 0; a shift above 1 stays longer in the noise (Esser et al. 2024, eq. 23).

    The more pixels a sample has, the more noise they see through together: for m times the pixels shift by sqrt(m).
    """
    if not 0 < shift < math.inf:
        raise InvalidRequest(f"a shift of {shift} is no scale", field="shift", hint="1 changes nothing, 3 is usual")
    times = [1 - index / steps for index in range(_counted(steps))]
    return (*(flow_level(shift * t / (shift * t + (1 - t))) for t in times), CLEAN)


def flow_level(t: float) -> Level:
    """The level of flow matching at t in [0, 1]: x = (1 - t) clean + t noise."""
    return Level(1 - t, t, t)


def karras(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Levels:
    """Variance exploding, with its steps placed as in EDM."""
    return (*(Level(1.0, s, math.log(s) / 4) for s in _karras_ratios(steps, sigma_min, sigma_max, rho)), CLEAN)


def _karras_ratios(steps: int, low: float, high: float, rho: float = 7.0) -> list[float]:
    if not 0 < low < high < math.inf:
        hint = "0 < sigma_min < sigma_max, both finite (so no zero_terminal)"
        raise InvalidRequest(f"noise from {high} down to {low} cannot be divided", field="sigma_max", hint=hint)
    ramp = [index / max(steps - 1, 1) for index in range(_counted(steps))]
    return [(high ** (1 / rho) + part * (low ** (1 / rho) - high ** (1 / rho))) ** rho for part in ramp]  # EDM eq. 5


@dataclass(frozen=True)
class Table:
    """The levels that a discrete variance-preserving model was trained on: noise over signal at times 0, 1, ..."""

    ratios: tuple[float, ...]

    @classmethod
    def of(cls, betas: Tensor, zero_terminal: bool = False) -> "Table":
        """From the variances beta_t (T,) of the forward steps; `zero_terminal` stretches them to end in pure noise."""
        alphas = (1 - betas.double()).cumprod(0).sqrt()  # square roots of Ho et al.'s alpha-bar
        if zero_terminal:  # Lin et al. 2023, Algorithm 1
            alphas = (alphas - alphas[-1]) * (alphas[0] / (alphas[0] - alphas[-1]))
        return cls(tuple(((1 - alphas**2).sqrt() / alphas).tolist()))

    def at(self, time: float) -> Level:
        """The level at a training time; between two whole ones on the line between their ratios, as in diffusers."""
        last = len(self.ratios) - 1
        if not 0 <= time <= last:
            hint = f"the nearest is {min(max(time, 0), last):g}"
            raise InvalidRequest(f"the model was not trained at time {time}", field="time", hint=hint)
        below, part = int(time), time - int(time)
        ratio = self.ratios[below]
        return _preserving(ratio + part * (self.ratios[below + 1] - ratio) if part else ratio, time)

    def time(self, ratio: float) -> float:
        """The training time of a ratio of noise to signal; between two known ones by the logarithm, as in diffusers."""
        if ratio >= self.ratios[-1]:
            return len(self.ratios) - 1
        below = sum(known <= ratio for known in self.ratios[1:-1])
        low, high = self.ratios[below : below + 2]
        return below + max(math.log(ratio / low) / math.log(high / low), 0.0)

    def levels(self, steps: int, placement: str = "trailing", offset: int = 0) -> Levels:
        """Place steps. `offset` moves "leading" alone (steps_offset in diffusers' configurations, often 1)."""
        if placement == "karras":
            ratios = _karras_ratios(steps, self.ratios[0], self.ratios[-1])
            return (*(_preserving(ratio, self.time(ratio)) for ratio in ratios), CLEAN)
        place = _named("placement", placement, PLACEMENTS)
        times = place(_counted(steps, min(len(self.ratios), MOST_STEPS)), len(self.ratios))
        return (*(self.at(time + offset * (place is leading)) for time in times), CLEAN)


def _preserving(ratio: float, time: float) -> Level:
    """The level with alpha² + sigma² = 1 that has this ratio of noise to signal."""
    if math.isinf(ratio):
        return Level(0.0, 1.0, time)
    return Level(1 / math.hypot(1, ratio), ratio / math.hypot(1, ratio), time)


# Three ways to place steps on `count` whole training times (Lin et al. 2023, Table 2); the noisiest first.


def leading(steps: int, count: int) -> list[int]:
    """Evenly from time 0 up. Ends short of the most noise, where samples begin: only for models that are used to it."""
    return [index * (count // steps) for index in reversed(range(steps))]


def trailing(steps: int, count: int) -> list[int]:
    """Evenly from the last training time down: begins where samples do."""
    return [round(count - index * count / steps) - 1 for index in range(steps)]


def linspace(steps: int, count: int) -> list[int]:
    """Evenly from the last training time to the first, both included."""
    gaps = max(steps - 1, 1)
    return [round((count - 1) * index / gaps) for index in range(gaps, gaps - steps, -1)]


PLACEMENTS = {"leading": leading, "trailing": trailing, "linspace": linspace}


def linear_betas(start: float = 1e-4, end: float = 0.02) -> Tensor:
    """Variances that rise evenly (Ho et al. 2020). These four: float64 (1000,)."""
    return torch.linspace(start, end, TRAINING_TIMES, dtype=torch.float64)


def scaled_linear_betas(start: float = 0.00085, end: float = 0.012) -> Tensor:
    """Variances whose square roots rise evenly (Rombach et al. 2022): Stable Diffusion, ModelScope, ZeroScope."""
    return linear_betas(start**0.5, end**0.5) ** 2


def cosine_betas() -> Tensor:
    """Variances that let the signal fall as a squared cosine (Nichol & Dhariwal 2021, eq. 17)."""
    times = torch.arange(TRAINING_TIMES + 1, dtype=torch.float64) / TRAINING_TIMES
    signal = ((times + 0.008) / 1.008 * math.pi / 2).cos() ** 2
    return (1 - signal[1:] / signal[:-1]).clamp(max=0.999)


def sigmoid_betas(start: float = 1e-4, end: float = 0.02) -> Tensor:
    """Variances that rise as a sigmoid (Xu et al. 2022, GeoDiff)."""
    return linear_betas(-6.0, 6.0).sigmoid() * (end - start) + start


BETAS = {"linear": linear_betas, "scaled-linear": scaled_linear_betas, "cosine": cosine_betas, "sigmoid": sigmoid_betas}


def trained(steps: int, betas: str, zero_terminal: bool = False, **placing: Any) -> Levels:
    """The schedule of a discrete model by the name of its variances; `placing` is as for `Table.levels`."""
    return Table.of(_named("noise schedule", betas, BETAS)(), zero_terminal).levels(steps, **placing)


SCHEDULES: dict[str, Callable[..., Levels]] = {"flow": flow, "karras": karras}
SCHEDULES |= {name: partial(trained, betas=name) for name in BETAS}


# ---- samplers


def sample(
    denoise: Denoiser,
    x: Tensor,
    levels: Levels,
    sampler: str = "unipc",
    *,
    noise_source: NoiseSource | None = None,
    on_step: OnStep = lambda index, count, x, clean: None,
    eta: float = 0.0,
    fresh_above: Level = CLEAN,
) -> Tensor:
    """Take x (b, ...), which is at levels[0], down to levels[-1] with a named sampler, without gradients.

    Where the levels end in CLEAN, the result is the last clean estimate itself; they may end earlier, and another call
    go on from there. `noise_source` feeds the samplers that draw noise, so that what a clip's seed means is the
    caller's to say. `eta` is the share of fresh noise in "ddim", from 0 to 1 ("ddpm"), at levels noisier than
    `fresh_above`. `on_step` hears of each step when it is done; what it raises ends the sampling. Raises UnknownName
    and InvalidRequest.
    """
    walk = walked(x, levels, sampler, noise_source=noise_source, on_step=on_step, eta=eta, fresh_above=fresh_above)
    with torch.no_grad():
        try:
            asked = next(walk)
            while True:
                asked = walk.send(denoise(*asked))
        except StopIteration as end:
            return end.value


def walked(
    x: Tensor,
    levels: Levels,
    sampler: str,
    *,
    noise_source: NoiseSource | None = None,
    on_step: OnStep = lambda index, count, x, clean: None,
    eta: float = 0.0,
    fresh_above: Level = CLEAN,
) -> Walk:
    """`sample`, turned inside out: a generator that asks for each clean estimate, so that several can go in step.

    What they are sent must not need gradients. Raises UnknownName and InvalidRequest, at once.
    """
    walk = _named("sampler", sampler, SAMPLERS)
    if _share("eta", eta) and sampler != "ddim":
        raise InvalidRequest(f"{sampler!r} has no eta", field="eta", hint="leave it at 0, or use 'ddim'")
    _counted(len(levels) - 1)
    if not all(now.ratio > to.ratio for now, to in pairwise(levels)):
        raise InvalidRequest("the noise does not fall from each level to the next", field="levels", hint="sort them")
    return walk(x, levels, noise_source, on_step, **({"eta": eta, "fresh_above": fresh_above} if eta else {}))


def move(x: Tensor, clean: Tensor, now: Level, to: Level) -> Tensor:
    """From one level to another, straight towards a clean estimate: the noise in x stays what it is.

    It is alpha' clean + sigma' noise with noise = (x - alpha clean) / sigma: DDIM (Song et al. 2021, eq. 12 without its
    sigma_t), Euler's step in EDM and in flow matching, and the first order of DPM-Solver++, all of them the same.
    """
    kept = to.sigma / now.sigma
    return kept * x + (to.alpha - now.alpha * kept) * clean


def ddim(
    x: Tensor,
    levels: Levels,
    noise_source: NoiseSource | None,
    on_step: OnStep,
    eta: float = 0.0,
    fresh_above: Level = CLEAN,
) -> Walk:
    """DDIM (Song et al. 2021, eq. 12 and 16): the plain move, with a share of the noise swapped for fresh noise.

    With eta 0 it is Euler's method on the probability flow; with eta 1 it is ancestral sampling (DDPM, Ho et al. 2020,
    eq. 7), which k-diffusion calls Euler ancestral. Fresh noise only where there is much of it may mend what went
    wrong early and leaves fine detail alone, like EDM's churn above S_tmin (Karras et al. 2022, Algorithm 2).
    """
    for index, (now, to) in enumerate(pairwise(levels)):
        share = eta if now.ratio > fresh_above.ratio else 0.0
        swapped = share * math.sqrt(1 - (to.ratio / now.ratio) ** 2)  # eq. 16 is sigma' times this
        fresh = to.sigma * swapped * _drawn(noise_source, index, x) if swapped and to.sigma else 0.0
        clean = yield x, now
        x = move(x, clean, now, Level(to.alpha, to.sigma * math.sqrt(1 - swapped**2))) + fresh
        on_step(index, len(levels) - 1, x, clean)
    return x


def heun(
    x: Tensor,
    levels: Levels,
    _: NoiseSource | None,
    on_step: OnStep,
    clock: Callable[[Level], float] = lambda level: level.sigma / (level.alpha + level.sigma),
) -> Walk:
    """Heun's method: two calls a step, the second at its far end; the last step needs but one.

    A mean of two slopes depends on the clock. This one is flow matching's t, finite even at pure noise. EDM's Algorithm
    1, and diffusers, go by the ratio ("heun-edm"): it overshoots where that falls from hundreds in a few steps, and out
    of pure noise it can but take an Euler step.
    """
    for index, (now, to) in enumerate(pairwise(levels)):
        clean = ahead = yield x, now
        if to.sigma and math.isfinite(clock(now)):
            again = yield move(x, clean, now, to), to
            ahead = clean + (again - clean) * (clock(now) / clock(to) / 2)
        x = move(x, ahead, now, to)
        on_step(index, len(levels) - 1, x, clean)
    return x


def dpmpp_2m(x: Tensor, levels: Levels, _: NoiseSource | None, on_step: OnStep) -> Walk:
    """DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2): moves towards where the last two estimates point."""
    old = x
    for index, (now, to) in enumerate(pairwise(levels)):
        clean = yield x, now
        x = move(x, _pointed_at(clean, old, levels[index - 1], now, to) if index else clean, now, to)
        old = clean
        on_step(index, len(levels) - 1, x, clean)
    return x


def _pointed_at(clean: Tensor, old: Tensor, before: Level, now: Level, to: Level) -> Tensor:
    """The estimate half a step (of lambda) ahead, on the line through the last two; before CLEAN, the last itself."""
    if to.sigma == 0:
        return clean
    r = (now.lam - before.lam) / (to.lam - now.lam)  # infinite after pure noise, whose estimate points nowhere
    return clean + (clean - old) / (2 * r)


def unipc(x: Tensor, levels: Levels, _: NoiseSource | None, on_step: OnStep) -> Walk:
    """UniPC-2 (Zhao et al. 2023, with their B2): 2M, each of whose steps is taken again once its end has been seen.

    The estimate at the end is needed for the next step anyway, so this costs no call. Of third order, and on most
    schedules the best here when calls are few.
    """
    start = old = older = x
    for index, (now, to) in enumerate(pairwise(levels)):
        clean = yield x, now
        if index:
            aim = _looking_back(clean, old, older, levels[max(index - 2, 0) : index + 1])
            x = move(start, aim, levels[index - 1], now)
        start = x
        x = move(x, _pointed_at(clean, old, levels[index - 1], now, to) if index else clean, now, to)
        old, older = clean, old
        on_step(index, len(levels) - 1, x, clean)
    return x


def _looking_back(clean: Tensor, old: Tensor, older: Tensor, levels: Levels) -> Tensor:
    """UniC: the estimate that a step should have moved towards, from those at its end, at its start and before it."""
    if len(levels) == 2:  # the first step: there is none before it
        return old + (clean - old) / 2
    before, start, end = (level.lam for level in levels)
    h, r = end - start, (before - start) / (end - start)
    g1 = -1 / math.expm1(-h) - 1 / h  # moments of the step's exponential weight; rho solves R rho = g, 2 by 2
    g2 = -1 / math.expm1(-h) - 2 * g1 / h
    rho = (g1 - g2) / (1 - r)
    return old + (rho / r) * (older - old) + (g1 - rho) * (clean - old)


SAMPLERS: dict[str, Callable[..., Walk]] = {
    "ddpm": partial(ddim, eta=1.0),
    "ddim": ddim,
    "euler": ddim,
    "heun": heun,
    "heun-edm": partial(heun, clock=lambda level: level.ratio),
    "dpmpp-2m": dpmpp_2m,
    "unipc": unipc,
}


# ---- denoisers made of denoisers


def guide(
    wanted: Denoiser,
    other: Denoiser,
    weight: float,
    *,
    interval: tuple[float, float] = (0.0, math.inf),
    rescale: float = 0.0,
) -> Denoiser:
    """Classifier-free guidance (Ho & Salimans 2022): other + weight * (wanted - other), of the clean estimates.

    `other` knows no prompt, or a negative one. A weight of 1 is `wanted` alone and costs one call; less, down to 0,
    leans to the other. It acts where interval[0] < level.ratio <= interval[1] (Kynkäänniemi et al. 2024); elsewhere the
    weight is 1. `rescale` from 0 to 1 pulls the spread of each clip back to that of `wanted` (Lin et al. 2023, eq. 15
    and 16, which they apply to what the network says). Raises InvalidRequest.
    """
    low, high = interval
    if not 0 <= weight < math.inf:
        raise InvalidRequest(f"a guidance weight of {weight}", field="weight", hint="0 or more; 1 is no guidance")
    if not 0 <= low < high:
        raise InvalidRequest(f"no level lies between {low} and {high}", field="interval", hint="give 0 <= low < high")
    _share("rescale", rescale)

    def guided(x: Tensor, level: Level) -> Tensor:
        right = wanted(x, level)
        if weight == 1 or not low < level.ratio <= high:
            return right
        left = other(x, level)
        return _rescaled(left + weight * (right - left), right, rescale)

    return guided


def _rescaled(guided: Tensor, wanted: Tensor, share: float) -> Tensor:
    if share == 0:
        return guided
    spread, target = (y.reshape(len(y), -1).std(1, correction=0) for y in (guided, wanted))  # (b,)
    factor = torch.where(spread > 0, target / spread, 1.0).reshape(-1, *[1] * (guided.ndim - 1))  # eq. 15
    return (share * factor + (1 - share)) * guided  # eq. 16


def keep(denoise: Denoiser, known: Tensor, mask: Tensor) -> Denoiser:
    """Let the clean estimate be what is known where the mask (bool, broadcast) is true: a first frame, an earlier clip.

    Put it outside of guidance, whose rescaling would change what is known.
    """
    return lambda x, level: torch.where(mask.to(x.device), known.to(x), denoise(x, level))


# ---- checks


def _named(kind: str, name: str, known: dict[str, Any]) -> Any:
    if name not in known:
        raise UnknownName(kind, name, known)
    return known[name]


def _counted(steps: int, most: int = MOST_STEPS) -> int:
    if not 1 <= steps <= most:
        hint = f"the nearest is {1 if steps < 1 else most}"
        raise InvalidRequest(f"cannot sample in {steps} steps, only in 1 to {most}", field="steps", hint=hint)
    return steps


def _share(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise InvalidRequest(f"{name} is {value}", field=name, hint=f"the nearest is {0 if value < 0 else 1}")
    return value


def _drawn(noise_source: NoiseSource | None, index: int, x: Tensor) -> Tensor:
    if noise_source is None:
        raise InvalidRequest("this sampler draws noise", field="noise_source", hint="give it a noise_source")
    noise = noise_source(index)
    if noise.shape != x.shape:
        message = f"noise of shape {tuple(noise.shape)} does not fit a sample of {tuple(x.shape)}"
        raise InvalidRequest(message, field="noise_source", hint="draw one number for each of the sample's")
    return noise.to(x)
