"""The laws of motion: every one is drawn, named and told from every other, whatever the number of frames."""

import math

import numpy as np
import pytest

from kinetograph import motions

TRAVEL = {"slowly": (0.17, 0.22), "steadily": (0.32, 0.40), "quickly": (0.52, 0.60)}
MOVING = (
    *motions.STRAIGHT,
    *("bouncing vertically", "bouncing horizontally", "zigzagging vertically", "zigzagging horizontally"),
    *("circling clockwise", "circling counter-clockwise"),
)


def path(motion, speed, frames, seed=0):
    law = motions.drawn(np.random.default_rng(seed), motion, speed, TRAVEL)
    s = motions.times(frames)[:, None]
    wave = motions.triangle(law.get("cycles", 0) * s + law.get("phase", 0))
    turn = 2 * np.pi * (law.get("turns", 0) * s + law.get("angle", 0))
    orbit = law.get("orbit", 0) * np.concatenate([np.cos(turn), np.sin(turn)], axis=1)
    return np.array(law.get("travel", (0, 0))) * s + np.array(law.get("swing", (0, 0))) * wave + orbit


@pytest.mark.parametrize("frames", [10, 16, 25])
@pytest.mark.parametrize("speed", motions.SPEEDS)
@pytest.mark.parametrize("motion", MOVING)
def test_the_law_that_drew_a_path_is_the_law_that_fits_it(motion, speed, frames):
    for seed in range(5):
        fit = motions.best_fit(path(motion, speed, frames, seed))
        assert fit is not None
        assert fit.motion == motion


@pytest.mark.parametrize("motion", MOVING)
def test_a_path_that_trembles_follows_no_law(motion):
    rng = np.random.default_rng(0)
    assert motions.best_fit(path(motion, "steadily", 16) + rng.normal(0, 0.05, (16, 2))) is None


@pytest.mark.parametrize("kind", ["cycles", "turns", "ratio"])
def test_every_range_of_a_speed_lies_within_its_band(kind):
    ranges = {"cycles": motions.BOUNCES, "turns": motions.TURNS, "ratio": motions.RATIO}[kind]
    for speed, ends in ranges.items():
        assert {motions.band(motions.TOLD_APART[kind], end) for end in ends} == {speed}


def test_two_things_on_one_circle_are_fitted_together():
    s = motions.times(12)
    turn = 2 * np.pi * 0.7 * s
    paths = [np.stack([np.cos(turn + a), np.sin(turn + a)], axis=1) * r + 0.5 for r, a in ((0.2, 0.0), (0.3, 1.0))]
    circle = motions.fit_circle(paths, s, 0.7)
    assert circle.error < 1e-9
    assert circle.radii == pytest.approx((0.2, 0.3))
    assert (circle.angles[1] - circle.angles[0]) % (2 * math.pi) == pytest.approx(1.0)
    assert motions.fit_circle(paths, s, -0.7).error > 0.1


@pytest.mark.parametrize(
    ("text", "motion"),
    [
        ("goes quickly up and then right", "up-right"),
        ("bounced sideways", "bouncing horizontally"),
        ("circled anti clockwise", "circling counter-clockwise"),
        ("in the lower left", "down-left"),
        ("does nothing", None),
    ],
)
def test_a_motion_is_understood_from_loose_words(text, motion):
    assert motions.loosely(text, {"bouncing": ("bounc",), "circling": ("circl",)}) == motion
