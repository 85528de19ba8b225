"""Cross-frame attention: against its formula, in every kind of network, in chunks, and after failures."""

import math

import pytest
import torch
from diffusers import ControlNetModel, PixArtTransformer2DModel, SanaTransformer2DModel, SD3Transformer2DModel
from diffusers import UNet2DConditionModel as UNet
from diffusers.models.attention_processor import Attention

from kinetograph.errors import InvalidRequest, UnknownName
from kinetograph.neural.zeroshot import attention
from kinetograph.neural.zeroshot.attention import Crossing, anchors, crossing

BLOCKS = {
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 12,
    "attention_head_dim": 2,
}
DOWN = ("CrossAttnDownBlock2D", "DownBlock2D")


def unet(**more):
    return UNet(
        sample_size=8, down_block_types=DOWN, up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), **BLOCKS, **more
    )


def controlnet():
    return ControlNetModel(down_block_types=DOWN, conditioning_embedding_out_channels=(4, 8), **BLOCKS)


def transformer(kind, **more):
    return kind(sample_size=8, num_layers=2, attention_head_dim=4, num_attention_heads=2, in_channels=4, **more)


def pixart():
    return transformer(
        PixArtTransformer2DModel, out_channels=4, cross_attention_dim=8, caption_channels=12, patch_size=2
    )


def sana():
    return transformer(
        SanaTransformer2DModel, out_channels=4, num_cross_attention_heads=2, cross_attention_head_dim=4,
        cross_attention_dim=8, caption_channels=12, patch_size=1,
    )  # fmt: skip


def sd3(**more):
    return transformer(
        SD3Transformer2DModel, out_channels=4, joint_attention_dim=12, caption_projection_dim=8,
        pooled_projection_dim=6, patch_size=2, pos_embed_max_size=8, **more,
    )  # fmt: skip


def sd35():
    return sd3(qk_norm="rms_norm", dual_attention_layers=(0,))


NETWORKS = {"unet": unet, "pixart": pixart, "sana": sana, "sd3": sd3, "sd3.5": sd35}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    return NETWORKS[request.param]().eval().requires_grad_(False)


def call(network, x, words):
    """The network on rows x (n, 4, 8, 8), told words (n, 5, 12)."""
    time = torch.full((len(x),), 500.0)
    if isinstance(network, UNet):
        return network(x, time, words).sample
    if isinstance(network, SD3Transformer2DModel):
        pooled = words[:, 0, :6]
        return network(x, encoder_hidden_states=words, pooled_projections=pooled, timestep=time).sample
    if isinstance(network, PixArtTransformer2DModel):
        nothing = {"resolution": None, "aspect_ratio": None}
        mask = torch.ones(len(x), 5)
        mask[:, 3:] = 0
        return network(
            x, words, timestep=time, added_cond_kwargs=nothing, encoder_attention_mask=mask
        ).sample  # fmt: skip
    return network(x, words, timestep=time).sample


def rows(groups=2, frames=5, steady=True):
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(groups * frames, 4, 8, 8, generator=draw)
    words = torch.randn(groups, 1 if steady else frames, 5, 12, generator=draw).expand(-1, frames, -1, -1).flatten(0, 1)
    return x, words


def across(network, x, words, groups, name, chunk, told=None):
    """One call for each chunk, put together."""
    frames = len(x) // groups
    x, words = x.unflatten(0, (groups, frames)), words.unflatten(0, (groups, frames))
    parts = []
    with crossing(network, anchors=anchors(name)) as state:
        for start in range(0, frames, chunk):
            some = range(start, min(start + chunk, frames))
            state.look(some, frames, told)
            part = call(network, x[:, some].flatten(0, 1), words[:, some].flatten(0, 1))
            parts.append(part.unflatten(0, (groups, len(some))))
    return torch.cat(parts, dim=1).flatten(0, 1)


NAMES = ["first", "previous", "first+previous", "window:2", "self"]


def test_the_first_frame_is_what_it_is_alone(network):
    x, words = rows()
    alone = call(network, x[::5], words[::5])
    for name in NAMES:
        torch.testing.assert_close(across(network, x, words, 2, name, 5)[::5], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("steady", [True, False])
def test_a_clip_that_looks_at_itself_is_the_plain_network(network, steady):
    x, words = rows(steady=steady)
    found = across(network, x, words, 2, "self", 3, told="the same" if steady else None)
    torch.testing.assert_close(found, call(network, x, words), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_chunks_do_not_matter(network, name):
    x, words = rows()
    whole = across(network, x, words, 2, name, 5)
    for chunk in (1, 2, 4):
        torch.testing.assert_close(across(network, x, words, 2, name, chunk), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 3, 4])
def test_any_number_of_groups_is_each_group_by_itself(network, groups):
    x, words = rows(groups)
    whole = across(network, x, words, groups, "first", 5, told="the same").chunk(groups)
    for one, some, said in zip(whole, x.chunk(groups), words.chunk(groups)):
        torch.testing.assert_close(across(network, some, said, 1, "first", 5), one, atol=1e-5, rtol=1e-5)


def test_other_anchors_make_other_frames(network):
    x, words = rows()
    found = [across(network, x, words, 2, name, 5) for name in NAMES]
    for place, one in enumerate(found):
        assert all((one - other).abs().max() > 1e-5 for other in found[:place])


@pytest.mark.parametrize("name", NAMES)
def test_attention_is_its_formula(name):
    """softmax(Q K_a^T / sqrt(d)) V_a, with the keys of a frame's anchors one after the other."""
    torch.manual_seed(0)
    layer = Attention(query_dim=16, heads=2, dim_head=8, bias=True)
    x = torch.randn(6, 10, 16)  # 2 groups of 3 frames of 10 tokens
    state = Crossing(anchors(name))
    layer.processor = attention.Own(state)
    state.look(range(3), 3)
    found = layer(x).unflatten(0, (2, 3))
    for group in range(2):
        for frame in range(3):
            seen = torch.cat([x[group * 3 + anchor] for anchor in anchors(name)(frame)])
            q, k, v = layer.to_q(x[group * 3 + frame]), layer.to_k(seen), layer.to_v(seen)
            heads = [
                torch.softmax(a @ b.T / math.sqrt(8), -1) @ c
                for a, b, c in zip(q.split(8, 1), k.split(8, 1), v.split(8, 1))
            ]
            expected = layer.to_out[0](torch.cat(heads, 1))
            torch.testing.assert_close(found[group, frame], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "count"), [("first", 1), ("previous", 4), ("window:2", 3), ("self", 5)])
@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_only_anchors_keys_and_values_are_projected(name, count, chunk):
    network = unet().eval().requires_grad_(False)
    layer = network.down_blocks[0].attentions[0].transformer_blocks[0].attn1
    told = []
    layer.to_k.register_forward_hook(lambda module, args, out: told.append(len(args[0])))
    x, words = rows(2)
    with crossing(network, anchors=anchors(name)) as state:
        for start in range(0, 5, chunk):
            some = range(start, min(start + chunk, 5))
            state.look(some, 5)
            call(network, x.unflatten(0, (2, 5))[:, some].flatten(0, 1), words[: 2 * len(some)])
    assert sum(told) == 2 * count


def test_what_no_later_frame_looks_at_is_not_kept():
    network = unet().eval().requires_grad_(False)
    x, words = rows(2)
    with crossing(network, anchors=anchors("previous")) as state:
        for start in range(0, 5, 2):
            some = range(start, min(start + 2, 5))
            state.look(some, 5)
            call(network, x.unflatten(0, (2, 5))[:, some].flatten(0, 1), words[: 2 * len(some)])
            layer = network.down_blocks[0].attentions[0].transformer_blocks[0].attn1.processor
            assert set(layer.kept) == ({some[-1]} if some.stop < 5 else set())


def test_keys_of_words_are_computed_once_for_all_frames_and_steps():
    network = unet().eval().requires_grad_(False)
    layer = network.down_blocks[0].attentions[0].transformer_blocks[0].attn2
    told = []
    layer.to_k.register_forward_hook(lambda module, args, out: told.append(len(args[0])))
    x, words = rows(2)
    with crossing(network) as state:
        for _ in range(3):
            state.look(range(5), 5, told="these words")
            call(network, x, words)
        assert told == [2]
        state.look(range(5), 5, told="other words")
        call(network, x, words)
    assert told == [2, 2]


def test_words_that_differ_from_frame_to_frame_are_each_frame_s_own():
    network = unet().eval().requires_grad_(False)
    x, words = rows(2, steady=False)
    found = across(network, x, words, 2, "first", 2)
    again = across(network, x, words.roll(1, 0), 2, "first", 2)
    assert (found - again).abs().amax((1, 2, 3)).min() > 1e-4


def test_controlnets_look_at_anchors_too():
    torch.manual_seed(0)
    network, control = unet().eval().requires_grad_(False), controlnet().eval().requires_grad_(False)
    x, words = rows(1)
    hint, time = torch.rand(5, 3, 16, 16), torch.full((5,), 500.0)
    for place in control.controlnet_down_blocks:
        torch.nn.init.normal_(place.weight, std=0.1)

    def of(some):
        return control(x[some], time, words[some], hint[some], return_dict=False)[0][-1]

    plain = of(slice(0, 5))
    with crossing(network, control) as state:
        state.look(range(5), 5)
        found = of(slice(0, 5))
    torch.testing.assert_close(found[0], plain[0], atol=1e-5, rtol=1e-5)
    assert (found[1:] - plain[1:]).abs().amax((1, 2, 3)).min() > 1e-6


def test_an_exception_leaves_the_networks_as_they_were(network):
    before = [layer.processor for layer in network.modules() if isinstance(layer, Attention)]
    x, words = rows()
    plain = call(network, x, words)
    last = [layer for layer in network.modules() if isinstance(layer, Attention)][-1]
    handle = last.to_q.register_forward_pre_hook(lambda module, args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        across(network, x, words, 2, "first", 5)
    handle.remove()
    after = [layer.processor for layer in network.modules() if isinstance(layer, Attention)]
    assert all(one is other for one, other in zip(before, after, strict=True))
    assert torch.equal(call(network, x, words), plain)


def test_a_network_without_self_attention_is_refused_and_the_others_left_as_they_were():
    network = unet()
    before = dict(network.attn_processors)
    with pytest.raises(InvalidRequest, match="no self-attention"), crossing(network, torch.nn.Linear(2, 2)):
        pass
    assert network.attn_processors == before


def test_a_batch_that_is_not_made_of_whole_clips_is_refused():
    network = unet().eval().requires_grad_(False)
    x, words = rows()
    with crossing(network) as state:
        state.look(range(3), 3)
        with pytest.raises(InvalidRequest, match="a batch of 10 is not made of 3 frames"):
            call(network, x, words)


def test_names_of_anchors_that_mean_nothing_are_refused():
    with pytest.raises(UnknownName) as error:
        anchors("frist")
    assert "first" in error.value.hint
    for name in ("window:0", "window:-1", "window:x", "window:"):
        with pytest.raises(InvalidRequest, match="number of frames"):
            anchors(name)


def test_windows_hold_together():
    assert [anchors("window:3")(frame) for frame in range(7)] == [(0,), (0,), (0,), (0, 3), (3,), (3,), (3, 6)]
