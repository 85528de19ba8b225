"""Moved noise: that it moves, and that it stays white."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinetograph.errors import InvalidRequest
from kinetograph.neural.sampling import Level, Table, scaled_linear_betas
from kinetograph.neural.zeroshot.motion import (
    Codec,
    Motion,
    Pose,
    between,
    keyed,
    launched,
    moved,
    shares,
    steady,
    translated,
)
from kinetograph.neural.zeroshot.noise import Noise

SHAPE = (4, 32, 48)
POSES = {
    "half a cell": Pose(x=0.5 / 48, y=0.5 / 32),
    "a third of a cell": Pose(x=1 / 3 / 48, y=-1 / 3 / 32),
    "far": Pose(x=2.37, y=-0.81),
    "nearer": Pose(zoom=1.7),
    "much nearer": Pose(zoom=12.0),
    "farther": Pose(zoom=0.6, x=0.1),
    "turned": Pose(rotation=33.0),
    "sheared": Pose(shear=0.4),
}


class Mirrored(Noise):
    """The plane as a mirror shows it."""

    def place(self, row, column):
        return super().place(row, -column).flip(2)


def white(seed=3, shape=SHAPE):
    return Noise(seed, shape), Noise(seed, shape).first()


def blobs(shape=SHAPE):
    y, x = torch.meshgrid(torch.arange(shape[1]), torch.arange(shape[2]), indexing="ij")
    blob = torch.exp(-((x - shape[2] / 2 + 0.5) ** 2 + (y - shape[1] / 2 + 0.5) ** 2) / 20)
    return blob.expand(shape).float()


def test_whole_cells_are_moved_exactly():
    noise, x = white()
    there = translated(x, 5.0, -3.0, noise)
    assert torch.equal(there[:, :-3, 5:], x[:, 3:, :-5])


@settings(deadline=None, max_examples=20)
@given(st.floats(-40, 40), st.floats(-40, 40))
def test_left_is_the_mirror_image_of_right(dx, dy):
    noise, x = white()
    right = translated(x, dx, dy, noise)
    left = translated(x.flip(2), -dx, dy, Mirrored(noise.seed, noise.shape))
    torch.testing.assert_close(left.flip(2), right, atol=1e-5, rtol=0)


def covariance(samples, offset):
    """Of cells with those `offset` (rows, columns) away, over many noises."""
    rows, columns = offset
    h, w = samples.shape[-2:]
    return (samples[..., : h - rows, : w - columns] * samples[..., rows:, columns:]).mean().item()


@pytest.mark.parametrize("pose", POSES.values(), ids=POSES)
def test_moved_noise_is_white(pose):
    samples = []
    for seed in range(12):
        noise, x = white(seed)
        samples.append(moved(x, torch.zeros(SHAPE), pose, None, noise, 1)[0])
    many = torch.stack(samples)
    assert many.std().item() == pytest.approx(1, abs=0.02)
    for offset in ((0, 1), (1, 0), (1, 1), (0, 2)):
        assert abs(covariance(many, offset)) < 0.02, offset


def test_noise_moved_by_any_field_is_white():
    y, x = torch.meshgrid(torch.arange(32) / 32, torch.arange(48) / 48, indexing="ij")
    field = torch.stack([0.2 * torch.sin(6 * y), 0.3 * torch.cos(7 * x)])
    many = torch.stack([moved(white(s)[1], torch.zeros(SHAPE), Pose(), field, white(s)[0], 1)[0] for s in range(12)])
    assert many.std().item() == pytest.approx(1, abs=0.02)
    assert max(abs(covariance(many, offset)) for offset in ((0, 1), (1, 0), (1, 1))) < 0.02


def test_a_shift_and_its_opposite_undo_each_other_inside():
    noise, x = white()
    back = translated(translated(x, 0.3, -0.4, noise), -0.3, 0.4, noise)
    # MARGIN cells of the plane differ around the second, whose waves fade as 1/distance
    assert (back - x)[:, 8:-8, 8:-8].square().mean().sqrt() < 0.1


def test_no_place_of_a_long_clip_is_a_mirror_image_of_the_first_frame():
    noise, x = white()
    mirrors = [x.flip(1), x.flip(2), x.flip((1, 2))]
    for frame in range(1, 100):
        there = translated(x, 1.5 * frame, 1.1 * frame, noise)
        for mirror in mirrors:
            spectrum = torch.fft.fft2(there) * torch.fft.fft2(mirror).conj()
            alike = torch.fft.ifft2(spectrum).real.sum(0).abs().max() / x[0].numel() / len(x)
            assert alike < 0.12, frame  # chance alone: 1 / sqrt(6144), and 4.6 deviations of it over all shifts


@pytest.mark.parametrize("pose", [Pose(x=0.1, y=-0.07), Pose(zoom=1.5, x=0.05), Pose(rotation=40.0, y=0.1)])
def test_a_picture_goes_where_its_pose_says(pose):
    noise, x = white()
    there = moved(x, blobs(), pose, None, noise, 1)[1][0]
    weight = there.clamp(min=0) / there.clamp(min=0).sum()
    centre = (
        (weight.sum(0) @ (torch.arange(48) + 0.5) / 48).item(),
        (weight.sum(1) @ (torch.arange(32) + 0.5) / 32).item(),
    )
    assert centre == pytest.approx((0.5 + pose.x, 0.5 + pose.y), abs=0.01)


def test_a_rotation_keeps_shapes_on_frames_that_are_not_square():
    corner = (Pose(rotation=90.0).matrix(1.5) @ torch.tensor([0.0, -0.5])).tolist()  # the middle of the upper edge
    assert corner == pytest.approx([0.5 / 1.5, 0.0], abs=1e-6)  # a height's half to the right: clockwise


def test_fields_and_poses_agree():
    noise, x = white()
    field = torch.tensor([0.1, 0.05])[:, None, None].expand(2, 4, 4)
    by_field = moved(x, blobs(), Pose(), field, noise, 1)[1]
    by_pose = moved(x, blobs(), Pose(x=0.1, y=0.05), None, noise, 1)[1]
    assert (by_field - by_pose).abs().max() < 0.05


def test_what_comes_into_view_moves_on_with_the_rest():
    noise, x = white()
    one, two = translated(x, 10.0, 0.0, noise), translated(x, 14.0, 0.0, noise)
    assert torch.equal(one[:, :, :-4], two[:, :, 4:])
    assert not torch.equal(one[:, :, :10], x[:, :, :10].flip(2))


def test_nothing_moves_where_nothing_is_to_move():
    noise, x = white()
    table = Table.of(scaled_linear_betas())
    there = launched(x, blobs(), *[table.at(881)] * 3, Motion(), [0.0, 0.5, 1.0], noise)
    torch.testing.assert_close(there, x[:, None].expand(-1, 2, -1, -1), atol=1e-5, rtol=0)


SQUARES = Codec(
    decode=lambda latents: latents.repeat_interleave(8, 2).repeat_interleave(8, 3),
    encode=lambda pictures: torch.nn.functional.avg_pool2d(pictures, 8),
)


def clean_of(codec, motion, picture):
    """What is clean in the second frame, where the noise is known: that of the same frame of an empty picture."""
    noise, x = white()
    level = Table.of(scaled_linear_betas()).at(450)
    drawn, empty = (
        launched(level.alpha * what + level.sigma * x, what, level, level, level, motion, [0.0, 1.0], noise, codec)
        for what in (picture, torch.zeros(SHAPE))
    )
    return ((drawn - empty) / level.alpha)[:, 0]


def test_a_picture_moved_as_pixels_goes_where_they_go():
    x = torch.arange(48 * 8)
    for pixels in (3, -5, 16):
        shown = SQUARES.decode(blobs()[None])
        there = SQUARES.encode(shown[..., (x - pixels).clamp(0, len(x) - 1)])[0]
        found = clean_of(SQUARES, Motion(steady(x=pixels / len(x))), blobs())
        torch.testing.assert_close(found, there, atol=1e-3, rtol=0)


@pytest.mark.parametrize("pose", [Pose(x=0.1, y=-0.07), Pose(zoom=1.5, x=0.05), Pose(rotation=40.0, y=0.1)])
def test_pixels_and_latents_go_to_the_same_place(pose):
    motion = Motion(lambda second: pose)
    of_latents, of_pixels = (clean_of(codec, motion, blobs()) for codec in (None, SQUARES))
    assert (of_latents - of_pixels).abs().max() < 0.12
    assert (of_latents - of_pixels).abs().mean() < 0.01


def test_a_field_moves_latents_whatever_moves_the_rest():
    motion = Motion(field=lambda second: torch.full((2, 4, 4), 0.05))
    assert torch.equal(clean_of(None, motion, blobs()), clean_of(SQUARES, motion, blobs()))


def test_the_jump_forward_has_the_mean_and_the_variance_of_the_forward_process():
    table = Table.of(scaled_linear_betas())
    now, to = table.at(881), table.at(941)
    kept = (to.alpha / now.alpha) ** 2  # the ratio of the two alpha-bars
    assert kept == pytest.approx(0.531, abs=0.001)
    noise = Noise(1, (4, 64, 64))
    x = 3 * torch.ones(4, 64, 64)
    there = launched(x, torch.zeros_like(x), now, to, to, Motion(), [0.0, 1.0], noise)[:, 0]
    assert there.mean().item() == pytest.approx(3 * math.sqrt(kept), abs=0.02)
    assert there.var().item() == pytest.approx(1 - kept, abs=0.02)


def test_where_no_step_begins_at_the_level_its_noise_is_kept():
    """Frames whose noise is theirs alone have none in common at T; what they share is what moves on to the step."""
    table = Table.of(scaled_linear_betas())
    noise, x = white()
    args = (x, torch.zeros(SHAPE), table.at(881), table.at(941))
    at, above = (launched(*args, to, Motion(), [0.0, 1.0], noise)[:, 0] for to in (table.at(941), Level(0.0, 1.0)))
    torch.testing.assert_close(above, at / table.at(941).sigma)


def test_a_frame_begins_alike_in_clips_of_any_length():
    noise, x = white()
    table, motion = Table.of(scaled_linear_betas()), Motion(steady(x=0.3, zoom=1.1))
    args = (x, blobs(), table.at(881), table.at(941), table.at(941), motion)
    long, short = launched(*args, [k / 4 for k in range(5)], noise), launched(*args, [k / 4 for k in range(3)], noise)
    assert torch.equal(long[:, :2], short)


def test_motion_is_in_seconds_and_fractions_whatever_the_rate_and_the_resolution():
    noise, x = white()
    path = steady(x=0.25)
    at_4_fps, at_8_fps = (path(frame / fps) for frame, fps in ((4, 4), (8, 8)))
    assert at_4_fps == at_8_fps
    larger = Noise(3, (4, 64, 96))
    for it, width in ((noise, 48), (larger, 96)):
        x = it.first()
        assert torch.equal(translated(x, path(1).x * width, 0.0, it)[:, :, width // 4 :], x[:, :, : -width // 4])


def test_a_path_goes_through_its_keys():
    path = keyed([(0.0, Pose()), (1.0, Pose(x=0.2, zoom=4.0)), (3.0, Pose(x=0.2, rotation=90.0))])
    assert path(0.5) == Pose(x=0.1, zoom=2.0)
    assert path(1.0) == Pose(x=0.2, zoom=4.0)
    assert path(2.0) == Pose(x=0.2, zoom=2.0, rotation=45.0)
    assert path(9.0) == path(3.0)


@pytest.mark.parametrize("keys", [[], [(1.0, 0), (1.0, 1)], [(2.0, 0), (1.0, 1)]])
def test_keys_that_do_not_follow_each_other_are_refused(keys):
    with pytest.raises(InvalidRequest, match="follow"):
        between(keys, 0.0)


def test_sentences_fade_into_each_other():
    parts = shares([(0.0, 0), (1.0, 1)], [0.0, 0.25, 1.0, 2.0], 2)
    assert parts.tolist() == [[1, 0], [0.75, 0.25], [0, 1], [0, 1]]


@pytest.mark.parametrize("pose", [{"zoom": 0.0}, {"zoom": -1.0}, {"x": math.nan}, {"x": 1e9}, {"zoom": 1e-9}])
def test_no_place_for_a_picture_is_refused(pose):
    with pytest.raises(InvalidRequest):
        Pose(**pose)
