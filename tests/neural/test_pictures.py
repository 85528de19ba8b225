"""Picture models by their parts: equal to diffusers' own pipelines on the same weights, words and noise."""

import json
import shutil

import diffusers
import pytest
import torch

from kinetograph.errors import InvalidRequest, WeightsError
from kinetograph.neural import pixels, sampling
from kinetograph.neural.pictures import folder, weighting
from kinetograph.neural.zeroshot import loop, motion
from kinetograph.neural.zeroshot.attention import crossing
from kinetograph.neural.zeroshot.noise import Noise

# Their schedulers read torch tensors with np.array(...), which numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

CPU = torch.device("cpu")
KINDS = {
    "sd": "sd",
    "sd2-v": "sd",
    "sdxl": "sdxl",
    "sd3": "sd3",
    "sd3.5": "sd3",
    "pixart-alpha": "pixart-alpha",
    "pixart-sigma": "pixart-sigma",
    "sana": "sana",
}
PROMPT, NEGATIVE = "a red ball", "blurry"


@pytest.fixture(scope="module")
def pictures(picture_model):
    known = {}

    def loaded(kind):
        if kind not in known:
            known[kind] = folder.load(picture_model(kind), KINDS[kind], "float32", CPU)
        return known[kind]

    return loaded


def noise_of(model, frames=1, seed=5):
    h = 64 // model.cell
    its = Noise(seed, (model.channels, h, h))
    return its, torch.stack([its.first(frame) for frame in range(frames)], dim=1)[None]  # (1, c, t, h, w)


def told(model, guidance=4.0, prompts=(PROMPT,), negative=NEGATIVE):
    negatives = model.words([negative] * len(prompts), 64, 64, negative=True)
    return loop.guided(model.words(list(prompts), 64, 64), negatives, guidance)


def theirs(model, latents, steps, guidance=4.0, negative=NEGATIVE):
    """The latents that diffusers' own pipeline makes. Its steps must divide 1000: else its DDIM strays from its own."""
    more = {"sigmas": [1 - index / steps for index in range(steps)]} if model.flow else {}
    model.pipe.set_progress_bar_config(disable=True)
    return model.pipe(
        PROMPT, negative_prompt=negative, num_inference_steps=steps, guidance_scale=guidance, latents=latents,
        height=64, width=64, output_type="latent", return_dict=False, **more, **_aside(model),
    )[0]  # fmt: skip


def _aside(model):
    """What some pipelines do to sizes and prompts before they begin, and should not do here."""
    binned = type(model.pipe).__name__.startswith(("PixArt", "Sana"))
    return {"use_resolution_binning": False, "clean_caption": False} if binned else {}


def ours(model, x, steps, groups, sampler="ddim", **more):
    levels = model.levels(steps, clean=model.flow or model.pipe.scheduler.config.get("set_alpha_to_one", True))
    denoise = loop.frames_denoiser(model.predict, model.prediction, groups, **more)
    return sampling.sample(denoise, sampling.begin(x, levels[0]), levels, sampler)


@pytest.mark.parametrize("kind", KINDS)
def test_one_picture_is_diffusers_own(pictures, kind):
    model = pictures(kind)
    _, x = noise_of(model)
    expected = theirs(model, x[:, :, 0], 5)
    found = ours(model, x, 5, told(model))[:, :, 0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_model_is_told_nothing_where_sdxl_is_told_no_negative(pictures):
    model = pictures("sdxl")
    _, x = noise_of(model)
    expected = theirs(model, x[:, :, 0], 3, negative=None)
    torch.testing.assert_close(ours(model, x, 3, told(model, negative=""))[:, :, 0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_that_look_at_themselves_are_pictures_each(pictures, kind):
    """With motion and cross-frame attention off, a clip is what the plain picture pipeline makes of each noise."""
    model = pictures(kind)
    _, x = noise_of(model, frames=3)
    clip = ours(model, x, 4, told(model), chunk=2)
    for frame in range(3):
        expected = theirs(model, x[:, :, frame], 4)
        least = max(1e-4, 1e-6 * float(expected.abs().max()))  # PixArt's random weights make latents of up to 550
        torch.testing.assert_close(clip[:, :, frame], expected, atol=least, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_do_not_matter_in_whole_clips(pictures, kind):
    model = pictures(kind)
    clips = [whole_clip(model, frames=5, chunk=chunk) for chunk in ((5, 1, 2, 4, 8) if kind == "sd" else (5, 2))]
    for clip in clips[1:]:
        torch.testing.assert_close(clip, clips[0], atol=2e-5, rtol=1e-4)


def whole_clip(model, frames, chunk=8, steps=4, sampler="ddim", guidance=4.0, seed=5, prompts=(PROMPT,), **more):
    its = [Noise(seed + place, noise_of(model)[0].shape) for place in range(len(prompts))]
    levels = model.levels(steps)
    first = sampling.begin(torch.stack([one.first()[:, None] for one in its]), levels[0])
    with crossing(model.network) as state:
        denoise = loop.frames_denoiser(
            model.predict, model.prediction, told(model, guidance, prompts), crossing=state, chunk=chunk
        )
        return loop.animate(
            denoise, first, levels, sampler, motion=motion.Motion(motion.steady(x=0.1)),
            moments=[frame / 4 for frame in range(frames)], noise=its, **more,
        )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "heun", "dpmpp-2m", "unipc"])
def test_the_first_frame_is_the_single_picture_of_the_same_seed(pictures, kind, sampler):
    model = pictures(kind)
    clip = whole_clip(model, frames=3, sampler=sampler)
    alone = whole_clip(model, frames=1, sampler=sampler)
    torch.testing.assert_close(clip[:, :, :1], alone, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["sd", "sd3"])
@pytest.mark.parametrize("steps", [2, 10, 30, 50, 100])
def test_any_number_of_steps_runs(pictures, kind, steps):
    clip = whole_clip(pictures(kind), frames=2, steps=steps)
    assert torch.isfinite(clip).all()


@pytest.mark.parametrize("kind", KINDS)
def test_without_guidance_and_with_two_prompts_it_runs(pictures, kind):
    model = pictures(kind)
    assert torch.isfinite(whole_clip(model, frames=2, guidance=1.0)).all()
    both = whole_clip(model, frames=2, prompts=(PROMPT, "a blue cube"))
    torch.testing.assert_close(both[:1], whole_clip(model, frames=2), atol=2e-5, rtol=1e-4)


# ---- against diffusers' port of the method


@pytest.mark.filterwarnings("ignore:torch.meshgrid", "ignore:Default grid_sample")  # how they draw their field
@pytest.mark.parametrize(("kind", "guidance"), [("sd", 7.5), ("sd2-v", 2.0)])
def test_clips_equal_those_of_diffusers_port(picture_model, kind, guidance, monkeypatch):
    """TextToVideoZeroPipeline at its defaults of 8 frames, 50 steps, t0 44 and t1 47; the picture stands still.

    Their noise is keyed otherwise and their product of alphas is off by one: in both places they are given ours.
    """
    model = folder.load(picture_model(kind), "sd", "float32", CPU)
    its, x = noise_of(model)
    pipe = diffusers.TextToVideoZeroPipeline.from_pretrained(
        picture_model(kind), safety_checker=None, feature_extractor=None
    )
    pipe.set_progress_bar_config(disable=True)

    def forward(x_t0, t0, t1, generator):
        assert (t0, t1) == (881, 941)
        kept = pipe.scheduler.alphas_cumprod[t1] / pipe.scheduler.alphas_cumprod[t0]
        fresh = torch.stack([its.fresh(frame) for frame in range(1, 8)])
        return kept.sqrt() * x_t0 + (1 - kept).sqrt() * fresh

    monkeypatch.setattr(pipe, "forward_loop", forward)
    expected = pipe(
        PROMPT, negative_prompt=NEGATIVE, latents=x[:, :, 0], guidance_scale=guidance, video_length=8,
        motion_field_strength_x=0, motion_field_strength_y=0, output_type="latent",
    ).images  # fmt: skip
    levels = model.levels(50, clean=False)
    with crossing(model.network) as state:
        denoise = loop.frames_denoiser(
            model.predict, model.prediction, told(model, guidance), crossing=state, chunk=3
        )  # fmt: skip
        moments = [frame / 4 for frame in range(8)]
        found = loop.animate(denoise, x, levels, "ddim", motion=motion.Motion(), moments=moments, noise=[its])
    assert (expected - expected[:1]).abs().amax((1, 2, 3))[1:].min() > 0.01  # eight frames, not one
    torch.testing.assert_close(found[0].transpose(0, 1), expected, atol=1e-4, rtol=1e-4)


# ---- parts


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3", "sana"])
def test_decoding_is_diffusers_own_whatever_the_chunk(pictures, kind):
    model = pictures(kind)
    latents = noise_of(model, frames=3)[1][0].transpose(0, 1)
    config = model.vae.config
    expected = model.vae.decode(latents / config.scaling_factor + (getattr(config, "shift_factor", 0) or 0)).sample
    for chunk in (1, 2, 8):
        torch.testing.assert_close(model.decode(latents, chunk), expected, atol=1e-4, rtol=1e-4)


def test_tiles_are_used_only_where_they_are_asked_for(pictures):
    model = pictures("sd")
    latents = torch.randn(1, 4, 24, 24, generator=torch.Generator().manual_seed(1))
    model.vae.tile_latent_min_size, model.vae.tile_sample_min_size = 8, 64
    whole, tiled = model.decode(latents), model.decode(latents, tiled=True)
    assert whole.shape == tiled.shape == (1, 3, 192, 192)
    assert (whole - tiled).abs().max() > 0
    assert torch.equal(model.decode(latents), whole)


@pytest.mark.parametrize("kind", ["sd", "sd3"])
def test_a_sketch_has_about_the_colours_of_the_picture(pictures, kind):
    model = pictures(kind)
    latents = torch.randn(6, model.channels, 1, 1, generator=torch.Generator().manual_seed(3)).expand(-1, -1, 4, 4)
    whole, sketch = model.decode(latents).mean((2, 3)), model.sketch(latents)
    assert sketch.shape == (6, 3, 4, 4)
    left = (sketch.mean((2, 3)) - whole).square().mean() / (whole - whole.mean(0)).square().mean()
    assert left < 0.5  # of what tells the colours apart


def test_what_is_encoded_is_the_middle_and_scaled(pictures):
    model = pictures("sd")
    pixels = torch.rand(3, 3, 64, 64) * 2 - 1
    expected = model.vae.encode(pixels).latent_dist.mean * model.vae.config.scaling_factor
    torch.testing.assert_close(model.encode(pixels, chunk=2), expected, atol=1e-5, rtol=1e-4)


def test_channels_can_be_laid_beside(picture_model):
    model = folder.load(picture_model("pix2pix"), "sd", "float32", CPU)
    _, x = noise_of(model)
    words = model.words([PROMPT], 64, 64).at(range(1))
    level = model.levels(4)[1]
    said = [
        model.predict(x[:, :, 0], level, words | {"beside": beside}, range(1)) for beside in (x[:, :, 0], -x[:, :, 0])
    ]
    assert said[0].shape == x[:, :, 0].shape
    assert not torch.allclose(*said)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_what_is_loaded(picture_model, dtype):
    model = folder.load(picture_model("sd"), "sd", dtype, CPU)
    assert {parameter.dtype for parameter in model.network.parameters()} == {folder.DTYPES[dtype]}
    words = model.words([PROMPT], 64, 64)
    assert {tensor.dtype for tensor in words.tensors.values()} == {folder.DTYPES[dtype]}


# ---- words that count for more


def test_prompts_without_weights_are_left_alone():
    for prompt in ("a (red) ball", "ratio 3:4 (nearly)", "a:b", "((", "))", "1.5)"):
        assert weighting.parse(prompt) == (prompt, ())


def test_weights_are_read_and_nest():
    assert weighting.parse("a (red:1.4) ball") == ("a red ball", ((2, 5, 1.4),))
    text, spans = weighting.parse("(a (big:2) cat:0.5)")
    assert text == "a big cat"
    assert set(spans) == {(2, 5, 2.0), (0, 9, 0.5)}
    assert weighting.parse(r"a \(red:1.4\)")[0] == "a (red:1.4\\)".replace("\\", "")


def test_a_weight_that_is_too_much_is_refused():
    with pytest.raises(InvalidRequest, match="weighs 11"):
        weighting.parse("a (red:11) ball")


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3", "pixart-alpha"])
def test_only_weighted_words_change(pictures, kind):
    model = pictures(kind)
    plain = model.words(["a red ball"], 64, 64).tensors["encoder_hidden_states"][0, 0]
    same = model.words(["a (red:1.0) ball"], 64, 64).tensors["encoder_hidden_states"][0, 0]
    more = model.words(["a (red:1.5) ball"], 64, 64).tensors["encoder_hidden_states"][0, 0]
    torch.testing.assert_close(same, plain)
    changed = (more - plain).abs().amax(-1) > 1e-6
    assert changed.nonzero().flatten().tolist() == RED[kind]


RED = {
    "sd": [2, 3, 4],
    "sdxl": [2, 3, 4],
    "sd3": [2, 3, 4],
    "pixart-alpha": [2, 3, 4, 5],
}  # letters; T5 counts the space before


def test_a_model_that_cannot_weigh_words_says_so(pictures):
    with pytest.raises(InvalidRequest, match="cannot weigh"):
        pictures("sana").words(["a (red:2) ball"], 64, 64)


# ---- folders that are no models


def broken(picture_model, tmp_path, kind="sd"):
    return shutil.copytree(picture_model(kind), tmp_path / "model")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part_is_named(picture_model, tmp_path, part):
    path = broken(picture_model, tmp_path)
    shutil.rmtree(path / part)
    with pytest.raises(WeightsError) as error:
        folder.load(path, "sd", "float32", CPU)
    assert part in error.value.hint


def test_a_damaged_weight_file_is_a_clear_error(picture_model, tmp_path):
    path = broken(picture_model, tmp_path)
    weights = path / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="cannot be loaded as a picture model"):
        folder.load(path, "sd", "float32", CPU)


@pytest.mark.parametrize(
    ("name", "value"), [("prediction_type", "magic"), ("beta_schedule", "magic"), ("num_train_timesteps", 50)]
)
def test_a_schedule_that_is_not_known_is_named(picture_model, tmp_path, name, value):
    path = broken(picture_model, tmp_path)
    config = path / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {name: value}))
    with pytest.raises(WeightsError) as error:
        folder.load(path, "sd", "float32", CPU)
    assert str(value) in str(error.value) + error.value.hint


def test_pixels_are_rounded_to_the_nearest_and_not_cut_off():
    said = torch.tensor([-1.0, -0.9999, 0.0039, 0.9981, 1.2]).view(1, 1, 1, 1, 5).expand(1, 3, 1, 1, 5)
    assert pixels.to_frames(said)[0, 0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]
