"""The distances between sets of features, against what is known exactly."""

import numpy as np
import pytest

from kinetograph.metrics.frechet import BLOCK, frechet_distance, kernel_distance

X = np.random.default_rng(0).normal(size=(300, 5)) @ np.random.default_rng(1).normal(size=(5, 5))


def test_a_set_is_no_distance_from_itself():
    assert frechet_distance(X, X) == pytest.approx(0, abs=1e-9)


def test_a_shift_is_its_squared_length():
    shift = np.array([1.0, -2, 0, 3, 0.5])
    assert frechet_distance(X, X + shift) == pytest.approx(shift @ shift)


def test_between_axes_that_do_not_correlate_it_is_the_difference_of_deviations():
    whitened = np.linalg.svd(X - X.mean(0), full_matrices=False)[0] * np.sqrt(len(X) - 1)  # unit covariance
    a, b = np.array([1.0, 2, 3, 4, 5]), np.array([2.0, 2, 1, 7, 0])
    assert frechet_distance(whitened * a, whitened * b) == pytest.approx(np.sum((a - b) ** 2))


def test_it_is_symmetric_and_does_not_see_rotations():
    y = X[::-1] * np.array([1.0, 2, 1, 0.5, 1]) + 1
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(5, 5)))[0]
    assert frechet_distance(y, X) == pytest.approx(frechet_distance(X, y))
    assert frechet_distance(X @ turn, y @ turn) == pytest.approx(frechet_distance(X, y))


def test_fewer_videos_than_features_are_no_trouble():
    assert np.isfinite(frechet_distance(X[:3], X[3:6]))


def test_the_kernel_distance_has_no_bias():
    rng = np.random.default_rng(3)
    found = [kernel_distance(*rng.normal(size=(2, 40, 4))) for _ in range(300)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(300)
    assert min(found) < 0 < max(found)


def test_the_kernel_distance_grows_with_the_shift():
    far = [kernel_distance(X, X[::-1] + shift) for shift in (0.0, 1.0, 2.0)]
    assert far == sorted(far)


def test_many_videos_are_compared_in_blocks():
    x = np.random.default_rng(4).normal(size=(2 * BLOCK, 3))
    parts = [kernel_distance(x[i : i + BLOCK], x[i : i + BLOCK] + 1) for i in (0, BLOCK)]
    assert kernel_distance(x, x + 1) == pytest.approx(np.mean(parts))
