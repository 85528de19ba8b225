"""diversity, flicker and motion: amounts whose exact values are known."""

import numpy as np
import pytest

from kinetograph.errors import InvalidVideo
from kinetograph.metrics import diversity, flicker, motion
from kinetograph.shelf import WORLDS

WORLD = WORLDS["circle"]


def plain(level, frames=6):
    return np.full((frames, 32, 32, 3), level, np.uint8)


def square(place, ground=100, disc=240, frames=6, pace=0):
    """A square of 8 x 8 pixels that moves `pace` pixels a frame to the right."""
    clip = plain(ground, frames)
    for t in range(frames):
        clip[t, 12:20, place + pace * t : place + pace * t + 8] = disc
    return clip


# --- diversity ------------------------------------------------------------------------------------------------------


def diverse(videos, references, prompts=("a", "a")):
    return diversity.score(videos, prompts, references, WORLD)


def test_copies_are_not_diverse():
    score = diverse([plain(9), plain(9)], [plain(0), plain(80)])
    assert (score.value, score.parts["ratio"].value, score.parts["distinct"].value) == (0, 0, 0)


def test_half_and_twice_the_difference_are_equally_far_from_the_world():
    half, twice = (diverse([plain(0), plain(d)], [plain(0), plain(80)]) for d in (40, 160))
    assert half.value == twice.value == 0.5
    assert (half.parts["ratio"].value, twice.parts["ratio"].value) == (0.5, 2.0)


def test_clips_of_different_prompts_are_not_compared():
    score = diverse([plain(0), plain(0), plain(200)], [plain(0), plain(8), plain(0)], ("a", "a", "b"))
    assert (score.value, score.count) == (0, 2)


def test_diversity_needs_a_prompt_that_comes_twice():
    with pytest.raises(InvalidVideo, match="every prompt has one video"):
        diverse([plain(0), plain(1)], [plain(0), plain(1)], ("a", "b"))


# --- flicker --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pace", [0, 1, 4])
def test_a_thing_that_moves_is_no_flicker(pace):
    assert flicker.flicker(square(0, pace=pace)) == 0


def test_flicker_is_how_much_the_background_changes():
    clip = square(0, pace=4)
    clip[::2] += 6
    assert flicker.flicker(clip) == 6


def test_a_picture_that_flashes_has_no_background_to_hide_behind():
    clip = plain(0)
    clip[::2] = 200
    assert flicker.flicker(clip) == 200


def test_noise_flickers_all_over():
    noise = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
    assert flicker.flicker(noise) == pytest.approx(256 / 3, rel=0.02)  # the mean distance of two even numbers


# --- motion ---------------------------------------------------------------------------------------------------------


def moved(video, reference):
    return motion.score([video], ["a"], [reference], WORLD)


def test_the_amount_of_motion_is_the_mean_change():
    assert motion.amount(square(0, pace=2)) == pytest.approx(2 * 2 * 8 * 140 / 32**2)


def test_the_same_motion_elsewhere_is_no_error():
    score = moved(square(0, pace=2), square(9, pace=2))
    assert (score.value, score.parts["ratio"].value) == (0, 1)


def test_twice_and_half_as_much_motion_are_equal_errors_in_opposite_directions():
    more, less = moved(square(0, pace=4), square(0, pace=2)), moved(square(0, pace=2), square(0, pace=4))
    assert more.value == less.value == pytest.approx(np.log(2), abs=0.02)
    assert more.parts["ratio"].value == pytest.approx(1 / less.parts["ratio"].value) == pytest.approx(2, abs=0.05)


def test_standing_still_is_far_off_unless_it_was_asked_for():
    assert moved(square(0), square(0, pace=2)).value > 3
    assert moved(square(0), square(5)).value == 0
