"""The engine that draws what a prompt says, and what its worlds know beside the picture."""

import numpy as np
import pytest

from kinetograph import controls
from kinetograph.engine import describe, generate
from kinetograph.errors import InvalidRequest
from kinetograph.worlds import critters

PROMPT = "a brown dog runs in the snow"


def make(shown, reference="render:critters", prompt=PROMPT):
    request = describe(reference).request(prompt, seed=4, frames=3, options={"shown": shown})
    return generate(reference, request)


@pytest.mark.parametrize(("shown", "way"), [("picture", "draw"), ("depth", "depth"), ("pose", "pose")])
def test_what_is_shown_is_what_the_world_knows_of_one_and_the_same_scene(shown, way, tmp_path):
    scene = critters.sample(np.random.default_rng(4), critters.parse(PROMPT))
    video = make(shown)
    assert (video.frames == getattr(critters, way)([scene], 3, 128, 128)[0]).all()
    path = video.save(tmp_path / "clip.npz")
    if shown != "picture":  # and it is a control
        assert controls.settings([controls.Control.parse(f"{shown}={path}")])["frames"] == 3


def test_a_world_without_skeletons_says_so():
    with pytest.raises(InvalidRequest, match="does not know the pose") as refused:
        make("pose", "render:circle", "a red ball")
    assert "picture, depth" in refused.value.hint
    assert "pose" not in refused.value.hint
