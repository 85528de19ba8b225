"""The generator and the critic: shapes, gradients, time inside, any size."""

import math

import pytest
import torch

from kinetograph.neural.models import eye, text, video_gan

B = 3


@pytest.fixture
def config():
    words = text.Config(vocabulary=20, **text.PRESETS["tiny"])
    seeing = eye.Config(**eye.PRESETS["tiny"])
    return video_gan.Config(text=words, eye=seeing, attributes={"colour": 5, "size": 3}, **video_gan.PRESETS["tiny"])


@pytest.fixture
def generator(config):
    torch.manual_seed(0)
    return video_gan.Generator(config)


@pytest.fixture
def critic(config):
    torch.manual_seed(1)
    return video_gan.Critic(config)


def sentences():
    return torch.tensor([[2, 5, 6, 0], [2, 7, 0, 0], [2, 8, 9, 10]])


def noise(config, seed=0):
    return torch.randn(B, config.noise, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("frames", "height", "width"), [(4, 16, 16), (1, 16, 16), (7, 32, 32), (5, 16, 24)])
def test_the_generator_draws_any_size_and_length(generator, config, frames, height, width):
    clip = generator(sentences(), noise(config), frames, height, width)
    assert clip.shape == (B, 3, frames, height, width)


def test_a_longer_clip_shows_the_same_performance_more_finely(generator, config):
    short = generator(sentences(), noise(config), 4, 16, 16)
    long = generator(sentences(), noise(config), 7, 16, 16)
    torch.testing.assert_close(short, long[:, :, ::2])


def test_frames_of_a_clip_differ_and_come_from_one_noise(generator, config):
    clip = generator(sentences(), noise(config), 4, 16, 16)
    assert (clip[:, :, 1:] - clip[:, :, :-1]).abs().amax(dim=(1, 2, 3, 4)).min() > 1e-4
    again = generator(sentences(), noise(config), 4, 16, 16)
    torch.testing.assert_close(clip, again)


def test_text_and_noise_both_change_the_clip(generator, config):
    clip = generator(sentences(), noise(config), 4, 16, 16)
    assert (clip - generator(sentences(), noise(config, 1), 4, 16, 16)).abs().max() > 1e-3
    assert (clip - generator(sentences().flip(0), noise(config), 4, 16, 16))[0].abs().max() > 1e-3


def test_one_clip_of_a_batch_does_not_disturb_another(generator, config):
    batch = generator(sentences(), noise(config), 4, 16, 16)
    alone = generator(sentences()[:1], noise(config)[:1], 4, 16, 16)
    torch.testing.assert_close(batch[:1], alone, atol=1e-5, rtol=1e-5)


def test_every_parameter_of_both_networks_learns(generator, critic, config):
    clip = generator(sentences(), noise(config), 4, 16, 16)
    named = sum(logits.square().sum() for logits in critic.name(critic.see(clip)).values())
    (critic(clip, sentences()).square().sum() + named).backward()
    for network in (generator, critic):
        still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        assert still in ([], ["text.words.weight"]), still


def test_the_embedding_of_a_word_is_trained(generator, config):
    generator(sentences(), noise(config), 4, 16, 16).square().sum().backward()
    moved = generator.text.words.weight.grad.abs().sum(1)
    assert (moved[[2, 5, 6, 7, 8, 9, 10]] > 0).all()
    assert moved[11:].sum() == 0


def test_the_critic_sees_the_text_and_the_order_of_frames(critic):
    clip = torch.randn(B, 3, 4, 16, 16)
    judged = critic(clip, sentences())
    assert (judged - critic(clip, sentences().flip(0)))[0].abs() > 1e-4
    assert (judged - critic(clip.flip(2), sentences())).abs().min() > 1e-4


def test_comparing_agrees_with_judging(critic):
    seen, wanted = critic.see(torch.randn(B, 3, 4, 16, 16)), critic.want(sentences())
    table = critic.compare(seen, wanted)
    swapped = critic.judge(seen, wanted.flip(0)) - critic.judge(seen, wanted)
    torch.testing.assert_close(swapped, table.flip(1).diagonal() - table.diagonal(), atol=1e-5, rtol=1e-4)
    several = critic.judge(seen, torch.stack([wanted, wanted.flip(0)], dim=1))  # (b, 2)
    torch.testing.assert_close(several[:, 1] - several[:, 0], swapped, atol=1e-5, rtol=1e-4)


def test_chances_are_uniform_numbers_and_phases_of_unit_variance():
    drawn = video_gan.chances(torch.randn(20_000, 8, generator=torch.Generator().manual_seed(0)))
    plain, phases = drawn.chunk(2, dim=1)
    assert plain.abs().max() <= math.sqrt(3)
    torch.testing.assert_close(plain.abs().mean(0), torch.full((4,), math.sqrt(3) / 2), atol=0.02, rtol=0)
    torch.testing.assert_close(phases.unflatten(1, (2, 2)).norm(dim=2), torch.full((20_000, 2), math.sqrt(2)))
    torch.testing.assert_close(drawn.std(0), torch.ones(8), atol=0.02, rtol=0)


def test_noise_that_is_told_what_chance_decided_gives_the_generator_just_that():
    noise = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    plain, coins = torch.tensor([[0.25, math.nan], [0.5, 1.0], [0.9, 0.0]]), torch.tensor([[1.0], [-1.0], [math.nan]])
    phases = torch.tensor([[0.25], [math.nan], [0.5]])
    before, after = video_gan.chances(noise), video_gan.chances(video_gan.told(noise, plain, phases, coins))
    said = math.sqrt(3) * (2 * plain - 1)
    torch.testing.assert_close(after[:, :2], torch.where(plain.isnan(), before[:, :2], said), atol=2e-3, rtol=0)
    assert after[:2, 2].sign().tolist() == [1, -1]
    torch.testing.assert_close(after[:2, 2].abs(), before[:2, 2].abs())
    torch.testing.assert_close(after[0, 8:10], torch.tensor([0, math.sqrt(2)]), atol=1e-6, rtol=0)
    torch.testing.assert_close(after[2, 8:10], torch.tensor([-math.sqrt(2), 0]), atol=1e-6, rtol=0)
    untold = [(2, 2), (1, 8), (1, 9)]
    assert all(after[place] == before[place] for place in untold)
    assert torch.equal(after[:, 3:8], before[:, 3:8])
    assert torch.equal(after[:, 10:], before[:, 10:])


def test_noise_that_is_told_even_chances_is_as_normal_as_any():
    source = torch.Generator().manual_seed(0)
    plain, phases, coins = (torch.rand(20_000, n, generator=source) for n in (6, 1, 1))
    told = video_gan.told(torch.randn(20_000, 16, generator=source), plain, phases, (coins - 0.5).sign())
    torch.testing.assert_close(told.mean(0), torch.zeros(16), atol=0.04, rtol=0)
    torch.testing.assert_close(told.T.cov(), torch.eye(16), atol=0.05, rtol=0)


def placed(size=0.0, x=0.0, y=0.0):
    """One blob in one frame: (b, t, 3)."""
    return torch.tensor([[[size, x, y]]])


def test_a_blob_covers_its_area_at_any_size_of_the_picture(generator):
    for side in (64, 128):
        covered = generator.mask(placed(), side, side).sum() / (side / 2) ** 2  # in half sides, squared
        assert abs(covered - math.pi * video_gan.SIZE**2) < 0.1 * math.pi * video_gan.SIZE**2


def test_moving_a_blob_moves_its_mask_and_nothing_else(generator):
    x = 8 / 32 / (video_gan.REACH - 8 / 32)  # softsign(x) REACH = 8 pixels of 64
    still, moved = generator.mask(placed(), 64, 64), generator.mask(placed(x=x), 64, 64)
    torch.testing.assert_close(moved[..., 8:], still[..., :-8], atol=1e-4, rtol=1e-4)


def test_no_blob_can_leave_the_picture_or_shrink_to_nothing(generator):
    place = placed(size=-1e6, x=1e6, y=-1e6)
    size, centre = video_gan.blobs(place)
    assert generator.mask(place, 64, 64).isfinite().all()
    assert size > 0.02
    assert centre.abs().max() <= video_gan.REACH
