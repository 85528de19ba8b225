"""The space-time U-Net: shapes, conditions, what reaches what."""

import pytest
import torch
from torch import nn

from kinetograph.neural.models import text, video_unet

B = 2


@pytest.fixture
def model():
    torch.manual_seed(0)
    words = text.Config(vocabulary=20, **text.PRESETS["tiny"])
    model = video_unet.Model(video_unet.Config(text=words, **video_unet.PRESETS["tiny"])).eval()
    for weight in model.parameters():
        if not weight.any():  # as if it had learnt something
            nn.init.normal_(weight, std=0.1)
    return model


def clip(*shape, seed=0):
    return torch.randn(B, 3, *shape, generator=torch.Generator().manual_seed(seed))


def level(frames, value=0.7):
    return torch.full((B, frames), value)


IDS = torch.tensor([[2, 5, 6, 0], [2, 7, 9, 0]])


@pytest.mark.parametrize("shape", [(2, 16, 16), (4, 32, 16), (6, 16, 48)])
def test_it_returns_a_clip_of_the_shape_it_was_given(model, shape):
    assert model(clip(*shape), level(shape[0]), IDS).shape == (B, 3, *shape)


def test_cutting_into_patches_and_pasting_are_inverse():
    x = clip(4, 32, 16)
    patches = video_unet.to_patches(x, 2, 8)
    assert patches.shape == (B, 2, 4, 2, 3 * 2 * 8 * 8)
    torch.testing.assert_close(video_unet.to_clip(patches, 2, 8), x)


def test_words_level_and_clip_all_matter(model):
    x, noisy = clip(4, 16, 16), level(4)
    out = model(x, noisy, IDS)
    others = [model(clip(4, 16, 16, seed=1), noisy, IDS), model(x, level(4, 0.2), IDS), model(x, noisy, IDS.flip(0))]
    assert all((out - other).abs().max() > 1e-4 for other in others)


def test_the_order_of_words_matters(model):
    x, noisy = clip(2, 16, 16), level(2)
    swapped = model(x, noisy, torch.tensor([[2, 6, 5, 0], [2, 9, 7, 0]]))
    assert (model(x, noisy, IDS) - swapped).abs().max() > 1e-5


def test_padding_says_nothing(model):
    x, noisy = clip(2, 16, 16), level(2)
    longer = torch.cat([IDS, torch.zeros(B, 3, dtype=torch.long)], dim=1)
    torch.testing.assert_close(model(x, noisy, IDS), model(x, noisy, longer), atol=1e-5, rtol=1e-5)


def test_every_frame_sees_every_other(model):
    x = clip(6, 16, 16).requires_grad_()
    model(x, level(6), IDS)[:, :, 0].sum().backward()
    assert (x.grad.abs().amax(dim=(0, 1, 3, 4)) > 0).all()


def test_a_known_frame_is_told_from_a_noisy_one(model):
    known = level(4)
    known[:, 0] = 0.0
    x = clip(4, 16, 16)
    assert (model(x, level(4), IDS) - model(x, known, IDS)).abs().max() > 1e-4


def test_one_clip_of_a_batch_does_not_disturb_another(model):
    x, noisy = clip(4, 16, 16), level(4)
    torch.testing.assert_close(model(x, noisy, IDS)[:1], model(x[:1], noisy[:1], IDS[:1]), atol=1e-5, rtol=1e-5)


def test_every_parameter_learns(model):
    out = model(clip(4, 16, 16), level(4), IDS)
    out.square().sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def moving(count, seed=0):
    """Clips (count, 3, 4, 16, 16) of a few colours and slopes: what principal components are for."""
    random = torch.Generator().manual_seed(seed)
    x, y, t = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in (16, 16, 4)), indexing="ij")
    shapes = torch.stack([torch.ones_like(x), x, y, t]).permute(0, 3, 1, 2)
    return torch.einsum("bcn,nthw->bcthw", torch.randn(count, 3, 4, generator=random), shapes) / 3


def fresh():
    words = text.Config(vocabulary=20, **text.PRESETS["tiny"])
    network = video_unet.Model(video_unet.Config(text=words, **video_unet.PRESETS["tiny"])).eval()
    network.look_at([moving(300)])
    return network


def test_before_it_learns_it_is_the_best_linear_filter():
    """Against least squares on many noisy clips, fitted patch by patch."""
    clean = moving(2000, seed=1)
    noisy = 0.5 * clean + 0.5 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    ids = IDS[:1].expand(2000, -1)
    ours = (fresh()(noisy, torch.full((2000, 4), 0.5), ids) - clean).square().mean()
    x, y = (video_unet.to_patches(v, 2, 8).flatten(0, 3) for v in (noisy, clean))
    x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    best = (x @ torch.linalg.lstsq(x, y).solution - y).square().mean()
    assert best <= ours < 1.1 * best


def test_what_is_hardly_noisy_is_hardly_changed_and_pure_noise_says_nothing():
    clean, network = moving(2, seed=1), fresh()
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    kept = network(0.999 * clean + 0.001 * noise, torch.full((2, 4), 0.001), IDS)
    assert (kept - clean).abs().max() < 0.02
    guess = network(noise, torch.ones(2, 4), IDS)
    torch.testing.assert_close(guess[0], guess[1], atol=1e-5, rtol=0)


def test_components_are_orthogonal_and_fall():
    parts = fresh().components
    torch.testing.assert_close(parts.axes @ parts.axes.T, torch.eye(64), atol=1e-5, rtol=0)
    assert (parts.spread.diff() <= 0).all()
