"""Stills taken apart, and clips put together: the arithmetic, without a network that has learnt."""

import math

import numpy as np
import pytest
import torch

from kinetograph import layers as names
from kinetograph.motions import clock
from kinetograph.neural import animating, layers, pixels
from kinetograph.shelf import WORLDS

SIDE = 64


def still(at=(0.5, 0.5), half=(0.1, 0.1), colour=(1.0, -1.0, -1.0), slot=2, width=SIDE):
    """A coloured block on black, with its matte: the middle and half the sides in sides of the square."""
    x = (torch.arange(width) + 0.5 - (width - SIDE) / 2) / SIDE
    y = (torch.arange(SIDE) + 0.5) / SIDE
    matte = ((y - at[1]).abs() < half[1]).float()[:, None] * ((x - at[0]).abs() < half[0]).float()
    behind = torch.full((1, 3, SIDE, width), -1.0)
    picture = behind.lerp(torch.tensor(colour)[None, :, None, None], matte)
    mattes = torch.zeros(1, len(names.LAYERS), SIDE, width)
    mattes[0, slot] = matte
    return layers.Still(picture, mattes, behind)


def told(slot=2, frames=1, **changes):
    """Steps in which this layer is told these numbers and all else stands still in the middle."""
    steps = torch.zeros(1, len(names.LAYERS), frames, len(layers.STEPS))
    steps[..., :2], steps[..., 4:6] = 0.5, 1.0
    for name, value in changes.items():
        steps[0, slot, :, layers.STEPS.index(name)] = torch.as_tensor(value)
    return steps


def middle(frame):
    """The middle, the area and the extent of what is bright in red."""
    bright = (frame[0] + 1) / 2
    places = (torch.arange(SIDE) + 0.5) / SIDE
    total = bright.sum()
    x, y = bright.sum(0) @ places / total, bright.sum(1) @ places / total
    spread = [((bright.sum(axis) @ (places - at).square()) / total).sqrt() for axis, at in ((0, x), (1, y))]
    return x.item(), y.item(), total.item() / SIDE**2, spread[0].item(), spread[1].item()


def test_what_is_measured_is_middle_size_and_opacity():
    one = still(at=(0.25, 0.625), half=(0.125, 0.0625))
    seen = layers.measured(one.mattes)
    assert seen.middles[0, 2].tolist() == pytest.approx([0.25, 0.625])
    assert seen.sizes[0, 2].exp().item() == pytest.approx(math.sqrt(0.25 * 0.125), rel=1e-3)
    assert seen.there[0].tolist() == [False, False, True, False]
    faint = layers.measured(0.5 * one.mattes)
    assert faint.opacity[0, 2].item() == pytest.approx(0.5)
    assert faint.middles[0, 2].tolist() == pytest.approx([0.25, 0.625])
    shadow = layers.measured(0.2 * still(slot=0).mattes)
    assert shadow.opacity[0, 0].item() == 1.0  # it is as it is


def test_places_are_of_the_middle_square():
    wide = still(at=(0.25, 0.5), width=2 * SIDE)
    assert layers.measured(wide.mattes).middles[0, 2].tolist() == pytest.approx([0.25, 0.5])
    seen = layers.measured(wide.mattes)
    clip = layers.put_together(wide, seen, told(x=0.75))
    bright = ((clip[:, :1, 0] + 1) / 2).expand(-1, len(names.LAYERS), -1, -1)
    assert layers.measured(bright).middles[0, 2].tolist() == pytest.approx([0.75, 0.5], abs=1e-3)


def test_a_layer_that_goes_nowhere_is_the_still_again():
    one = still(at=(0.3, 0.6))
    seen = layers.measured(one.mattes)
    x, y = seen.middles[0, 2]
    clip = layers.put_together(one, seen, told(frames=2, x=x, y=y))
    assert clip.shape == (1, 3, 2, SIDE, SIDE)
    for frame in clip.unbind(2):
        torch.testing.assert_close(frame, one.colours, atol=1e-4, rtol=0)


def test_a_layer_moves_grows_and_fades_as_it_is_told():
    one = still(at=(0.3, 0.6), half=(0.125, 0.0625))
    seen = layers.measured(one.mattes)
    x, y, area, *_ = middle(layers.put_together(one, seen, told(x=0.55, y=0.4))[0, :, 0])
    assert (x, y, area) == pytest.approx((0.55, 0.4, 0.25 * 0.125), abs=2e-3)
    grown = middle(layers.put_together(one, seen, told(x=0.5, size=math.log(1.5)))[0, :, 0])
    assert grown[2] == pytest.approx(2.25 * 0.25 * 0.125, rel=0.03)
    at = dict(zip("xy", seen.middles[0, 2], strict=True))
    faint = layers.put_together(one, seen, told(**at, opacity=0.5))[0, :, 0]
    inside = one.mattes[0, 2] > 0
    torch.testing.assert_close(faint[0][inside], torch.zeros(int(inside.sum())), atol=1e-4, rtol=0)  # half way to black


def test_a_quarter_turn_lays_what_is_wide_upright():
    one = still(half=(0.2, 0.1))
    seen = layers.measured(one.mattes)
    _, _, _, wide, high = middle(layers.put_together(one, seen, told(turn=0.25))[0, :, 0])
    assert (wide, high) == pytest.approx((0.1 / math.sqrt(3), 0.2 / math.sqrt(3)), rel=0.1)


def test_turns_are_clockwise_and_what_is_mirrored_is():
    matte = torch.zeros(1, len(names.LAYERS), SIDE, SIDE)
    matte[0, 2, 20:44, 20:44] = 1.0
    picture = torch.full((1, 3, SIDE, SIDE), -1.0)
    picture[0, 1, 20:44, 20:44] = 1.0
    picture[0, 0, 28:36, 36:44] = 1.0  # red at the right edge
    one = layers.Still(picture, matte, torch.full_like(picture, -1.0))
    seen = layers.measured(one.mattes)
    x, y, *_ = middle(layers.put_together(one, seen, told(turn=0.25))[0, :, 0])
    assert (x, y) == pytest.approx((0.5, 0.625), abs=0.01)  # right has become below
    x, y, *_ = middle(layers.put_together(one, seen, told(mirror=-1.0))[0, :, 0])
    assert (x, y) == pytest.approx((0.375, 0.5), abs=0.01)


def test_the_higher_order_lies_in_front_and_behind_it_is_what_was_told():
    red, blue = still(), still(half=(0.2, 0.2), slot=3)
    green = blue.colours * torch.tensor([-1, 1, -1])[:, None, None]
    picture = torch.where(red.mattes[:, 2:3] > 0, red.colours, green)
    mattes = torch.cat([red.mattes[:, :3], blue.mattes[:, 3:] * (1 - red.mattes[:, 2:3])], dim=1)
    behind = torch.zeros_like(picture)
    both = layers.Still(picture, mattes, behind)
    seen, steps = layers.measured(mattes), told(order=2.0)
    steps[0, 3, :, 6] = 1.0
    assert layers.put_together(both, seen, steps)[0, 0, 0, 32, 32] == 1.0
    steps[0, 2, :, 6] = 0.0
    steps[0, 3, :, 0] = 0.5 + 16 / SIDE  # the ring of the other over it
    assert layers.put_together(both, seen, steps)[0, 0, 0, 32, 36] < 0
    steps[0, 2:, :, 0] = 3.0
    assert (layers.put_together(both, seen, steps) == 0).all()  # all has left


@pytest.mark.parametrize("size", [(64, 64), (48, 100)])
def test_what_is_covered_is_filled_in_from_beside_it(size):
    """Exactly, where the picture is one colour or the same all along the horizon; what is not covered is kept."""
    torch.manual_seed(2)
    height, width = size
    covered = torch.zeros(1, 1, *size)
    covered[..., 10:30, 20:50] = 1.0
    covered[..., 30:32, 20:50] = 0.5
    lands = torch.linspace(-1, 1, height)[None, None, :, None].expand(1, 3, height, width)
    painted = torch.where(covered > 0, torch.rand(1, 3, *size), lands)
    torch.testing.assert_close(layers.filled(painted, (covered > 0).float()), lands, atol=1e-4, rtol=0)
    noisy = torch.rand(1, 3, *size)
    kept = covered.expand_as(noisy) == 0
    torch.testing.assert_close(layers.filled(noisy, covered)[kept], noisy[kept])
    half = layers.filled(torch.ones(1, 3, *size), covered)
    torch.testing.assert_close(half, torch.ones(1, 3, *size), atol=1e-4, rtol=0)


def test_a_picture_of_which_rows_are_covered_is_filled_in_from_above_and_below():
    covered = torch.zeros(1, 1, 64, 64)
    covered[..., 20:40, :] = 1.0
    picture = torch.where(covered > 0, torch.ones(1, 3, 64, 64), torch.full((1, 3, 64, 64), -0.5))
    torch.testing.assert_close(layers.filled(picture, covered), torch.full((1, 3, 64, 64), -0.5), atol=1e-3, rtol=0)
    assert layers.filled(picture, torch.ones(1, 1, 64, 64)).isfinite().all()


MOVING = {
    "circle": [{"motion": "zigzagging vertically"}, {"motion": "shrinking"}],
    "shapes": [{"motion": "spinning clockwise"}, {"motion": "expanding"}, {"relation": "orbits"}],
    "critters": [{"action": "walks"}, {"action": "jumps"}, {"action": "chases", "partner": "ball"}],
}
NOT_SEEN_IN_A_MIRROR = "place"


@pytest.mark.parametrize("name", MOVING)
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_still_along_its_own_course_is_the_scene_again(name, mirrored):
    """The laws of layers and of steps: whatever moment a still shows, and seen in a mirror, what is drawn of it along
    the true course is read as the world's own clip is. Only postures stay as they were."""
    world, rng = WORLDS[name], np.random.default_rng(3)
    scenes = [world.sample(rng, wanted) for wanted in MOVING[name] for _ in range(2)]
    moment = np.full((len(scenes), 1), 0.4)
    courses = torch.tensor(world.courses(scenes, clock(len(scenes), 12)), dtype=torch.float32)
    then = torch.tensor(world.courses(scenes, moment), dtype=torch.float32)[:, :, 0]
    picture, behind = (
        pixels.to_model(torch.from_numpy(np.array(how(scenes, 1, 128, 128, moments=moment))))[:, :, 0]
        for how in (world.draw, world.behind)
    )
    by_itself = world.mattes(scenes, 1, 128, 128, moments=moment)[:, :, 0]
    mattes = torch.from_numpy(names.visible(by_itself, then[..., names.ORDER].numpy()))
    middles, looks = layers.measured(mattes).middles, then[..., names.FACING].nan_to_num(1.0).sign()
    if mirrored:
        picture, behind, mattes, looks = picture.flip(-1), behind.flip(-1), mattes.flip(-1), -looks
    steps = layers.steps(courses, then, middles, looks).nan_to_num()
    still = layers.Still(layers.coloured(picture, mattes, behind), mattes, behind)
    clip = layers.put_together(still, layers.measured(mattes), steps)
    for scene, frames in zip(scenes, pixels.to_frames(clip), strict=True):
        shown = world.read(frames)
        assert {**world.attributes(scene), NOT_SEEN_IN_A_MIRROR: ""} == {**shown, NOT_SEEN_IN_A_MIRROR: ""}


def test_what_is_known_of_frames_that_are_not_given_is_nothing():
    one = still()
    seen, facing = layers.measured(one.mattes), torch.ones(1, 4)
    given = torch.zeros(1, 6, dtype=torch.bool)
    free = layers.known(seen, facing, given, torch.rand(1, 4, 6, 2))
    assert not free[..., 4:].any()
    assert free[0, 2, :, 0].tolist() == [1.0] * 6
    assert not free[0, [0, 1, 3]].any()
    given[0, :2] = True
    bound = layers.known(seen, facing, given, torch.full((1, 4, 6, 2), 0.6))
    assert bound[0, 2, :, 4].tolist() == [1, 1, 0, 0, 0, 0]
    assert bound[0, 2, 0, 5:].tolist() == pytest.approx([0.5, 0.5])


def test_what_is_almost_whole_is_whole():
    steps = told(
        frames=3, mirror=[-0.4, -0.93, -0.7], opacity=[1.08, 0.9, 0.5], turn=[0.0, 0.01, 0.02], size=[0, 0.05, 0.1]
    )
    steady = animating.steadied(steps)[0, 2].T.tolist()
    assert steady[2:5] == [[0.0] * 3, [0.0] * 3, [-1.0] * 3]
    assert steady[5] == pytest.approx([1.0, 1.0, 0.5])


def test_what_grows_turns_and_turns_round_does():
    steps = told(frames=4, mirror=[0.97, 0.6, -0.2, -0.7], turn=[0.0, 0.1, 0.2, 0.3], size=[0.0, -0.1, -0.2, -0.3])
    steady = animating.steadied(steps)[0, 2].T.tolist()
    assert steady[2] == pytest.approx([0.0, -0.1, -0.2, -0.3])
    assert steady[3] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert steady[4] == pytest.approx([1.0, 1.0, -0.2, -1.0])  # edge on only where it turns


def test_what_turns_round_is_drawn_as_it_looked_before_and_will_after():
    mirror = torch.ones(3, 16)
    mirror[1, 9:] = -1.0  # between the frames at 8/15 and 9/15
    mirror[2, 1:] = -1.0
    shown = animating.looks(mirror).tolist()
    assert shown[0] == [*range(16)]
    assert shown[1] == [0, 1, 2, 3, 4, 5, 6, 6, 6, 10, *range(10, 16)]
    assert shown[2] == [0, 2, *range(2, 16)]
    finer = animating.looks(torch.where(torch.arange(31) < 18, 1.0, -1.0)[None])[0].tolist()
    assert finer[12:21] == [12, 12, 12, 12, 12, 12, 20, 20, 20]  # so long in seconds, whatever the number of frames
    assert animating.looks(torch.ones(1, 1)).tolist() == [[0]]


def test_a_performance_in_other_frames_is_the_same_performance():
    steps = told(frames=4, x=[0.0, 0.3, 0.6, 0.9])
    assert animating.retimed(steps, 4).equal(steps)
    assert animating.retimed(steps, 7)[0, 2, :, 0].tolist() == pytest.approx([0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9])
    assert animating.retimed(steps, 2)[0, 2, :, 0].tolist() == pytest.approx([0.0, 0.9])
