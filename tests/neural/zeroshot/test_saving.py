"""What saves work and is not exact: that it does save, what it leaves exact, and that models are left as they were."""

import diffusers
import pytest
import torch

from kinetograph.errors import InvalidRequest
from kinetograph.neural.zeroshot import attention
from kinetograph.neural.zeroshot.attention import crossing
from kinetograph.neural.zeroshot.merging import merged
from kinetograph.neural.zeroshot.reuse import reusing

X = torch.randn(2, 64, 6, generator=torch.Generator().manual_seed(1))  # 8 by 8 tokens


@pytest.mark.parametrize(("ratio", "left"), [(0.0, 64), (0.25, 48), (0.5, 32), (0.75, 16), (0.9, 16)])
def test_so_many_tokens_are_left(ratio, left):
    assert merged(X, 8, ratio)[0].shape == (2, left, 6)


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 0.75])
def test_tokens_that_are_alike_come_back_as_they_were(ratio):
    blocks = X[:, :16].view(2, 4, 4, 6).repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1, 2)
    few, restored = merged(blocks, 8, ratio)
    torch.testing.assert_close(restored(few), blocks)


def test_what_is_not_merged_comes_back_as_it_was_and_what_is_as_its_mean():
    few, restored = merged(X, 8, 0.25)
    back = restored(few)
    same = (back == X).all(-1).sum(1)
    assert (same >= 64 - 16 - 16).all()  # 16 have gone, to 16 at most
    assert (back - X).abs().max() > 0


def unet(picture_model):
    from kinetograph.neural.pictures import folder

    return folder.load(picture_model("sd"), "sd", "float32", torch.device("cpu")).network


@pytest.fixture
def called(picture_model):
    network = unet(picture_model)
    x = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    words = torch.zeros(4, 5, 16)
    return network, lambda time: network(x, time, words).sample


def test_merging_acts_at_the_highest_resolution_alone_and_leaves_the_model(called):
    network, call = called
    with crossing(network, merging=0.5) as state:
        state.look(range(4), 4, cells=(8, 8))
        tokens = []
        layers = [m.attn1 for m in network.modules() if hasattr(m, "attn1")]
        handles = [layer.to_q.register_forward_hook(lambda m, a, out: tokens.append(out.shape[1])) for layer in layers]
        some = call(500.0)
        assert set(tokens) == {32, 16}  # half of 64; 16 in the middle
        state.look(range(4), 4, cells=(0, 0))
        exact = call(500.0)
    for handle in handles:
        handle.remove()
    assert (some - exact).abs().max() > 0


def test_deep_blocks_work_every_few_steps(called):
    network, call = called
    deep, shallow = [], []
    network.mid_block.resnets[0].register_forward_hook(lambda module, args, out: deep.append(1))
    network.down_blocks[0].resnets[0].register_forward_hook(lambda module, args, out: shallow.append(1))
    exact = [call(time) for time in (900.0, 800.0, 700.0, 600.0, 500.0)]
    deep.clear()
    shallow.clear()
    with reusing(network, 3) as state:
        found = []
        for time in (900.0, 800.0, 700.0, 600.0, 500.0):
            state.look(range(4), 4)
            found.append(call(time))
    assert (len(deep), len(shallow)) == (2, 5)
    assert (state.asked, state.skipped) == (5, 3)
    assert torch.equal(found[0], exact[0])
    assert torch.equal(found[3], exact[3])
    assert not torch.equal(found[1], exact[1])
    assert torch.equal(call(800.0), exact[1])


def test_each_chunk_has_its_own_memory(called):
    network, _ = called
    x = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    words = torch.zeros(4, 5, 16)

    def pair(state, size):
        for time in (900.0, 800.0):
            parts = []
            for start in range(0, 4, size):
                state.look(range(start, start + size), 4)
                parts.append(network(x[start : start + size], time, words[:size]).sample)
        return torch.cat(parts)

    with reusing(network, 2) as state:
        whole = pair(state, 4)
    with reusing(network, 2) as state:
        torch.testing.assert_close(pair(state, 2), whole, atol=1e-5, rtol=1e-5)


def test_an_exception_leaves_the_blocks_as_they_were(called):
    network, call = called
    exact = call(500.0)
    with pytest.raises(ZeroDivisionError), reusing(network, 2):
        raise ZeroDivisionError
    assert not any("forward" in block.__dict__ for block in network.modules())
    assert torch.equal(call(500.0), exact)


def transformer(kind, layers):
    """A tiny network of a kind, and a call of it on rows x (n, 4, 8, 8), told words (n, 5, 12)."""
    torch.manual_seed(0)
    sizes = {"sample_size": 8, "num_layers": layers, "attention_head_dim": 4, "num_attention_heads": 2}
    more = {
        "PixArt": {"cross_attention_dim": 8, "caption_channels": 12, "patch_size": 2},
        "Sana": {
            "cross_attention_dim": 8, "caption_channels": 12, "patch_size": 1, "num_cross_attention_heads": 2,
            "cross_attention_head_dim": 4,
        },
        "SD3": {
            "joint_attention_dim": 12, "caption_projection_dim": 8, "pooled_projection_dim": 6, "patch_size": 2,
            "pos_embed_max_size": 8, "dual_attention_layers": (0, 1),
        },
    }[kind]  # fmt: skip
    network = getattr(diffusers, f"{kind}Transformer2DModel")(in_channels=4, out_channels=4, **sizes, **more)
    network.eval().requires_grad_(False)

    def call(x, words, time):
        told = {"encoder_hidden_states": words, "timestep": torch.full((len(x),), time)}
        if kind == "SD3":
            told["pooled_projections"] = words[:, 0, :6]
        return network(x, return_dict=False, **told)[0]

    return network, call


PICTURES = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1))
WORDS = torch.randn(4, 5, 12, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("kind", ["PixArt", "Sana", "SD3"])
def test_the_deep_blocks_of_a_transformer_work_every_few_steps_and_add_what_they_added(kind):
    network, call = transformer(kind, 4)
    asked = [[] for _ in network.transformer_blocks]
    for place, block in enumerate(network.transformer_blocks):
        layer = next(module for name, module in block.named_modules() if name.endswith("to_q"))
        layer.register_forward_hook(lambda module, args, out, place=place: asked[place].append(1))
    times = (900.0, 800.0, 700.0, 600.0)
    exact = [call(PICTURES, WORDS, time) for time in times]
    once = len(asked[0]) // len(times)
    for calls in asked:
        calls.clear()
    with reusing(network, 3) as state:
        found = []
        for time in times:
            state.look(range(4), 4)
            found.append(call(PICTURES, WORDS, time))
        state.look(range(4), 4)
        assert torch.allclose(call(PICTURES, WORDS, times[-1]), exact[3], atol=1e-5)  # what they add is as it was
    assert [len(calls) // once for calls in asked] == [5, 2, 2, 5]
    assert torch.equal(found[0], exact[0])
    assert torch.equal(found[3], exact[3])
    assert not torch.allclose(found[1], exact[1], atol=1e-5)
    assert torch.equal(call(PICTURES, WORDS, times[1]), exact[1])


@pytest.mark.parametrize(("kind", "layers"), [("PixArt", 2), ("SD3", 1)])
def test_a_network_without_deep_blocks_is_refused(kind, layers):
    network, _ = transformer(kind, layers)
    with pytest.raises(InvalidRequest, match="no deep blocks"), reusing(network, 2):
        pass


# ---- merging in transformers


@pytest.mark.parametrize("kind", ["PixArt", "SD3"])
def test_merging_acts_in_all_layers_of_a_transformer_on_its_own_tokens(kind):
    network, call = transformer(kind, 2)
    exact, tokens = call(PICTURES, WORDS, 500.0), []
    layers = [block.attn1 if kind == "PixArt" else block.attn for block in network.transformer_blocks]
    handles = [layer.to_q.register_forward_hook(lambda m, a, out: tokens.append(out.shape[1])) for layer in layers]
    with crossing(network, anchors=attention.ANCHORS["self"], merging=0.5) as state:
        state.look(range(4), 4, cells=(8, 8))
        some = call(PICTURES, WORDS, 500.0)
    for handle in handles:
        handle.remove()
    assert tokens == [8, 8]  # half of the 16 tokens of two by two cells each
    assert not torch.allclose(some, exact, atol=1e-5)
    with crossing(network, anchors=attention.ANCHORS["self"]) as state:
        state.look(range(4), 4, cells=(8, 8))
        torch.testing.assert_close(call(PICTURES, WORDS, 500.0), exact, atol=1e-5, rtol=1e-5)


def test_merging_where_attention_is_linear_is_refused_by_name():
    network, _ = transformer("Sana", 1)
    before = dict(network.attn_processors)
    with (
        pytest.raises(InvalidRequest, match="SanaTransformer2DModel is linear") as error,
        crossing(network, merging=0.5),
    ):
        pass
    assert "reuse" in error.value.hint
    assert network.attn_processors == before
