"""How fast signal gives way to noise: every schedule's beta, alpha-bar and signal-to-noise ratio, side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinetograph.engine import OnProgress, Progress, ignore
from kinetograph.errors import UnknownName
from kinetograph.explaining import figures, numbers, tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from kinetograph.neural.sampling import Level

FINE = 1000  # levels on a curve: as many as discrete models are trained on
FAR = 60.0  # decibels: beyond, there is practically no noise, or no signal


@dataclass(frozen=True)
class Curve:
    """A schedule of `neural.sampling` with its options, and how its curve is drawn."""

    schedule: str
    colour: str
    dashes: str = "-"
    options: dict[str, Any] = field(default_factory=dict)

    def levels(self) -> "Sequence[Level]":
        """From the least noise to the most."""
        from kinetograph.neural import sampling

        return sampling.schedule(self.schedule, FINE, **self.options)[-2::-1]  # without the clean end


CURVES = {
    "linear": Curve("linear", "#9ecae1"),
    "scaled-linear": Curve("scaled-linear", "#3182bd"),
    "zero-terminal-snr": Curve("scaled-linear", "#08306b", "--", {"zero_terminal": True}),
    "cosine": Curve("cosine", "#31a354"),
    "sigmoid": Curve("sigmoid", "#a1d99b"),
    "flow": Curve("flow", "#fdae6b"),
    "flow-shift-3": Curve("flow", "#f16913", "-", {"shift": 3.0}),
    "flow-shift-8": Curve("flow", "#a63603", "-", {"shift": 8.0}),
    "karras": Curve("karras", "#756bb1", "-."),
}
PATHS = (  # the three curves in the plane: words, where they stand, how far they are turned
    ("variance preserving", (0.25, 1.0), -18),
    ("flow matching", (0.22, 0.70), -45),
    ("variance exploding", (1.09, 0.40), 90),
)


def named(name: str) -> "Sequence[Level]":
    """The levels of one of CURVES, from the least noise to the most. Raises UnknownName."""
    if name not in CURVES:
        raise UnknownName("schedule", name, CURVES)
    return CURVES[name].levels()


def betas(levels: "Sequence[Level]") -> list[float]:
    """The variance that each step of the forward process adds: 1 - alpha-bar / the alpha-bar before."""
    bars = [1.0, *map(numbers.alpha_bar, levels)]
    return [1 - after / before for before, after in pairwise(bars)]


def show(figure: Path, table: Path, *, on_progress: OnProgress = ignore) -> None:
    """Draw all of CURVES and write their numbers."""
    figures.check()
    levels = {name: named(name) for name in CURVES}
    tables.write_csv(table, [row for name, path in levels.items() for row in _rows(name, path)])
    with figures.figure(figure, 9.6, 7.4) as drawn:
        axes = drawn.subplots(2, 2)
        for name, path in levels.items():
            _draw(axes.flat, name, path)
        _dress(axes.flat)
        drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    on_progress(Progress(step=1, steps=1))


def _rows(name: str, levels: "Sequence[Level]") -> list[dict[str, Any]]:
    return [
        {
            "schedule": name,
            "part": round(index / (FINE - 1), 6),
            "time": f"{level.time:.6g}",
            "alpha": f"{level.alpha:.6g}",
            "sigma": f"{level.sigma:.6g}",
            "alpha_bar": f"{numbers.alpha_bar(level):.6g}",
            "snr_db": f"{numbers.decibels(level):.6g}",
            "beta": f"{beta:.6g}",
        }
        for index, (level, beta) in enumerate(zip(levels, betas(levels), strict=True))
    ]


def _draw(axes: "Sequence[Axes]", name: str, levels: "Sequence[Level]") -> None:
    """One schedule in all four panels."""
    parts = [index / (FINE - 1) for index in range(len(levels))]
    line: dict[str, Any] = {"color": CURVES[name].colour, "linestyle": CURVES[name].dashes, "label": name}
    axes[0].semilogy(parts, betas(levels), **line)
    axes[1].plot(parts, [numbers.alpha_bar(level) for level in levels], **line)
    axes[2].plot(parts, [min(max(numbers.decibels(level), -2 * FAR), 2 * FAR) for level in levels], **line)
    axes[3].plot([level.alpha for level in levels], [level.sigma for level in levels], **line)


def _dress(axes: "Sequence[Axes]") -> None:
    """Titles, limits, and in the plane the rays on which the signal-to-noise ratio is the same."""
    beta, bar, ratio, plane = axes
    beta.set(title=r"$\beta$: noise added by each of 1000 steps", ylim=(1e-5, 1.5))
    bar.set(title=r"$\bar\alpha$: share of signal in the variance", ylim=(-0.02, 1.02))
    ratio.set(title="signal-to-noise ratio, dB", ylim=(-FAR, FAR))
    for one in (beta, bar, ratio):
        one.set(xlabel="part of the way from clean to noise", xlim=(0, 1))
    for db in (-20, -10, 0, 10, 20):
        angle = math.atan(10 ** (-db / 20))
        plane.plot([0, 1.28 * math.cos(angle)], [0, 1.28 * math.sin(angle)], color="#bbbbbb", linewidth=0.7, zorder=0)
        plane.annotate(
            f"{db} dB",
            (1.3 * math.cos(angle), 1.3 * math.sin(angle)),
            color="#888888",
            fontsize=7.5,
            ha="center",
            va="bottom",
        )
    for words, place, angle in PATHS:
        plane.annotate(words, place, rotation=angle, rotation_mode="anchor", fontsize=8)
    plane.set(title="the plane they all live in", xlim=(0, 1.45), ylim=(0, 1.45), aspect="equal")
    plane.set(xlabel=r"signal $\alpha$", ylabel=r"noise $\sigma$")
