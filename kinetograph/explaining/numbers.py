"""The numbers of a noise level, as text and as coordinates."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kinetograph.neural.sampling import Level


def alpha_bar(level: "Level") -> float:
    """The share of the signal in the variance of a noisy sample of unit-variance data: Ho et al.'s alpha-bar.

    Levels that do not preserve the variance are scaled until they do; that changes no ratio of signal to noise.
    """
    return level.alpha**2 / (level.alpha**2 + level.sigma**2)


def decibels(level: "Level") -> float:
    """The signal-to-noise ratio, 20 log10(alpha / sigma)."""
    return 20 / math.log(10) * level.lam


def line(level: "Level") -> str:
    """All of them in one line."""
    return "   ".join(lines(level))


def lines(level: "Level") -> list[str]:
    """One number a line. In letters that every font has: Pillow's own knows no Greek."""
    db = decibels(level)
    return [
        f"time {level.time:.4g}",
        f"alpha {level.alpha:.3f}",
        f"sigma {level.sigma:.3f}",
        f"alpha-bar {alpha_bar(level):.4f}",
        f"SNR {round(db, 1) + 0.0:+.1f} dB" if math.isfinite(db) else "no noise" if db > 0 else "no signal",
    ]
