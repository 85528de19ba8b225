"""The zero-shot engine: what it says of a model, what it makes of a request, and what it refuses."""

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from kinetograph import weights
from kinetograph.engine import describe, generate, reproduce, warm
from kinetograph.engines import zero
from kinetograph.errors import Cancelled, InvalidRequest, NotFinite, UnsafeModel, WeightsError
from kinetograph.video import Video, fingerprint

KINDS = ["sd", "sd2-v", "sdxl", "sd3", "sd3.5", "pixart-alpha", "pixart-sigma", "sana"]


@pytest.fixture(scope="module", autouse=True)
def cold():
    yield
    warm.clear()


@pytest.fixture(scope="module")
def plain(picture_model):
    """Three frames by default options, which others are compared with."""
    return frames(f"zero:{picture_model('sd')}", guidance=3.0)


@pytest.fixture
def reference(picture_model):
    return f"zero:{picture_model('sd')}"


def make(reference, on_progress=lambda progress: None, prompt="a red ball", seed=5, frames=3, **options):
    more = {name: options.pop(name) for name in ("fps", "width", "height") if name in options}
    request = describe(reference).request(prompt, seed=seed, frames=frames, options={"steps": 3} | options, **more)
    return generate(reference, request, on_progress, device="cpu")


def frames(reference, **more):
    return make(reference, **more).frames.astype(int)


def apart(one, other):
    return np.abs(one - other).max()


def copied(picture_model, tmp_path, kind="sd"):
    return shutil.copytree(picture_model(kind), tmp_path / "model")


# ---- what it says of a model


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_says_what_it_can_make(picture_model, kind):
    info = describe(f"zero:{picture_model(kind)}")
    side = 16 if kind == "sana" else 64
    assert (info.width, info.height, info.frames, info.fps) == (side, side, 8, 4)
    assert info.sizes.multiple == {"sd": 8, "sana": 2}.get(kind, 8 if kind in ("sd2-v", "sdxl") else 16)
    assert len(info.weights) == 64


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_makes_videos(picture_model, kind):
    reference = f"zero:{picture_model(kind)}"
    video = make(reference, frames=2)
    assert video.frames.shape[0] == 2
    assert video.provenance.weights == describe(reference).weights
    assert {"torch", "diffusers", "transformers"} <= set(video.provenance.versions)


def test_without_a_model_it_says_how_to_name_one(monkeypatch, tmp_path):
    monkeypatch.setattr(weights, "HERE", tmp_path)
    with pytest.raises(WeightsError) as error:
        describe("zero")
    assert "zero:FOLDER" in error.value.hint


def test_the_models_at_hand_are_known(picture_model, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789abcdef0123456789abcdef01234567"
    for kind in ("sd", "sd3"):
        home = tmp_path / f"models--me--{kind}"
        shutil.copytree(picture_model(kind), home / "snapshots" / commit)
        (home / "refs").mkdir()
        (home / "refs" / "main").write_text(commit)
    (tmp_path / "models--me--sd3" / "snapshots" / commit / "model_index.json").write_text('{"_class_name": "Other"}')
    assert zero.references()[-1:] == ["zero:me/sd"]
    assert "zero:me/sd3" not in zero.references()
    assert make("zero:me/sd", frames=1).frames.shape == (1, 64, 64, 3)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="no pipeline"):
        describe(f"zero:{tmp_path}")


def test_a_model_of_another_kind_is_refused(picture_model, tmp_path):
    path = copied(picture_model, tmp_path)
    index = path / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "AudioLDMPipeline"}))
    with pytest.raises(WeightsError) as error:
        describe(f"zero:{path}")
    assert "AudioLDMPipeline" in str(error.value)
    assert "StableDiffusionPipeline" in error.value.hint


def test_code_in_a_model_folder_is_never_run(picture_model, tmp_path):
    path = copied(picture_model, tmp_path)
    (path / "pipeline.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(UnsafeModel, match=r"pipeline\.py"):
        describe(f"zero:{path}")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_missing_part_is_named(picture_model, tmp_path, part):
    path = copied(picture_model, tmp_path)
    shutil.rmtree(path / part)
    with pytest.raises(WeightsError, match=part):
        describe(f"zero:{path}")


# ---- what it makes


def test_the_first_frame_is_the_single_picture_of_the_same_seed(reference):
    for sampler in ("ddim", "unipc", "dpmpp-2m", "ddpm"):
        clip, picture = (frames(reference, frames=count, sampler=sampler) for count in (4, 1))
        assert apart(clip[:1], picture) <= 1, sampler


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_neither_the_chunk_nor_the_length_matters(reference, plain, chunk):
    assert apart(frames(reference, frames=5, guidance=3.0, chunk=chunk)[:3], plain) <= 1


def test_twice_the_rate_shows_the_same_moments_between_others(reference):
    """Motion is told in seconds. Each frame has noise of its own, so T = T' here."""
    same = {"t": 881, "t_prime": 881}
    slow, fast = frames(reference, frames=3, fps=4, **same), frames(reference, frames=5, fps=8, **same)
    assert apart(fast[::2], slow) <= 1


@pytest.mark.parametrize(
    "options",
    [
        {"attention": False},
        {"dynamics": False},
        {"motion": [0.0, 0.0]},
        {"motion": "-0.2,0.3"},
        {"zoom": 2.0},
        {"rotation": 90.0},
        {"shear": 0.5},
        {"path": [[0, 0, 0], [0.25, 0.5, 0.0], [0.5, 0.5, 0.5, 2.0, 45, 0.1]]},
        {"t": 700, "t_prime": 600},
        {"prompts": [[0.25, "a blue cube"], [0.5, "a cat"]]},
        {"anchors": "previous"},
        {"anchors": "first+previous"},
        {"anchors": "window:2"},
    ],
    ids=str,
)
def test_every_switch_changes_later_frames_and_leaves_the_first(reference, plain, options):
    other = frames(reference, guidance=3.0, **options)
    assert apart(other[:1], plain[:1]) <= 1
    assert apart(other[1:], plain[1:]) > 0


@pytest.mark.parametrize(
    "options",
    [
        {"guidance": 1.0},
        {"guidance": 0.0},
        {"negative_prompt": "blurry"},
        {"sampler": "ddim"},
        {"placement": "karras"},
        {"steps": 5},
        {"sampler": "ddim", "eta": 1.0},
        {"dtype": "bfloat16"},
        {"merging": 0.5},
        {"reuse": 2},
        {"prompt": "a (red:2) ball"},
        {"width": 128, "height": 64},
    ],
    ids=str,
)
def test_every_setting_of_a_picture_is_heard(reference, plain, options):
    other = frames(reference, **{"guidance": 3.0} | options)
    assert other.shape != plain.shape or apart(other, plain) > 0


def test_settings_of_memory_change_nothing_that_is_seen(reference, plain):
    for memory in ({"decode_chunk": 1}, {"tiled": True}):  # nothing here is larger than a tile
        assert apart(frames(reference, guidance=3.0, **memory), plain) <= 1


def test_the_same_request_makes_the_same_frames_from_its_file(reference, tmp_path):
    video = make(reference, path=[[0, 0, 0], [1, 0.1, 0, 1.5]], prompts=[[0.5, "a cat"]])
    again = reproduce(Video.load(video.save(tmp_path / "a.npz")), device="cpu")
    assert again.same, again.differences


# ---- progress, giving up, failing


def test_progress_counts_every_step_and_shows_a_frame(reference):
    told = []
    make(reference, told.append, steps=4, chunk=2)
    assert {progress.steps for progress in told} == {4}
    steps = [progress.step for progress in told]
    assert steps == sorted(steps)
    assert steps[-1] == 4
    assert [progress.step for progress in told if progress.preview is not None] == [1, 2, 3, 4]
    assert all(p.preview.shape == (64, 64, 3) for p in told if p.preview is not None)


def test_giving_up_ends_within_a_step(reference):
    told = []

    def give_up(progress):
        told.append(progress)
        if len(told) == 6:
            raise Cancelled

    with pytest.raises(Cancelled):
        make(reference, give_up, steps=20, chunk=1, frames=8)
    assert len(told) == 6
    assert told[-1].preview is None  # between two chunks


def processors(reference):
    engine = warm.get(reference, "cpu", describe(reference).weights)
    return {
        type(processor) for processor in engine.pictures(describe(reference).Options()).network.attn_processors.values()
    }


def test_a_failure_leaves_the_model_as_it_was(reference):
    before = fingerprint(make(reference).frames)

    def fail(progress):
        raise MemoryError

    with pytest.raises(MemoryError):
        make(reference, fail)
    assert processors(reference) == {AttnProcessor2_0}
    assert fingerprint(make(reference).frames) == before


def test_numbers_that_overflow_are_named_with_what_may_help(reference, monkeypatch):
    make(reference)
    engine = warm.get(reference, "cpu", describe(reference).weights)
    bias = engine.pictures(describe(reference).Options()).network.conv_out.bias
    monkeypatch.setattr(bias, "data", bias.data.clone().index_fill(0, torch.tensor([0]), torch.nan))
    with pytest.raises(NotFinite, match="25% of what the network says is no number") as error:
        make(reference)
    assert "dtype=float32" in error.value.hint


def test_there_is_nothing_to_offload_from_on_a_cpu(reference):
    with pytest.raises(InvalidRequest, match="offload"):
        make(reference, offload="model")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0), ("guidance", -1), ("sampler", "magic"), ("anchors", "last"), ("anchors", "window:0"),
        ("chunk", 0), ("motion", [0.1]), ("motion", "left"), ("zoom", 0), ("path", [[0, 0]]),
        ("t", 2000), ("dtype", "float8"),
    ],
)  # fmt: skip
def test_illegal_options_are_refused_by_name(reference, name, value):
    with pytest.raises(InvalidRequest) as error:
        make(reference, **{name: value})
    assert error.value.field.startswith(name)


def test_keys_that_do_not_follow_each_other_are_refused(reference):
    with pytest.raises(InvalidRequest, match="follow"):
        make(reference, path=[[1, 0, 0], [0, 0, 0]])
    with pytest.raises(InvalidRequest, match="follow"):
        make(reference, prompts=[[2, "a cat"], [1, "a dog"]])


def test_it_is_quiet(reference, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(reference)
    assert capfd.readouterr() == ("", "")


# ---- what is added to a model


@pytest.fixture(scope="module")
def lora(picture_model, tmp_path_factory):
    """A LoRA for the tiny model, in diffusers' format."""
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipe = StableDiffusionPipeline.from_pretrained(picture_model("sd"), safety_checker=None, feature_extractor=None)
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    folder = tmp_path_factory.mktemp("lora")
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=get_peft_model_state_dict(pipe.unet))
    return folder / "pytorch_lora_weights.safetensors"


def test_a_lora_is_as_strong_as_it_is_told_and_gone_afterwards(reference, plain, lora):
    none, some, more = (
        frames(reference, guidance=3.0, lora=str(lora), lora_scale=[scale]) for scale in (0.0, 1.0, 2.0)
    )
    assert apart(none, plain) <= 1
    assert np.abs(some - plain).mean() > 0
    assert np.abs(more - plain).mean() > np.abs(some - plain).mean()
    assert apart(frames(reference, guidance=3.0), plain) <= 1
    both = frames(reference, guidance=3.0, lora=[str(lora), str(lora.parent)], lora_scale=[1.0, 1.0])
    assert apart(both, more) <= 2


def test_a_clip_notes_which_lora_made_it(reference, lora, tmp_path):
    own = shutil.copy(lora, tmp_path / "own.safetensors")
    video = make(reference, lora=[str(own)])
    assert len(video.provenance.request.options["added_sha256"]) == 1
    assert reproduce(video, device="cpu").same
    own.write_bytes(b"another")
    with pytest.raises(InvalidRequest) as error:
        reproduce(video, device="cpu")
    assert "not those that the request was made with" in error.value.hint


def test_a_lora_of_another_model_is_refused_and_the_model_left_as_it_was(
    picture_model, reference, plain, lora, tmp_path
):
    from safetensors.torch import load_file, save_file

    wrong = tmp_path / "wrong.safetensors"
    save_file({name: torch.cat([t, t], dim=-1).contiguous() for name, t in load_file(lora).items()}, wrong)
    with pytest.raises(WeightsError, match="no LoRA for this model"):
        make(reference, lora=[str(wrong)])
    save_file({"something": torch.zeros(2)}, wrong)
    with pytest.raises(WeightsError):
        make(reference, lora=[str(wrong)])
    assert apart(frames(reference, guidance=3.0), plain) <= 1
    with pytest.raises(WeightsError, match="no LoRA for this model"):
        make(f"zero:{picture_model('pixart-alpha')}", lora=[str(lora)])


def low_rank():
    """Matrices of two ranks for two layers of a tiny transformer's first block, by the names that peft has for them."""
    draw, found = torch.Generator().manual_seed(3), {}
    for layer, rank in (("attn1.to_q", 2), ("attn2.to_k", 3)):
        for half, shape in (("A", (rank, 8)), ("B", (8, rank))):
            found[f"transformer_blocks.0.{layer}.lora_{half}.weight"] = 2 * torch.randn(shape, generator=draw)
    return found


def written(path, tensors, before):
    from safetensors.torch import save_file

    path.parent.mkdir(exist_ok=True)
    save_file({before + name: tensor for name, tensor in tensors.items()}, path)
    return str(path)


@pytest.mark.parametrize("kind", ["pixart-alpha", "pixart-sigma", "sana"])
def test_a_lora_works_in_a_transformer_too(picture_model, tmp_path, kind):
    reference = f"zero:{picture_model(kind)}"
    how = {"frames": 2, "guidance": 3.0, "steps": 2}
    plain = frames(reference, **how)
    file = written(tmp_path / "a" / "style.safetensors", low_rank(), "transformer.")
    none, some, more = (frames(reference, lora=file, lora_scale=[scale], **how) for scale in (0.0, 1.0, 2.0))
    assert apart(none, plain) <= 1
    assert 0 < np.abs(some - plain).mean() < np.abs(more - plain).mean()
    both = frames(reference, lora=[file, file], lora_scale=[1.0, 1.0], **how)
    assert apart(both, more) <= 2
    assert apart(frames(reference, **how), plain) <= 1


def test_a_lora_for_pixart_is_read_as_peft_or_the_kohya_tools_write_it(picture_model, tmp_path):
    reference, how = f"zero:{picture_model('pixart-sigma')}", {"frames": 2, "guidance": 3.0, "steps": 2}
    low = low_rank()
    whole = frames(reference, lora=written(tmp_path / "a" / "a.safetensors", low, "transformer."), **how)
    half = frames(reference, lora=f"{tmp_path / 'a'}", lora_scale=[0.5], **how)
    peft = tmp_path / "peft" / "adapter_model.safetensors"
    written(peft, low, "base_model.model.")
    assert apart(frames(reference, lora=str(peft), **how), whole) <= 1
    # peft says beside the matrices how strong they are, and that is part of what a request is made with
    (peft.parent / "adapter_config.json").write_text(json.dumps({"lora_alpha": 1}))
    weaker = make(reference, lora=[str(peft)], **how)
    assert apart(weaker.frames.astype(int), whole) > 0
    (peft.parent / "adapter_config.json").write_text(json.dumps({"lora_alpha": 2}))
    with pytest.raises(InvalidRequest):
        reproduce(weaker, device="cpu")
    kohya = {}
    for name, tensor in low.items():
        layer, end = name.split(".lora_")
        kohya[f"{layer.replace('.', '_')}.lora_{'down' if end[0] == 'A' else 'up'}.weight"] = tensor
        kohya[f"{layer.replace('.', '_')}.alpha"] = torch.tensor(len(low[f"{layer}.lora_A.weight"]) / 2)
    file = written(tmp_path / "kohya" / "k.safetensors", kohya, "lora_transformer_")
    assert apart(frames(reference, lora=file, **how), half) <= 1


# ---- what is faster and not exact, in transformers


@pytest.mark.parametrize("kind", ["sd3.5", "pixart-alpha", "sana"])
def test_features_are_reused_in_every_transformer(picture_model, kind):
    reference, how = f"zero:{picture_model(kind)}", {"frames": 3, "guidance": 3.0, "steps": 4, "chunk": 2}
    exact, reused = frames(reference, **how), frames(reference, reuse=2, **how)
    assert apart(reused, exact) > 0
    assert np.abs(reused - exact).mean() < np.abs(exact - exact.mean()).mean()
    assert apart(frames(reference, **how), exact) <= 1
    if kind == "sana":
        with pytest.raises(InvalidRequest, match="is linear"):
            make(reference, merging=0.5)
    else:
        assert apart(frames(reference, merging=0.5, **how), exact) > 0


def test_scales_that_are_not_one_for_each_are_refused(reference, lora):
    with pytest.raises(InvalidRequest) as error:
        make(reference, lora=[str(lora)], lora_scale=[1.0, 2.0])
    assert "2 scales for 1 LoRAs" in error.value.hint


def test_a_pickle_is_no_lora(reference, tmp_path):
    (tmp_path / "lora.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UnsafeModel):
        make(reference, lora=[str(tmp_path / "lora.bin")])


def test_a_word_of_one_s_own_is_heard(reference, tmp_path):
    from safetensors.torch import save_file

    file = tmp_path / "cat.safetensors"
    save_file({"<my-cat>": torch.randn(2, 16, generator=torch.Generator().manual_seed(1)) * 5}, file)
    plain = frames(reference, prompt="a <my-cat>", guidance=3.0)
    taught = frames(reference, prompt="a <my-cat>", guidance=3.0, embeddings=str(file))
    renamed = frames(reference, prompt="a <it>", guidance=3.0, embeddings=[f"<it>={file}"])
    assert np.abs(taught - plain).mean() > 0
    assert apart(renamed, taught) <= 1


def test_a_word_for_both_encoders_of_sdxl_is_heard(picture_model, tmp_path):
    from safetensors.torch import save_file

    file = tmp_path / "cat.safetensors"
    save_file({"clip_l": torch.randn(1, 16) * 5, "clip_g": torch.randn(1, 24) * 5}, file)
    reference = f"zero:{picture_model('sdxl')}"
    taught = frames(reference, prompt="a <c>", frames=1, guidance=3.0, embeddings=[f"<c>={file}"])
    assert np.abs(taught - frames(reference, prompt="a <c>", frames=1, guidance=3.0)).mean() > 0


def test_a_word_of_another_width_is_refused(reference, tmp_path):
    from safetensors.torch import save_file

    file = tmp_path / "cat.safetensors"
    save_file({"<my-cat>": torch.randn(2, 17)}, file)
    with pytest.raises(WeightsError, match="no word for this model"):
        make(reference, embeddings=[str(file)])


# ---- checkpoints of one file


@pytest.mark.parametrize("kind", ["sd", "sd2-v", "sdxl"])
def test_a_checkpoint_of_one_file_makes_what_its_folder_makes(picture_model, single_file, kind):
    reference, options = f"zero:{picture_model(kind)}", {"guidance": 3.0, "width": 64, "height": 64, "frames": 2}
    found = frames(f"zero:{single_file(kind)}", config=str(picture_model(kind)), **options)
    assert apart(found, frames(reference, **options)) <= 1


def test_a_checkpoint_of_one_file_says_whose_settings_it_needs(one_file, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    info = describe(f"zero:{one_file}")
    assert (info.width, info.height) == (512, 512)
    assert "family sd" in info.summary
    with pytest.raises(WeightsError) as error:
        make(f"zero:{one_file}", width=64, height=64)
    assert "kinetograph fetch stable-diffusion-v1-5/stable-diffusion-v1-5" in error.value.hint
    assert "config=FOLDER" in error.value.hint


def test_a_file_that_is_no_checkpoint_is_refused(lora, tmp_path):
    with pytest.raises(WeightsError, match="no checkpoint of a picture model"):
        describe(f"zero:{lora}")
    (tmp_path / "a.safetensors").write_bytes(b"rubbish")
    with pytest.raises(WeightsError, match="no file of safetensors"):
        describe(f"zero:{tmp_path / 'a.safetensors'}")


def test_a_folder_has_settings_of_its_own(reference, picture_model):
    with pytest.raises(InvalidRequest, match="is a folder"):
        make(reference, config=str(picture_model("sd")))
