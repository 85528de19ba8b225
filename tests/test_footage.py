"""Footage: what does not fit is refused with what would; nothing is resampled unless that is wished."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from kinetograph import footage
from kinetograph.errors import CannotRead, InvalidRequest
from kinetograph.request import VideoRequest
from kinetograph.video import Video, fingerprint

FRAMES = np.random.default_rng(0).integers(0, 256, (6, 16, 24, 3), np.uint8)


@pytest.fixture
def path(tmp_path):
    return Video(FRAMES, Fraction(30000, 1001)).save(tmp_path / "a.npz")


def request(**changes):
    fitting = {"width": 24, "height": 16, "frames": 6, "fps": Fraction(30000, 1001)}
    return VideoRequest(prompt="a cat", seed=0, **fitting | changes)


def test_what_fits_comes_as_it_is(path):
    assert (footage.read(path, "source").fitted(request()) == FRAMES).all()


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"width": 32}, "--size 24x16"),
        ({"frames": 5}, "--frames 6"),
        ({"frames": 7}, "--frames 6"),
        ({"fps": Fraction(29)}, "--fps 30000/1001"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(path, changes, remedy):
    with pytest.raises(InvalidRequest, match="the clip") as error:
        footage.read(path, "source").fitted(request(**changes))
    assert remedy in error.value.hint
    assert "fit=crop" in error.value.hint
    assert error.value.field == "source"


def test_a_wish_resamples_by_the_moments_of_the_frames(path):
    halved = footage.read(path, "source", fit="stretch").fitted(request(fps=Fraction(15000, 1001), frames=3))
    assert (halved == FRAMES[::2]).all()
    doubled = footage.read(path, "source", fit="crop").fitted(request(fps=Fraction(60000, 1001), frames=12))
    assert (doubled == FRAMES.repeat(2, axis=0)).all()


def test_resampled_footage_may_begin_later(path):
    later = footage.read(path, "source", fit="crop", begin=1001 / 30000 * 2).fitted(request(frames=4))
    assert (later == FRAMES[2:]).all()
    with pytest.raises(InvalidRequest, match="would begin") as error:
        footage.read(path, "source", begin=1.0).fitted(request())
    assert "fit=crop" in error.value.hint


def test_footage_that_ends_too_early_is_refused_even_then(path):
    with pytest.raises(InvalidRequest, match=r"ends after 0\.2 s") as error:
        footage.read(path, "source", fit="crop").fitted(request(frames=9))
    assert "--frames 6" in error.value.hint


def test_crop_keeps_the_proportions_and_stretch_does_not():
    wide = np.zeros((1, 16, 48, 3), np.uint8)
    wide[:, :, 16:32] = 255  # a square in the middle
    assert (footage.resized(wide, 16, 16, "crop") == 255).all()
    assert not (footage.resized(wide, 16, 16, "stretch") == 255).all()


def test_settings_are_taken_from_the_clip_unless_others_say(path):
    said = footage.from_source(path, prompt=None, width=None, frames=3, options={"steps": 4})
    assert (said["width"], said["height"], said["frames"], said["fps"]) == (24, 16, 3, Fraction(30000, 1001))
    assert said["options"] == {"steps": 4, "source": str(path.resolve()), "source_sha256": fingerprint(FRAMES)}
    wished = footage.from_source(path, fit="crop", begin=0.1)
    assert "width" not in wished
    assert wished["options"]["begin"] == 0.1


def test_a_file_that_shows_something_else_than_before_is_refused(path):
    with pytest.raises(InvalidRequest, match="does not show"):
        footage.read(path, "source", sha256="0" * 64)


def test_a_broken_video_is_named(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video at all")
    whole = Video(FRAMES, Fraction(8)).save(tmp_path / "b.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(whole[: len(whole) // 2])
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        with pytest.raises(CannotRead, match=name):
            footage.read(tmp_path / name, "source")


def test_shrinking_reads_the_mean():
    checked = np.indices((16, 16)).sum(axis=0) % 2 * 255
    clip = np.repeat(checked[None, ..., None], 3, axis=3).astype(np.uint8)
    assert abs(footage.resized(clip, 4, 4).astype(int) - 128).max() <= 2
    assert Image.fromarray(footage.resized(clip, 4, 4)[0]).size == (4, 4)
