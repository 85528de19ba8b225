"""System A's model in our own samplers: equal to diffusers' deprecated pipelines, and what they cannot do."""

import copy
import json
import warnings
from itertools import pairwise

import cases
import diffusers
import numpy as np
import pytest
import torch

from kinetograph.engine import describe, generate, reproduce
from kinetograph.errors import InvalidRequest
from kinetograph.neural.pretrained import modelscope, pipelines, prompts
from kinetograph.neural.sampling import Level
from kinetograph.video import fingerprint

PROMPT, NEGATIVE = "a red ball moves", "blue sea"
SHAPE = (4, 16, 16)  # frames, height, width
LATENT = (1, 4, 4, 8, 8)


@pytest.fixture(scope="module")
def folder(home):
    return cases.folder(cases.BY_NAME["modelscope"], home)


@pytest.fixture(scope="module")
def networks(folder):
    return modelscope.Networks(folder, "float32", "", torch.device("cpu"))


@pytest.fixture(scope="module")
def deprecated(folder):
    with pipelines.quiet():
        return diffusers.TextToVideoSDPipeline.from_pretrained(str(folder))


def ours(networks, settings, noise=None, clip=None, shape=SHAPE):
    return modelscope.sample(
        networks, PROMPT, NEGATIVE, modelscope.Settings(**settings), noise or modelscope.noise_of(7), shape, clip=clip
    )


def latents(shape=LATENT):
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    ("sampler", "scheduler"),
    [("dpmpp-2m", "DPMSolverMultistepScheduler"), ("ddim", "DDIMScheduler")],
)
@pytest.mark.parametrize("guidance", [9.0, 1.0])
def test_it_makes_what_the_deprecated_pipeline_makes(networks, deprecated, sampler, scheduler, guidance):
    """System A's recipe, and the checkpoint's own scheduler: the same weights and latents, the same pixels."""
    deprecated.scheduler = getattr(diffusers, scheduler).from_config(deprecated.scheduler.config)
    start = latents()
    with pipelines.quiet():
        theirs = deprecated(
            PROMPT, 16, 16, 4, 25, guidance, negative_prompt=NEGATIVE, latents=start.clone(), output_type="pt"
        ).frames
    mine = ours(networks, {"sampler": sampler, "guidance": guidance}, noise=lambda *path, shape: start)
    torch.testing.assert_close(((mine.clamp(-1, 1) + 1) / 2).transpose(1, 2), theirs.float(), atol=1e-4, rtol=0)


def test_varying_a_clip_is_what_the_deprecated_pipeline_does(folder, networks):
    """The same latents of the clip and the same noise are given to both."""
    with pipelines.quiet():
        theirs = diffusers.VideoToVideoSDPipeline.from_pretrained(str(folder))
    theirs.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(theirs.scheduler.config)
    noise, clean = latents(), 0.2 * latents()
    with pipelines.quiet():
        theirs.scheduler.set_timesteps(25)
    begin = theirs.scheduler.timesteps[25 - 15 :][:1]
    noisy = theirs.scheduler.add_noise(clean, noise, begin)
    settings = modelscope.Settings(steps=25, strength=0.6)
    levels = modelscope.part_of(modelscope.levels_of(networks.schedule, settings), 0.6)
    assert len(levels) == 16
    torch.testing.assert_close(modelscope.sampling.noised(clean, noise, levels[0]), noisy, atol=1e-5, rtol=0)
    clip = torch.zeros(1, 3, *SHAPE)
    strong, weak = (ours(networks, {"strength": s, "steps": 5}, clip=clip) for s in (1.0, 0.2))
    same = modelscope.decode(networks, modelscope.encode(networks, clip, 4, lambda *p, shape: torch.zeros(shape)), 4)
    assert (weak - same).abs().mean() < (strong - same).abs().mean()


def test_decoding_in_parts_changes_nothing(networks):
    x = latents()
    with torch.inference_mode():
        whole, parts = modelscope.decode(networks, x, 64), modelscope.decode(networks, x, 1)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)


# --- longer than a window ---


@pytest.mark.parametrize(
    ("frames", "window", "overlap"), [(16, 16, 8), (17, 16, 8), (40, 16, 8), (33, 16, 0), (50, 7, 6)]
)
def test_windows_see_every_frame_and_are_all_as_long(frames, window, overlap):
    places = modelscope.windows(frames, window, overlap)
    assert {frame for begin, end in places for frame in range(begin, end)} == set(range(frames))
    assert {end - begin for begin, end in places} == {min(window, frames)}
    assert all(b[0] > a[0] for a, b in pairwise(places))


def test_a_denoiser_that_sees_frames_alone_is_the_same_in_windows():
    def alone(x, level):
        return x * 0.5 + level.sigma

    x = torch.randn(1, 2, 21, 3, 3, generator=torch.Generator().manual_seed(1))
    level = Level(0.8, 0.6)
    torch.testing.assert_close(modelscope.windowed(alone, 8, 3)(x, level), alone(x, level), atol=1e-6, rtol=0)


def test_the_noise_of_a_long_clip_is_that_of_its_first_window_shuffled():
    noise = modelscope.noise_of(3)
    long = modelscope.windowed_noise(noise, (1, 4, 40, 2, 2), 16, 8)
    short = modelscope.windowed_noise(noise, (1, 4, 16, 2, 2), 16, 8)
    torch.testing.assert_close(long[:, :, :16], short, atol=0, rtol=0)
    frames = {tuple(frame.flatten().tolist()) for frame in short[0].transpose(0, 1)}
    for begin in range(0, 25, 8):
        window = [tuple(frame.flatten().tolist()) for frame in long[0, :, begin : begin + 16].transpose(0, 1)]
        assert set(window) == frames  # every window has the same noise, in another order
    assert not torch.equal(long[:, :, 16:24], long[:, :, 0:8])


def test_a_long_clip_is_steady(networks):
    """No frame is farther from its neighbours, brighter or rougher than those of the first window by half."""
    clip = ours(networks, {"steps": 5, "window": 4, "overlap": 2}, shape=(14, 16, 16))
    assert clip.shape == (1, 3, 14, 16, 16)
    apart = (clip[:, :, 1:] - clip[:, :, :-1]).abs().mean(dim=(0, 1, 3, 4))
    assert apart.max() < 1.5 * apart[:3].max()
    spread = clip.std(dim=(0, 1, 3, 4))
    assert spread.max() < 1.5 * spread[:4].max()
    assert spread.min() > spread[:4].min() / 1.5


# --- prompts ---


def hidden(networks, text):
    return prompts.encode([text], networks.tokenizer, networks.encoder)


def test_a_plain_prompt_is_encoded_as_the_pipeline_does_it(networks, deprecated):
    with pipelines.quiet(), torch.no_grad():
        theirs, _ = deprecated.encode_prompt(PROMPT, "cpu", 1, False)
        torch.testing.assert_close(hidden(networks, PROMPT), theirs, atol=1e-6, rtol=0)


def test_what_stands_beyond_77_tokens_is_read(networks):
    with torch.no_grad():
        long, other = (hidden(networks, " ".join(["red ball"] * 60) + last) for last in (" cat", " sea"))
    assert long.shape[1] == 154
    assert not torch.equal(long, other)


def test_a_weight_changes_its_words_and_a_weight_of_one_nothing(networks):
    with torch.no_grad():
        plain, same, loud = (hidden(networks, text) for text in ("a red ball", "a (red:1.0) ball", "a (red:1.5) ball"))
    torch.testing.assert_close(same, plain, atol=0, rtol=0)
    assert not torch.allclose(loud, plain)
    torch.testing.assert_close(loud.mean(), plain.mean())


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("a red ball", [("a red ball", 1.0)]),
        ("a (red) ball", [("a ", 1.0), ("red", 1.1), (" ball", 1.0)]),
        ("a ((red)) ball", [("a ", 1.0), ("red", 1.1 * 1.1), (" ball", 1.0)]),
        ("a (red:1.4), [blue]", [("a ", 1.0), ("red", 1.4), (", ", 1.0), ("blue", 1 / 1.1)]),
        (r"a \(red\) ball", [("a (red) ball", 1.0)]),
        ("a (red ball", [("a red ball", 1.0)]),
        ("12:30) noon", [("12:30) noon", 1.0)]),
        ("", [("", 1.0)]),
    ],
)
def test_weights_are_written_in_brackets(text, pieces):
    found = prompts.parse(text)
    assert [words for words, _ in found] == [words for words, _ in pieces]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in pieces])


# --- the engine ---


@pytest.fixture
def reference(folder):
    return f"pretrained:{folder}"


@pytest.mark.filterwarnings("ignore:the card of")
def make(reference, **options):
    request = describe(reference).request(PROMPT, seed=3, width=16, height=16, frames=4, options={"steps": 2} | options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return generate(reference, request, device="cpu")


def test_the_recipe_is_the_default(reference):
    request = describe(reference).request(PROMPT, seed=1)
    said = {"steps": 25, "sampler": "dpmpp-2m", "guidance": 9.0, "window": 16}
    assert said.items() <= dict(request.options).items()
    assert (request.frames, request.fps) == (16, 8)


def test_every_option_that_should_matter_does(reference):
    first = fingerprint(make(reference).frames)
    changes = (
        {"steps": 3},
        {"guidance": 2.0},
        {"negative_prompt": "blue"},
        {"sampler": "ddim"},
        {"placement": "karras"},
    )
    others = {
        fingerprint(make(reference, **change).frames)
        for change in (*changes, {"clip_skip": 1}, {"window": 3, "overlap": 1})
    }
    assert first not in others
    assert len(others) == len(changes) + 2


def test_longer_than_a_window_previews_and_a_start_of_the_wrong_length(reference, home):
    info, told = describe(reference), []
    request = info.request(
        PROMPT, seed=3, width=16, height=16, frames=7, options={"steps": 2, "window": 4, "overlap": 2, "preview": 1}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert len(generate(reference, request, told.append, device="cpu").frames) == 7
    assert all(progress.preview.shape == (16, 16, 3) for progress in told)
    with pytest.raises(InvalidRequest, match="share"):
        make(reference, window=4, overlap=4)
    clip = cases.beginning(cases.Case("x", 16, 5, "video"), home)
    with pytest.raises(InvalidRequest, match="5 frames"):
        make(reference, start=str(clip))


def test_a_clip_and_a_picture_can_be_varied(reference, home):
    clip = cases.beginning(cases.Case("x", 16, 4, "video"), home)
    picture = cases.beginning(cases.Case("x", 16, 4, "image"), home)
    made = [make(reference, start=str(start), strength=0.5).frames for start in (clip, picture)]
    assert not np.array_equal(*made)


def test_a_lora_is_what_peft_makes_of_it_and_changes_the_clip_by_its_scale(reference, networks, tmp_path):
    from peft import LoraConfig, get_peft_model
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import save_file

    from kinetograph.neural.pretrained import adapters

    unet = copy.deepcopy(networks.unet)
    mine, other = copy.deepcopy(unet), copy.deepcopy(unet)
    kinds = r".*\.to_q|.*resnets\.\d+\.conv1"  # projections and convolutions
    torch.manual_seed(1)
    theirs = get_peft_model(unet, LoraConfig(r=2, lora_alpha=3, target_modules=kinds, init_lora_weights=False))
    state = get_peft_model_state_dict(theirs)
    found = {name.replace("base_model.model.", "unet."): value.clone() for name, value in state.items()}
    alphas = {name.replace(".lora_A.weight", ".alpha"): torch.tensor(3.0) for name in found if "lora_A" in name}
    path = str(tmp_path / "lora.safetensors")
    save_file(found | alphas, path)
    adapters.merge({"unet": mine, "text_encoder": networks.encoder}, [path], [1.0])
    headed = str(tmp_path / "headed.safetensors")  # where newer files of diffusers say their strength
    strong = 3 / 2**0.5  # by use_rslora divided by the root of the rank
    settings = {"unet.use_rslora": True, "unet.lora_alpha": 9, "unet.alpha_pattern": {"to_q": strong, "conv1": strong}}
    save_file(found, headed, {"lora_adapter_metadata": json.dumps(settings)})
    adapters.merge({"unet": other}, [headed], [1.0])
    merged = theirs.merge_and_unload().state_dict()
    for name, value in merged.items():
        torch.testing.assert_close(mine.state_dict()[name], value, msg=name)
        torch.testing.assert_close(other.state_dict()[name], value, msg=name)
    plain, nothing, half, whole = (
        fingerprint(make(reference, **{"steps": 1} | more).frames)
        for more in ({}, *({"lora": [path], "lora_scale": [scale]} for scale in (0.0, 0.5, 1.0)))
    )
    assert nothing == plain
    assert len({plain, half, whole}) == 3
    video = make(reference, steps=1, lora=[path])
    save_file(found, path)
    with pytest.raises(InvalidRequest, match="not the file that it was"):
        reproduce(video, device="cpu")
    save_file({name: value.repeat_interleave(2, dim=1) for name, value in found.items()}, tmp_path / "wide.safetensors")
    for wrong in (weights_of(reference), tmp_path / "wide.safetensors"):
        with pytest.raises(InvalidRequest, match="is no LoRA for this model"):
            make(reference, lora=[str(wrong)])


@pytest.mark.filterwarnings("ignore:the card of")
def test_a_budget_chooses_for_the_recipe_too_and_says_what(reference):
    options = {"steps": 1, "memory_budget": "8GB"}
    request = describe(reference).request(PROMPT, seed=3, width=16, height=16, frames=4, options=options)
    with pytest.warns(UserWarning, match="for 8GB: float32"):
        generate(reference, request, device="cpu")


def weights_of(reference):
    from pathlib import Path

    return Path(reference.partition(":")[2]) / "vae" / "diffusion_pytorch_model.safetensors"


def test_a_licence_that_binds_is_said(reference, tmp_path):
    import shutil

    shutil.copytree(reference.partition(":")[2], tmp_path / "mine")
    (tmp_path / "mine" / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    info = describe(f"pretrained:{tmp_path / 'mine'}")
    assert info.licence == "cc-by-nc-4.0"
    request = info.request(PROMPT, seed=3, width=16, height=16, frames=2, options={"steps": 1})
    with pytest.warns(UserWarning, match="non-commercial"):
        generate(info.reference, request, device="cpu")
