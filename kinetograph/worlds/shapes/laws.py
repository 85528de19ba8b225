"""The laws of motion and of relation, fitted to what was seen: the best is named, if it fits at all."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from kinetograph.motions import FIT, STEADY, band, best_fit, fit_circle, regress, rms, times, turn_rates
from kinetograph.worlds.shapes.scenes import SPINNING
from kinetograph.worlds.shapes.sights import TOLD_APART, Sight

# --- motions ---


def read_motion(sight: Sight) -> dict[str, str | None]:
    """Fit every law to what was seen and name the one that fits best, if it fits at all."""
    p, sizes = sight.centres[sight.clear], sight.sizes[sight.clear]
    s = times(len(sight.clear))[sight.clear]
    still = np.ptp(p, axis=0).max() < STEADY
    speed = band(TOLD_APART["spins"], abs(sight.turns))
    if sight.opacity.min() < 0.35:
        return _read_fade(sight.opacity) if still and not speed else {}
    line = np.polyval(np.polyfit(s, sizes, 1), s)  # one frame's noise does not change the size
    ratio = float(max(line.min(), 0) / line.max())
    if not sight.clear.all() or (ratio < 0.88) + bool(speed) + (not still) > 1:  # no law does two of these
        return {}
    if speed:
        return {"motion": SPINNING[0] if sight.turns > 0 else SPINNING[1], "speed": speed}
    if ratio < 0.88:
        straight = float(np.abs(sizes - line).max()) < 0.1 * float(line.max())
        motion = "shrinking" if line[0] > line[-1] else "expanding"
        return {"motion": motion, "speed": band(TOLD_APART["ratio"], ratio)} if straight else {}
    if still:
        return {"motion": "still"}
    fit = best_fit(p)
    return {"motion": fit.motion, "speed": band(TOLD_APART[fit.kind], fit.value)} if fit else {}


def _read_fade(opacity: np.ndarray) -> dict[str, str | None]:
    """Appearing or disappearing: nothing, then in a straight line to everything, or the other way round."""
    ramps, lengths = _ramps(len(opacity))
    found = []
    for motion, ahead in (("appearing", ramps), ("disappearing", 1 - ramps)):
        error = np.sqrt(np.mean((opacity - ahead) ** 2, axis=1))
        best = int(error.argmin())
        found.append((float(error[best]), motion, band(TOLD_APART["fades"], float(lengths[best]))))
    error, motion, speed = min(found)
    return {"motion": motion, "speed": speed} if error < 0.12 else {}


@cache
def _ramps(frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Every ramp from 0 to 1, as rows, and how long each takes."""
    length, begin = (grid.reshape(-1, 1) for grid in np.meshgrid(np.arange(0.08, 0.97, 0.03), np.arange(0, 0.95, 0.03)))
    within = (length + begin < 1.0)[:, 0]
    length, begin = length[within], begin[within]
    return np.clip((times(frames) - begin) / length, 0, 1), length[:, 0]


# --- relations ---


@dataclass(frozen=True)
class _Pair:
    """Two things, the first taken for the subject: what their relation is told by."""

    a: Sight
    b: Sight

    @property
    def s(self) -> np.ndarray:
        """The moments of the clip."""
        return times(len(self.a.clear))

    @property
    def both(self) -> np.ndarray:
        """The frames in which both are clear."""
        return np.asarray(self.a.clear & self.b.clear)

    def nearness(self, p: np.ndarray, q: np.ndarray) -> np.ndarray:
        """Distance in units of the two sizes' sum: about 1 where they touch."""
        sizes = sum(float(np.median(sight.sizes[sight.clear])) for sight in (self.a, self.b))
        return np.asarray(np.linalg.norm(p - q, axis=-1) / sizes)


def read_relation(one: Sight, two: Sight) -> tuple[str, Sight, Sight] | None:
    """The relation whose law fits best, with the subject and its partner; None where none fits."""
    found = []
    for a, b in ((one, two), (two, one)):
        pair = _Pair(a, b)
        fits = ((name, law(pair)) for name, law in _LAWS.items())
        found += [(error, name, a, b) for name, error in fits if error < FIT]
    if not found:
        return None
    _, name, a, b = min(found, key=lambda row: row[0])
    return name, a, b


def _rest(sight: Sight) -> float:
    """How far something that should rest strays."""
    p = sight.centres[sight.clear]
    return rms(p - p.mean(0))


def _fit_beside(pair: _Pair, axis: int) -> float:
    """Both rest or drift together, the partner to the right (axis 0) or below (axis 1)."""
    if pair.both.mean() < 0.8:
        return math.inf
    p, q = pair.a.centres[pair.both], pair.b.centres[pair.both]
    drift, residual = regress(np.concatenate([p, q], axis=1), pair.s[pair.both])
    off = (q - p).mean(0)
    apart = float(np.linalg.norm(drift[:2] - drift[2:]))
    if np.linalg.norm(drift) / math.sqrt(2) > 0.18 or apart > 0.08 or off[axis] < 1.4 * abs(off[1 - axis]):
        return math.inf
    return math.hypot(rms(residual[:, :2]), rms(residual[:, 2:]))


def _fit_chase(pair: _Pair) -> float:
    """One velocity, or one circle, the partner ahead."""
    if pair.both.mean() < 0.8:
        return math.inf
    p, q, s = pair.a.centres[pair.both], pair.b.centres[pair.both], pair.s[pair.both]
    mean, off = (p + q) / 2, (q - p).mean(0)
    velocity, residual = regress(mean, s)
    length = float(np.linalg.norm(velocity))
    straight = math.inf
    if length > 0.22 and velocity @ off > 0.9 * length * np.linalg.norm(off):
        straight = math.hypot(rms(residual), rms(q - p - off))
    return min(straight, _fit_round(p, q, s))


def _fit_round(p: np.ndarray, q: np.ndarray, s: np.ndarray) -> float:
    """Both round one circle, the second ahead by less than 140 degrees."""
    best = math.inf
    for turns in turn_rates():
        circles = fit_circle([p, q], s, turns)
        a, b = circles.radii
        ahead = math.copysign(1, turns) * (circles.angles[1] - circles.angles[0]) % (2 * math.pi)
        if min(a, b) > 0.15 and max(a, b) < 1.25 * min(a, b) and math.radians(25) < ahead < math.radians(140):
            best = min(best, circles.error)
    return best


def _fit_orbit(pair: _Pair) -> float:
    """The partner rests, and the subject goes round it."""
    if pair.both.mean() < 0.8 or (rest := _rest(pair.b)) > FIT:
        return math.inf
    p, s = pair.a.centres[pair.both], pair.s[pair.both]
    middle = pair.b.centres[pair.both].mean(0)
    fits = [fit_circle([p], s, turns) for turns in turn_rates()]
    best = min(fits, key=lambda fit: fit.error)
    far = np.linalg.norm(p - middle, axis=1)
    round_it = far.std() < 0.15 * far.mean() and best.radii[0] > 0.12
    return math.hypot(rest, best.error) if round_it else math.inf


def _fit_pass(pair: _Pair, behind: bool) -> float:
    """The partner rests, the subject crosses it in a straight line; who is hidden meanwhile lies behind."""
    if (rest := _rest(pair.b)) > FIT:
        return math.inf
    p, s = pair.a.centres[pair.a.clear], pair.s[pair.a.clear]
    velocity, residual = regress(p, s)
    middle = pair.b.centres[pair.b.clear].mean(0)
    line = p.mean(0) + np.outer(np.linspace(0, 1, 65) - s.mean(), velocity)
    near = pair.nearness(line, middle)
    crosses = near.min() < 0.45 and near[0] > 0.9 and near[-1] > 0.9 and float(np.linalg.norm(velocity)) > 0.35
    hidden = float(pair.b.area.min() - pair.a.area.min())
    tells = hidden > 0.05 if behind else hidden < -0.05
    return math.hypot(rest, rms(residual)) if crosses and tells else math.inf


def _fit_bounce(pair: _Pair) -> float:
    """The partner rests, the subject comes, touches it and goes back."""
    if pair.both.mean() < 0.7 or (rest := _rest(pair.b)) > FIT:
        return math.inf
    p, s = pair.a.centres[pair.a.clear], pair.s[pair.a.clear]
    middle = pair.b.centres[pair.b.clear].mean(0)
    error, before, after, corner = _bent(p, s)
    near = float(pair.nearness(corner, middle))
    to_it = middle - corner
    comes, goes = float(before @ to_it), float(after @ to_it)
    length = min(float(np.linalg.norm(before)), float(np.linalg.norm(after)))
    touches = near < 1.6 and length > 0.25 and comes > 0 > goes and float(before @ after) < 0
    return math.hypot(rest, error) if touches else math.inf


def _fit_push(pair: _Pair) -> float:
    """The subject goes on and on, the partner rests until it is reached and then goes along."""
    if pair.both.mean() < 0.7:
        return math.inf
    p, q, s = pair.a.centres[pair.both], pair.b.centres[pair.both], pair.s[pair.both]
    velocity, residual = regress(p, s)
    error, before, after, _ = _bent(q, s)
    length = float(np.linalg.norm(velocity))
    ahead = q.mean(0) - p.mean(0)
    along = velocity @ ahead > 0.8 * length * np.linalg.norm(ahead)
    taken = float(np.linalg.norm(before)) < 0.12 and float(np.linalg.norm(after - velocity)) < 0.35 * length
    return math.hypot(rms(residual), error) if along and taken and length > 0.3 else math.inf


def _bent(p: np.ndarray, s: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Two straight lines that meet, least squares over where: error, velocity before and after, the corner."""
    best = (math.inf, np.zeros(2), np.zeros(2), np.zeros(2))
    for knee in np.arange(0.26, 0.75, 0.02):
        design = np.stack([np.ones_like(s), np.minimum(s - knee, 0), np.maximum(s - knee, 0)], axis=1)
        solution, *_ = np.linalg.lstsq(design, p, rcond=None)
        error = rms(p - design @ solution)
        if error < best[0]:
            best = (error, solution[1], solution[2], solution[0])
    return best


_LAWS: dict[str, Callable[[_Pair], float]] = {
    "chases": _fit_chase,
    "orbits": _fit_orbit,
    "passes behind": lambda pair: _fit_pass(pair, behind=True),
    "passes in front of": lambda pair: _fit_pass(pair, behind=False),
    "bounces off": _fit_bounce,
    "pushes": _fit_push,
    "left of": lambda pair: _fit_beside(pair, 0),
    "above": lambda pair: _fit_beside(pair, 1),
}
