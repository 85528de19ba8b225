"""Control clips: one line of text each, edges, depth over the whole clip, estimators of the user."""

import json
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinetograph import controls
from kinetograph.controls import Control
from kinetograph.errors import InvalidRequest, InvalidVideo, KinetographError, UnknownName
from kinetograph.request import VideoRequest
from kinetograph.video import Video


def box(frames=3, side=32, at=lambda k: 4 + 4 * k):
    clip = np.zeros((frames, side, side, 3), np.uint8)
    for k in range(frames):
        clip[k, 8:24, at(k) : at(k) + 12] = 255
    return clip


@given(
    kind=st.sampled_from(controls.KINDS),
    path=st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="="), min_size=1),
    scale=st.floats(0, 10),
    low=st.floats(0, 199),
    smooth=st.integers(1, 9),
    fit=st.sampled_from(["", "crop", "stretch"]),
)
def test_parsing_undoes_writing(kind, path, scale, low, smooth, fit):
    control = Control(kind=kind, path=path, scale=scale, low=low, smooth=smooth, fit=fit, weights="a, b/c")
    assert Control.parse(str(control)) == control


def test_a_control_is_one_short_line():
    line = "edge=dance.mp4,weights=models/canny,scale=0.8"
    assert str(Control.parse(line)) == line


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("edges=a.mp4", "edge"),
        ("edge", "edge=clip.mp4"),
        ("edge=", "edge=clip.mp4"),
        ("edge=a.mp4,scal=1", "scale"),
        ("edge=a.mp4,scale=loud", "number"),
        ("edge=a.mp4,scale=nan", "0 to 10"),
        ("edge=a.mp4,scale=-1", "0 to 10"),
        ("edge=a.mp4,low=300", "below high"),
        ("edge=a.mp4,since=0.5,until=0.5", "below until"),
        ("depth=a.mp4,smooth=0", "1 to 1000"),
        ("depth=a.mp4,smooth=1.5", "number"),
        ("pose=a.mp4,fit=squash", "crop"),
    ],
)
def test_lines_that_are_no_controls_are_refused_with_what_would_be(line, said):
    with pytest.raises((InvalidRequest, UnknownName)) as error:
        Control.parse(line)
    assert said in error.value.hint


def test_edges_are_white_where_the_picture_changes_and_black_elsewhere():
    found = controls.edges(box())
    assert set(np.unique(found)) == {0, 255}
    assert (found[0, 12, 2:6] == 255).any()
    assert not found[:, :4].any()
    assert not found[0, 14:18, 8:12].any()  # inside


def test_higher_thresholds_find_fewer_edges():
    clip = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    assert controls.edges(clip, 400, 900).sum() < controls.edges(clip, 50, 100).sum()


def test_depth_has_one_black_and_one_white_for_the_whole_clip():
    maps = np.stack([np.linspace(0, 1, 16).reshape(4, 4), np.linspace(0, 3, 16).reshape(4, 4)])
    grey = controls.depth(maps)
    assert grey[0].max() == 85
    assert grey[1].max() == 255
    assert grey.min() == 0


def test_what_one_frame_shows_does_not_pump_the_others():
    still = np.repeat(np.linspace(0, 1, 16).reshape(1, 4, 4), 5, axis=0)
    grey = controls.depth(still)
    assert (grey == grey[:1]).all()
    assert (controls.depth(still, smooth=3) == grey).all()


def test_depth_may_be_averaged_over_frames():
    flickering = np.zeros((6, 2, 2))
    flickering[::2] = 1
    flickering[:, 0, 0], flickering[:, 1, 1] = -1, 2  # black and white that do not flicker
    calm, raw = (controls.depth(flickering, smooth=width).astype(int) for width in (2, 1))
    assert np.abs(np.diff(calm[:-1], axis=0)).max() == 0
    assert np.abs(np.diff(raw, axis=0)).max() > 50


def test_a_clip_without_depth_is_middle_grey():
    assert (controls.depth(np.full((2, 3, 3), 7.0)) == 128).all()


@pytest.mark.parametrize("maps", [np.zeros((3, 3)), np.zeros((0, 3, 3)), np.full((1, 2, 2), np.nan)])
def test_maps_that_are_no_depth_are_refused(maps):
    with pytest.raises(InvalidVideo, match="depth is"):
        controls.depth(maps)


def test_poses_and_plain_clips_stay_as_they_are():
    for kind in ("pose", "plain"):
        assert controls.drawn(Control(kind=kind, path="a"), box()) is not None
        assert (controls.drawn(Control(kind=kind, path="a"), box()) == box()).all()


def test_settings_note_each_file_with_its_sum_and_take_length_size_and_rate_from_it(tmp_path):
    path = Video(box(5), Fraction(12)).save(tmp_path / "a.npz")
    asked = [Control.parse(f"edge={path},fit=crop"), Control.parse(f"pose={path}")]
    said = controls.settings(asked, frames=None, options={"steps": 3})
    assert (said["frames"], said["fps"], said["width"]) == (5, 12, 32)
    assert said["options"]["steps"] == 3
    request = VideoRequest(prompt="a", seed=0, **said)
    back = VideoRequest.from_dict(json.loads(json.dumps(request.to_dict())))
    noted = Control.parse(back.options["control"][1])
    assert noted.path == str(path.resolve())
    assert (controls.opened(noted).fitted(back) == box(5)).all()
    Video(255 - box(5), Fraction(12)).save(path, overwrite=True)
    with pytest.raises(InvalidRequest, match="does not show"):
        controls.opened(noted)


# --- estimators -------------------------------------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path, monkeypatch):
    code = """
import numpy as np
def depth(frames): return frames[..., 0].astype(float)
def skeleton(frames): return 255 - frames
def short(frames): return frames[:1, ..., 0]
def floats(frames): return frames / 255
number = 3
"""
    (tmp_path / "seers.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "seers"
    sys.modules.pop("seers", None)


def test_an_estimator_turns_a_raw_video_into_a_control_clip(module, tmp_path):
    path = str(Video(box(), Fraction(8)).save(tmp_path / "raw.npz"))
    poses = controls.made("pose", path, controls.estimator(f"{module}:skeleton"))
    assert (poses.frames == 255 - box()).all()
    assert poses.fps == 8
    assert (controls.made("depth", path, controls.estimator(f"{module}:depth")).frames == box()).all()
    assert (controls.made("edge", path).frames == controls.edges(box())).all()


@pytest.mark.parametrize("name", ["short", "floats"])
def test_an_estimator_that_gives_something_else_is_refused(module, name):
    with pytest.raises(InvalidVideo):
        controls.estimated("pose", box(), controls.estimator(f"{module}:{name}"))


@pytest.mark.parametrize("name", ["seers", ":", "seers:", "seers:none", "no_such_module:f", "seers:number"])
def test_an_estimator_that_is_none_is_named(module, name):
    with pytest.raises(KinetographError, match=name.split(":", maxsplit=1)[0] or ":"):
        controls.estimator(name)
