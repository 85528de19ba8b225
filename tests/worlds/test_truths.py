"""What worlds know of their pictures: how near everything is, where joints are, and the picture at any moment."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kinetograph import controls
from kinetograph.motions import times
from kinetograph.shelf import WORLDS
from kinetograph.worlds import critters, shapes
from kinetograph.worlds.critters import skeletons
from kinetograph.worlds.critters.scenes import ANIMALS, COATS

DRAWN = [
    (WORLDS[name], how) for name in WORLDS.names() for how in ("draw", "depth", "pose") if hasattr(WORLDS[name], how)
]


def scenes(world, count, seed=0, **how):
    rng = np.random.default_rng(seed)
    return [world.sample(rng, **how) for _ in range(count)]


def halved(pictures):
    b, t, h, w, c = pictures.shape
    return pictures.astype(float).reshape(b, t, h // 2, 2, w // 2, 2, c).mean((3, 5))


@pytest.fixture(params=DRAWN, ids=lambda pair: f"{pair[0].__name__.rpartition('.')[2]}-{pair[1]}")
def drawn(request):
    """A world and one of the ways in which it draws."""
    world, how = request.param
    return world, getattr(world, how)


def test_a_still_is_the_frame_of_its_clip_at_that_moment(drawn):
    world, draw = drawn
    some = scenes(world, 12)
    clips, places = draw(some, 9, 48, 64), np.arange(12) % 9
    stills = draw(some, 1, 48, 64, moments=times(9)[places][:, None])
    assert np.array_equal(stills[:, 0], clips[np.arange(12), places])


def test_truths_do_not_depend_on_the_resolution(drawn):
    """Up to the softness of edges, which is a pixel: a picture of half the size is the larger one, averaged."""
    world, draw = drawn
    some = scenes(world, 12, seed=1)
    small, large = draw(some, 3, 64, 64).astype(float), halved(draw(some, 3, 128, 128))
    assert np.abs(small - large).mean() < 1.0
    assert np.mean(np.abs(small - large).max(-1) > 40) < 0.01


def test_truths_are_the_same_on_torch_and_in_a_batch_of_one(drawn):
    world, draw = drawn
    some = scenes(world, 6, seed=2)
    ours, theirs = draw(some, 3, 64, 64), draw(some, 3, 64, 64, xp=torch).numpy()
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1
    assert np.array_equal(ours[:1], draw(some[:1], 3, 64, 64))


# --- depth ---


def test_a_disc_is_near_where_it_is_and_nowhere_else():
    world = WORLDS["circle"]
    some = [world.sample(np.random.default_rng(k), {"colour": "white", "background": "black"}) for k in range(4)]
    depth, clips = world.depth(some, 5, 64, 64), world.draw(some, 5, 64, 64)
    assert set(np.unique(depth)) >= {0, 255}
    assert np.abs(15 + depth.astype(float) / 255 * 230 - clips).max() <= 0.51


@pytest.mark.parametrize("relation", ["passes behind", "passes in front of"])
def test_what_covers_another_is_nearer(relation):
    (scene,) = scenes(shapes, 1, wanted={"relation": relation, "colour": "red", "partner colour": "blue"})
    clip, depth = shapes.draw([scene], 16, 96, 96)[0], shapes.depth([scene], 16, 96, 96)[0, ..., 0]
    ours, theirs = ((clip == np.array(shapes.COLOURS[colour])).all(-1) for colour in ("red", "blue"))
    front, back = (theirs, ours) if relation == "passes behind" else (ours, theirs)
    assert set(np.unique(depth[front])) <= {254, 255}
    assert set(np.unique(depth[back])) <= {126, 127, 128}
    assert front.any()
    assert back.any()


def test_a_picture_of_critters_reaches_from_far_to_near_and_a_control_takes_it_as_it_is():
    depth = critters.depth(scenes(critters, 24), 4, 96, 128)
    assert (depth.min((2, 3, 4)) == 0).all()
    assert (depth.max((2, 3, 4)) == 255).all()
    taken = [controls.depth(clip.astype(np.float32).mean(-1)) for clip in depth]
    assert np.array_equal(np.stack(taken), depth)


def test_the_ground_is_nearer_the_lower_and_performers_stand_on_it():
    scene = scenes(critters, 1, wanted={"animal": "cat", "action": "sits"})[0]
    depth = critters.depth([scene], 1, 128, 128)[0, 0, :, :, 0].astype(int)
    assert (np.diff(depth[:, 0]) >= 0).all()
    assert depth[0, 0] == 0
    (cat,) = critters.joints(scene, np.zeros(1))
    x, y = (cat.points["near fore"][0] * 128).astype(int)
    ground = depth[y, 0]
    assert abs(depth[y, x] - ground) < 30
    assert depth[tuple((cat.points["head"][0] * 128).astype(int)[::-1])] > ground - 30 > 0


@pytest.mark.parametrize("action", ["chases", "jumps over", "fetches"])
def test_the_critter_that_is_painted_last_is_nearest(action):
    scene = scenes(critters, 1, wanted={"action": action, "animal": "dog"})[0]
    s = times(16)
    acts = critters.drawing.perform(scene, s)
    depth = critters.depth([scene], 16, 128, 128)[0, ..., 0].astype(int)
    last = acts[-1]
    at = np.stack([last.x, last.floor - last.height], -1)
    if last.coat:
        bones = skeletons.skeleton(last).points
        at = (bones["shoulder"] + bones["hip"]) / 2
    at = (at * 128).astype(int)
    near = depth[np.arange(16), at[:, 1], at[:, 0]]
    floor = 255 * critters.depths.nearness(np.array(last.floor))
    assert near.min() >= floor + 255 * critters.depths.STEP - 2
    assert near.max() < 255


def test_depth_says_nothing_of_coats_shadows_and_places():
    scene = scenes(critters, 1, wanted={"animal": "cat", "action": "walks"})[0]
    depth = critters.depth([scene], 2, 64, 64)
    for change in [{"coat": COATS[0]}, {"coat": COATS[1]}, {"place": "night"}, {"place": "room"}]:
        assert np.array_equal(critters.depth([replace(scene, **change)], 2, 64, 64), depth)


# --- skeletons ---


@pytest.mark.parametrize("animal", ANIMALS)
def test_every_joint_lies_within_the_animal(animal):
    """Drawn alone on a place without details, what is painted over a joint is the animal's."""
    for action in ("walks", "runs", "jumps", "sleeps", "sits"):
        scene = scenes(critters, 1, wanted={"animal": animal, "action": action})[0]
        s = times(8)
        (one,) = critters.joints(scene, s)
        bare = critters.depth([scene], 8, 256, 256)[0, ..., 0].astype(int)
        ground = np.rint(255 * critters.depths.nearness((np.arange(256) + 0.5) / 256))
        own = bare != ground[None, :, None]
        for name, path in one.points.items():
            x, y = np.clip((path * 256).astype(int), 0, 255).T
            assert own[np.arange(8), y, x].all(), (action, name)


@pytest.mark.parametrize("animal", ANIMALS)
def test_a_mirrored_scene_has_the_mirrored_skeleton(animal):
    rng = np.random.default_rng(4)
    right = critters.sample(rng, {"animal": animal, "action": "runs", "direction": "right"})
    left = replace(right, direction="left")
    for ours, theirs in zip(critters.joints(right, times(5)), critters.joints(left, times(5)), strict=True):
        assert ours.points.keys() == theirs.points.keys()
        for name, path in ours.points.items():
            assert np.allclose(path * [1, 1], [1, 0] + theirs.points[name] * [-1, 1])


def test_a_joint_goes_as_far_as_its_animal_and_bones_keep_their_length():
    scene = scenes(critters, 1, wanted={"animal": "dog", "action": "walks", "direction": "right"})[0]
    (dog,) = critters.joints(scene, np.array([0.0, 0.5, 1.0]))  # after whole cycles of the gait: the same posture
    gone = dog.points["shoulder"][-1] - dog.points["shoulder"][0]
    assert critters.drawing.TRAVEL["walks"][0] <= gone[0] <= critters.drawing.TRAVEL["walks"][1]
    assert abs(gone[1]) < 1e-9
    back = np.linalg.norm(dog.points["shoulder"] - dog.points["hip"], axis=1)
    assert np.ptp(back) < 1e-9


def test_things_have_no_skeleton_and_two_animals_have_two():
    one = scenes(critters, 1, wanted={"action": "fetches", "partner": "ball"})[0]
    two = scenes(critters, 1, wanted={"animal": "cat", "action": "chases", "partner": "dog"})[0]
    assert len(critters.joints(one, times(2))) == 1
    assert [skeleton.kind for skeleton in critters.joints(two, times(2))] == ["dog", "cat"]


def test_a_pose_picture_has_a_knob_at_every_joint_and_a_stick_of_its_own_colour_for_every_limb():
    scene = scenes(critters, 1, wanted={"animal": "cat", "action": "walks"})[0]
    picture = critters.pose([scene], 1, 256, 256)[0, 0].astype(int)
    (cat,) = critters.joints(scene, np.zeros(1))
    at = {name: path[0] * 256 for name, path in cat.points.items()}
    for x, y in at.values():
        assert (picture[int(y), int(x)] == 255).all()
    a, b = at["shoulder"], at["hip"]
    x, y = (a + b) / 2
    assert tuple(picture[int(y), int(x)]) == skeletons._colours()[skeletons.LIMBS.index(("shoulder", "hip"))]
    assert len(set(skeletons._colours())) == len(skeletons.LIMBS)
    assert (picture[:20] == 0).all()


def test_a_pose_says_nothing_of_coats_and_places():
    scene = scenes(critters, 1, wanted={"animal": "cat", "action": "walks"})[0]
    pose = critters.pose([scene], 2, 64, 64)
    for change in [{"coat": COATS[1]}, {"place": "night"}]:
        assert np.array_equal(critters.pose([replace(scene, **change)], 2, 64, 64), pose)
