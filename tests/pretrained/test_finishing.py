"""What is done to finished clips: larger frames and frames between, by networks whose weights users bring."""

from fractions import Fraction

import cases
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kinetograph import files
from kinetograph.engine import describe, generate
from kinetograph.engines.pretrained import blending
from kinetograph.errors import InvalidRequest, UnsafeModel
from kinetograph.neural.pretrained import interpolation, upscaling

RNG = np.random.default_rng(0)
FRAMES = RNG.integers(0, 256, (3, 10, 14, 3), np.uint8)


def weights_of(shapes, **set_):
    """Small random weights by name; `set_` by the end of a name."""
    source = torch.Generator().manual_seed(1)
    found = {}
    for name, shape in shapes.items():
        found[f"{name}.weight"] = 0.1 * torch.randn(shape, generator=source)
        if len(shape) == 4:
            found[f"{name}.bias"] = torch.zeros(shape[1] if "lastconv" in name else shape[0])
    for name, value in set_.items():
        for key in found:
            if key.startswith(name.replace("__", ".")):
                found[key] = torch.full_like(found[key], value)
    return found


def rrdb(channels=3, width=4, grown=2, **set_):
    shapes = {"conv_first": (width, channels, 3, 3)}
    for part in ("rdb1", "rdb2", "rdb3"):
        for number in range(1, 5):
            shapes[f"body.0.{part}.conv{number}"] = (grown, width + grown * (number - 1), 3, 3)
        shapes[f"body.0.{part}.conv5"] = (width, width + grown * 4, 3, 3)
    shapes |= dict.fromkeys(("conv_body", "conv_up1", "conv_up2", "conv_hr"), (width, width, 3, 3))
    return weights_of(shapes | {"conv_last": (3, width, 3, 3)}, **set_)


def compact(scale=2, width=4, **set_):
    shapes = {"body.0": (width, 3, 3, 3), "body.1": (width,), "body.2": (3 * scale**2, width, 3, 3)}
    return weights_of(shapes, **set_)


def rife(**set_):
    shapes = {}
    for number, (inputs, width) in enumerate(((7, 4), (12, 4), (12, 4), (12, 4))):
        block = f"block{number}"
        shapes |= {f"{block}.conv0.0.0": (2, inputs, 3, 3), f"{block}.conv0.1.0": (width, 2, 3, 3)}
        shapes |= {f"{block}.convblock.{layer}.conv": (width, width, 3, 3) for layer in range(8)}
        shapes[f"{block}.lastconv.0"] = (width, 24, 4, 4)
    betas = {f"block{n}.convblock.{layer}.beta": torch.ones(1, 4, 1, 1) for n in range(4) for layer in range(8)}
    return weights_of(shapes, **set_) | betas


@pytest.fixture
def kept(tmp_path):
    def kept(weights, name="weights.safetensors"):
        save_file(weights, tmp_path / name)
        return str(tmp_path / name)

    return kept


def plainly(frames, scale):
    return frames.repeat(scale, axis=1).repeat(scale, axis=2)


def test_a_compact_network_that_adds_nothing_enlarges_plainly(kept):
    up = upscaling.Upscaler(kept(compact(3, body__2=0.0)), "cpu")
    assert up.scale == 3
    assert np.array_equal(up(FRAMES), plainly(FRAMES, 3))
    other = upscaling.Upscaler(kept(compact(3), "other.safetensors"), "cpu")(FRAMES)
    assert other.shape == (3, 30, 42, 3)
    assert not np.array_equal(other, plainly(FRAMES, 3))


@pytest.mark.parametrize(("channels", "scale"), [(3, 4), (12, 2), (48, 1)])
def test_the_large_network_enlarges_by_what_its_weights_say(kept, channels, scale):
    up = upscaling.Upscaler(kept(rrdb(channels)), "cpu")
    assert up.scale == scale
    made = up(FRAMES)
    assert made.shape == (3, 10 * scale, 14 * scale, 3)
    assert np.array_equal(made[1:2], up(FRAMES[1:2]))  # every frame for itself
    gray = rrdb(channels, conv_last=0.0) | {"conv_last.bias": torch.full((3,), 0.5)}
    assert (upscaling.Upscaler(kept(gray, "gray.safetensors"), "cpu")(FRAMES) == 128).all()


def test_the_large_network_is_its_paper_written_out(kept):
    """Against torch's own layers, put together as the paper's figure shows them."""
    weights = rrdb()
    x = torch.rand(1, 3, 6, 5, generator=torch.Generator().manual_seed(2))

    def conv(name, x):
        layer = torch.nn.Conv2d(x.shape[1], len(weights[f"{name}.bias"]), 3, padding=1)
        layer.load_state_dict({"weight": weights[f"{name}.weight"], "bias": weights[f"{name}.bias"]})
        return layer(x)

    act, up = torch.nn.LeakyReLU(0.2), torch.nn.UpsamplingNearest2d(scale_factor=2)
    first = conv("conv_first", x)
    h = first
    for part in ("rdb1", "rdb2", "rdb3"):
        name = f"body.0.{part}.conv"
        one = act(conv(f"{name}1", h))
        two = act(conv(f"{name}2", torch.cat([h, one], 1)))
        three = act(conv(f"{name}3", torch.cat([h, one, two], 1)))
        four = act(conv(f"{name}4", torch.cat([h, one, two, three], 1)))
        h = h + 0.2 * conv(f"{name}5", torch.cat([h, one, two, three, four], 1))
    h = first + conv("conv_body", first + 0.2 * h)
    h = act(conv("conv_up2", up(act(conv("conv_up1", up(h))))))
    wanted = conv("conv_last", act(conv("conv_hr", h)))
    torch.testing.assert_close(upscaling._rrdb(weights, x), wanted)


@pytest.mark.parametrize("times", [2, 3])
def test_a_network_that_sees_no_motion_and_trusts_both_blends_half_and_half(kept, times):
    still = {f"block{number}__lastconv": 0.0 for number in range(4)}
    made = interpolation.Interpolator(kept(rife(**still)), "cpu")(FRAMES, times)
    assert made.shape == (2 * times + 1, 10, 14, 3)
    assert np.array_equal(made[::times], FRAMES)
    halves = blending.blended(FRAMES, 2)[1::2].astype(int)
    for step in range(1, times):
        assert np.abs(made[step::times] - halves).max() <= 1


def test_what_moves_is_found_between(kept):
    """The flow is what the last layer's bias says: a ramp that moves by four columns is halfway after two."""
    ramp = np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 3, (32, 1, 3))
    clip = np.stack([ramp, np.roll(ramp, 4, axis=1)])
    weights = rife(**{f"block{number}__lastconv": 0.0 for number in range(4)})
    bias = torch.zeros(6, 4)  # of each of the six maps, four pixels: where the first frame's x is found, and the last's
    bias[0], bias[2] = -2.0, 2.0
    weights["block3.lastconv.0.bias"] = bias.flatten()
    (_, middle, _) = interpolation.Interpolator(kept(weights), "cpu")(clip, 2)
    assert np.abs(middle[:, 8:56].astype(int) - np.roll(ramp, 2, axis=1)[:, 8:56]).max() <= 1


def test_the_moment_matters(kept):
    third, half = (interpolation.between(rife(), *torch.rand(2, 1, 3, 32, 32), moment) for moment in (1 / 3, 1 / 2))
    assert not torch.equal(third, half)


@pytest.mark.parametrize("kind", [upscaling.Upscaler, interpolation.Interpolator])
def test_other_weights_pickles_and_nothing_are_refused(kept, tmp_path, kind):
    with pytest.raises(InvalidRequest, match="holds no"):
        kind(kept({"some.weight": torch.zeros(1)}), "cpu")
    (tmp_path / "weights.pth").write_bytes(b"pickle")
    with pytest.raises(UnsafeModel) as error:
        kind(str(tmp_path / "weights.pth"), "cpu")
    assert "kinetograph convert" in error.value.hint
    with pytest.raises(InvalidRequest, match="cannot be read"):
        kind(str(tmp_path / "none.safetensors"), "cpu")


@pytest.mark.filterwarnings("ignore:the card of")
def test_the_engine_makes_fewer_and_smaller_frames_and_finishes_them(home, kept):
    family = cases.Family(cases.BY_NAME["wan"], home)
    info = describe(family.reference)
    still = kept(rife(**{f"block{number}__lastconv": 0.0 for number in range(4)}), "rife.safetensors")
    up = kept(compact(2, body__2=0.0), "up.safetensors")

    def make(side, frames, **options):
        size = {"width": side, "height": side, "frames": frames}
        request = info.request(
            "a ball", seed=3, options={"steps": 1, **options}, fps=Fraction(8 * (frames // 4)), **size
        )
        return generate(info.reference, request, device="cpu").frames

    small, large = make(32, 5), make(64, 9, blend=2, rife=still, upscale=up)
    assert large.shape == (9, 64, 64, 3)
    assert np.array_equal(large[::2], plainly(small, 2))
    assert np.abs(large[1::2].astype(int) - plainly(blending.blended(small, 2), 2)[1::2]).max() <= 1
    for wrong, match in (({"rife": still}, "no frames"), ({"upscale": up, "side": 48}, "enlarged 2 times")):
        with pytest.raises(InvalidRequest, match=match):
            make(wrong.pop("side", 32), 5, **wrong)


@pytest.mark.filterwarnings("ignore:the card of")
def test_the_files_that_finish_a_clip_are_noted_and_others_refused(home, tmp_path):
    info = describe(cases.Family(cases.BY_NAME["wan"], home).reference)
    for name in ("rife", "upscale"):
        file = tmp_path / f"{name}.safetensors"
        save_file({"weight": torch.zeros(1)}, file)
        request = info.request("a ball", options={name: str(file), "blend": 2})
        assert request.options[f"{name}_sha256"] == files.sha256(file)
        assert info.check(request) == request
        save_file({"weight": torch.ones(2)}, file)
        with pytest.raises(InvalidRequest, match="not the file that it was") as error:
            info.check(request)
        assert error.value.field == name
    with pytest.raises(InvalidRequest, match="rife_sha256"):
        info.request("a ball", options={"rife": str(file), "rife_sha256": 5})
