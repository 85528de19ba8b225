"""Tracking: places are followed back to the first frame, and what was not seen there is said to be new."""

import cv2
import numpy as np
import pytest

from kinetograph.tracking import tracked

SCENE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (160, 320, 3)).astype(np.float32), (0, 0), 2)
SCENE = np.clip((SCENE - 127) * 4 + 127, 0, 255).astype(np.uint8)


def panned(shift, count=3):
    return np.stack([SCENE[:128, 80 - shift * k : 240 - shift * k] for k in range(count)])


@pytest.mark.parametrize("shift", [0, 3, -3])
def test_a_pan_is_followed_back(shift):
    track = tracked(panned(shift), 16, 20)
    here = (np.stack(np.meshgrid(np.arange(20), np.arange(16)), axis=-1) + 0.5) / [20, 16]
    for k in range(3):
        moved = (track.origins[k] - here) * [160, 128]
        assert abs(np.median(moved[..., 0]) + shift * k) < 0.5
        assert abs(np.median(moved[..., 1])) < 0.3


def test_what_came_into_the_picture_was_not_seen():
    track = tracked(panned(10), 16, 20)
    assert track.seen[0].all()
    assert track.seen[2, :, 8:18].mean() > 0.9
    assert track.seen[2, :, :2].mean() < 0.1


def test_what_stood_behind_something_was_not_seen():
    frames = panned(0, 2).copy()
    frames[0, 40:88, 40:88] = (250, 250, 0)
    frames[1, 40:88, 64:112] = (250, 250, 0)
    track = tracked(frames, 16, 20)
    assert track.seen[1, 6:10, 5:8].mean() < 0.4
    assert track.seen[1, :4].mean() > 0.9


def test_sizes_do_not_matter():
    large = np.repeat(np.repeat(panned(3), 6, axis=1), 6, axis=2)
    one, other = tracked(panned(3), 16, 20), tracked(large, 16, 20)
    assert np.abs(one.origins - other.origins)[one.seen & other.seen].mean() < 0.01
