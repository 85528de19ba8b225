"""Scores and their intervals."""

import math

import numpy as np
import pytest

from kinetograph.metrics import Score, bootstrap, mean, proportion, wilson


@pytest.mark.parametrize(("hits", "low", "high"), [(0, 0.0, 0.27753), (5, 0.23659, 0.76341), (10, 0.72247, 1.0)])
def test_wilson_gives_the_textbook_intervals(hits, low, high):
    assert wilson(hits, 10) == pytest.approx((low, high), abs=1e-5)


def test_a_proportion_of_all_is_one_and_still_uncertain():
    score = proportion([True] * 50)
    assert (score.value, score.high, score.count) == (1.0, 1.0, 50)
    assert 0.9 < score.low < 0.95


def test_the_bootstrap_of_a_mean_agrees_with_the_normal_law():
    x = np.random.default_rng(0).normal(3, 2, 400)
    score = mean(x)
    half = 1.96 * x.std(ddof=1) / math.sqrt(400)
    assert score.value == pytest.approx(x.mean())
    assert (score.low, score.high) == pytest.approx((x.mean() - half, x.mean() + half), abs=0.1 * half)
    assert len(score.per_video) == 400


def test_the_interval_of_a_biased_statistic_holds_its_value():
    value, low, high = bootstrap(lambda places: float(len(set(places.tolist()))), 50)
    assert low <= value == 50 <= high


def test_one_video_has_no_spread():
    assert bootstrap(lambda places: 7.0, 1) == (7.0, 7.0, 7.0)


@pytest.mark.parametrize("wrong", [{"value": math.nan}, {"value": 2.0}, {"high": math.inf}])
def test_a_score_outside_of_its_interval_is_none(wrong):
    with pytest.raises(ValueError, match="no score"):
        Score(**{"value": 0.5, "low": 0.0, "high": 1.0, "count": 1} | wrong)
