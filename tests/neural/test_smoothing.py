"""Background smoothing: what it changes and what it leaves, and whether masks find what stands out."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch.nn import functional as F

from kinetograph.errors import InvalidRequest
from kinetograph.neural.zeroshot import smoothing

SIZE = 32


def panned(cells):
    """The scene moves right by so many cells a frame: the warp that says so, for three frames."""

    def warp(x):
        return torch.stack([F.pad(x[0], (cells * k, 0))[:, :, :SIZE] for k in range(3)])

    return warp


def textured(seed=0, channels=4):
    noise = torch.randn(1, channels, SIZE, 3 * SIZE, generator=torch.Generator().manual_seed(seed))
    return F.avg_pool2d(noise, 5, 1, 2) * 5


def scene(pan=1, own=0, flicker=0.0):
    """A textured background that pans right, and on it a square that moves down by `own` cells more than that."""
    back, thing = textured(), 2 + textured(1)
    frames = []
    for k in range(3):
        frame = back[0, :, :, SIZE - pan * k : 2 * SIZE - pan * k].clone()
        top, left = 8 + own * k, 10 + pan * k
        frame[:, top : top + 10, left : left + 10] = thing[0, :, :10, :10]
        frames.append(frame)
    noise = torch.randn(3, 4, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    return torch.stack(frames) + flicker * noise


def test_strength_zero_changes_nothing_and_one_takes_the_whole_background():
    clean, mask = torch.randn(3, 4, SIZE, SIZE), torch.zeros(3, 1, SIZE, SIZE)
    assert (smoothing.smooth(clean, mask, panned(1), 0.0) == clean).all()
    whole = smoothing.smooth(clean, mask, panned(1), 1.0)
    assert torch.allclose(whole[2, :, :, 2:], clean[0, :, :, :-2], atol=1e-6)


def test_the_formula_is_that_of_the_paper():
    clean, mask, warp = torch.randn(3, 4, SIZE, SIZE), torch.zeros(3, 1, SIZE, SIZE), panned(2)
    mask[:, :, 5:12, 5:12] = 1
    mine = smoothing.smooth(clean, mask, warp, 0.6)
    for k, frame in enumerate(mine):
        back = (1 - torch.maximum(mask[k], warp(mask[:1])[k])) * (torch.arange(SIZE) >= 2 * k) * (k > 0)
        paper = (1 - back) * clean[k] + back * (0.6 * warp(clean[:1])[k] + 0.4 * clean[k])
        assert torch.allclose(frame, paper, atol=1e-6)


def test_the_first_frame_the_foreground_and_what_the_first_frame_does_not_show_stay():
    clean, mask = torch.randn(3, 4, SIZE, SIZE), torch.zeros(3, 1, SIZE, SIZE)
    mask[:, :, 10:20, 10:20] = 1
    after = smoothing.smooth(clean, mask, panned(3), 1.0)
    assert (after[0] == clean[0]).all()
    assert (after[:, :, 10:20, 10:20] == clean[:, :, 10:20, 10:20]).all()
    assert (after[2, :, :, :6] == clean[2, :, :, :6]).all()


def test_a_flickering_background_becomes_steady():
    clean, mask, warp = scene(flicker=0.3), torch.zeros(3, 1, SIZE, SIZE), panned(1)
    before = (clean[1:] - warp(clean[:1])[1:])[..., 2:].std()
    after = smoothing.smooth(clean, mask, warp, 0.6)
    assert (after[1:] - warp(after[:1])[1:])[..., 2:].std() < 0.45 * before


def test_flow_finds_what_moves_on_its_own_and_nothing_else():
    clean, warp = scene(own=2), panned(1)
    found = smoothing.foreground("flow", clean, warp, grow=0)
    assert found[2, 0, 13:19, 13:21].mean() > 0.7
    assert not found[2, 0, :4].any()  # its window reaches so far
    assert not found[2, 0, -5:].any()
    assert not smoothing.foreground("flow", scene(own=0), warp).any()


def test_flow_is_not_misled_by_flicker():
    assert smoothing.foreground("flow", scene(flicker=0.1), panned(1), grow=0).mean() < 0.05


def test_flow_measures_cells():
    for shift in (0.0, 0.5, 1.0):
        wave = torch.sin(torch.arange(3 * SIZE) / 3.0)
        moved = torch.sin((torch.arange(3 * SIZE) - shift) / 3.0)
        clean = torch.stack([w[:SIZE].expand(1, SIZE, SIZE) for w in (wave, moved, moved)])
        assert abs(smoothing.from_flow(clean, panned(0), scales=1)[1].median() - shift) < 0.12


def test_attention_finds_where_the_words_look():
    maps = torch.full((3, 7, SIZE, SIZE), 0.1)
    maps[:, 4, 6:14, 6:14] = 0.8
    maps[:, 0] = 1 - maps[:, 1:].sum(dim=1)
    for words in ((4,), ()):
        found = smoothing.foreground("attention", torch.zeros(3, 4, SIZE, SIZE), panned(0), maps, words, grow=0)
        assert found[:, :, 6:14, 6:14].all()
        assert found.sum() == 3 * 64


def test_attention_that_sees_nothing_lets_nothing_be_smoothed():
    maps = torch.full((3, 7, SIZE, SIZE), 1 / 7)
    assert smoothing.foreground("attention", scene(), panned(1), maps, (4,)).all()
    assert not smoothing.foreground("both", scene(), panned(1), maps, (4,)).any()  # then flow alone is asked


def test_both_sees_what_either_sees():
    maps, clean = torch.full((3, 7, SIZE, SIZE), 0.1), scene(own=2)
    maps[:, 4, 26:30, 26:30] = 0.8
    both, flow, words = (
        smoothing.foreground(source, clean, panned(1), maps, (4,), grow=0) for source in ("both", "flow", "attention")
    )
    assert (both == torch.maximum(flow, words)).all()
    assert both.sum() > max(flow.sum(), words.sum())


def test_a_mask_grows_by_whole_cells():
    mask = torch.zeros(1, 1, 9, 9)
    mask[:, :, 4, 4] = 1
    assert smoothing.grown(mask, 2).sum() == 25
    assert smoothing.grown(mask, 0).sum() == 1


def test_a_mask_clip_is_foreground_where_any_of_its_pixels_is():
    masks = torch.zeros(2, 1, 64, 64)
    masks[:, :, 9, 20] = 1
    small = smoothing.given(masks, (8, 8))
    assert small.sum() == 2
    assert small[0, 0, 1, 2] == 1


def test_masks_that_are_all_zero_are_refused():
    masks = torch.zeros(3, 1, 64, 64)
    masks[0] = 1
    with pytest.raises(InvalidRequest, match="frame 1 of the mask clip shows no foreground, nor do 1 others") as error:
        smoothing.given(masks, (8, 8))
    assert "smooth_masks=flow" in error.value.hint


@pytest.mark.parametrize("value", [float("nan"), 2.0, -1.0])
def test_masks_that_are_no_masks_are_refused(value):
    with pytest.raises(InvalidRequest, match="not in 0"):
        smoothing.given(torch.full((1, 1, 8, 8), value), (8, 8))


def test_sources_and_words_that_are_none_are_refused():
    with pytest.raises(InvalidRequest) as error:
        smoothing.foreground("magic", scene(), panned(1))
    assert "flow" in error.value.hint
    with pytest.raises(InvalidRequest, match="no attention maps") as error:
        smoothing.foreground("attention", scene(), panned(1))
    assert "flow" in error.value.hint
    with pytest.raises(InvalidRequest, match="7 places"):
        smoothing.from_attention(torch.zeros(1, 7, 4, 4), (7,))


# --- attention of a real network --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()


def test_watching_collects_attention_that_sums_to_one_and_changes_nothing(unet):
    x, words = torch.randn(3, 4, 6, 10), torch.randn(3, 5, 8)
    with torch.no_grad():
        plain = unet(x, 10, words).sample
        with smoothing.watching(unet) as seen:
            watched = unet(x, 10, words).sample
            maps = seen.take((6, 10))
            assert seen.take((6, 10)) is None
    assert (plain == watched).all()
    assert maps.shape == (3, 5, 6, 10)
    assert torch.allclose(maps.sum(dim=1), torch.ones(3, 6, 10), atol=1e-5)


def test_watching_sees_what_the_layer_itself_computes(unet):
    layer = next(m for m in unet.modules() if getattr(m, "is_cross_attention", False))
    hidden, words = torch.randn(2, 12, layer.to_q.in_features), torch.randn(2, 5, 8)
    with torch.no_grad(), smoothing.watching(layer) as seen:
        layer(hidden, encoder_hidden_states=words)
        maps = seen.take((3, 4))
        q, k = layer.head_to_batch_dim(layer.to_q(hidden)), layer.head_to_batch_dim(layer.to_k(words))
        theirs = layer.get_attention_scores(q, k).unflatten(0, (2, -1)).mean(dim=1)
    assert torch.allclose(maps.flatten(2).transpose(1, 2), theirs, atol=1e-6)


def test_the_model_is_as_it_was_after_an_exception_too(unet):
    with pytest.raises(RuntimeError, match="stop"), smoothing.watching(unet):
        raise RuntimeError("stop")
    assert not any(m._forward_pre_hooks for m in unet.modules())
