"""Memory, caches, LoRA, schedulers, single files and blends, on a tiny Wan."""

import io
import json
import logging
import shutil
import subprocess
import sys
import warnings
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import cases
import diffusers
import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file
from transformers import ProcessorMixin

from kinetograph import files
from kinetograph.engine import describe, generate, reproduce, warm
from kinetograph.engines.pretrained import blending
from kinetograph.errors import InvalidRequest, UnsafeModel
from kinetograph.neural.pretrained import adapters, memory, pipelines, seeing, stepping
from kinetograph.video import Video, fingerprint

SIDE, FRAMES = 32, 5


@pytest.fixture(scope="module")
def folder(home):
    return cases.folder(cases.BY_NAME["wan"], home)


@pytest.fixture(scope="module")
def make(folder):
    """A clip of the tiny Wan, and what was said."""

    def make(steps=2, frames=FRAMES, **options):
        info = describe(f"pretrained:{folder}")
        request = info.request(
            "a red ball", seed=3, width=SIDE, height=SIDE, frames=frames, options={"steps": steps, **options}
        )
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            video = generate(info.reference, request, device="cpu")
        return video, [str(one.message) for one in heard if "names no licence" not in str(one.message)]

    return make


# --- caches ---


@pytest.fixture(scope="module")
def exact(make):
    """The clip of eight steps without a cache."""
    return make(steps=8)[0]


@pytest.mark.parametrize("preset", ["first-block", "pab", "taylorseer", "sea"])
def test_a_cache_says_what_it_skipped_and_how_far_it_is_from_the_exact_clip(make, exact, preset):
    cached, said = make(steps=8, cache=preset, cache_check=True)
    (words,) = said
    assert f"the cache {preset} skipped" in words
    assert "nothing" not in words
    assert "of 255 from the exact clip" in words
    assert fingerprint(cached.frames) != fingerprint(exact.frames)
    again, _ = make(steps=8)
    assert fingerprint(again.frames) == fingerprint(exact.frames)  # it is gone afterwards


def test_magcache_measures_a_model_before_it_skips(make, exact):
    measured, (said,) = make(steps=8, cache="mag")
    assert "measured this model and skipped nothing" in said
    assert fingerprint(measured.frames) == fingerprint(exact.frames)
    ratios = json.loads(said.partition("mag_ratios=")[2].rstrip("'"))
    assert len(ratios) == 8
    _, (cautious,) = make(steps=8, cache="mag", mag_ratios=[9.0] * 8)  # each step far from the last: none is spared
    assert "skipped nothing here" in cautious
    cached, (said,) = make(steps=8, cache="mag", mag_ratios=[1.0] * 8)
    assert "skipped 40 of 64" in said  # after a fifth of the steps three of four are spared, of both kinds of calls
    assert fingerprint(cached.frames) != fingerprint(exact.frames)


def test_fastercache_is_refused_where_guidance_is_a_call_of_its_own(make, exact):
    with pytest.raises(InvalidRequest, match="faster does not suit WanPipeline"):
        make(steps=8, cache="faster")
    again, _ = make(steps=8)
    assert fingerprint(again.frames) == fingerprint(exact.frames)
    _, (said,) = make(steps=8, cache="faster", guidance=1.0)
    assert "the cache faster skipped 8 of 32 attentions (25%)" in said  # every other self-attention


def test_a_cache_that_skips_nothing_is_called_no_speed_up(make):
    exact, _ = make(steps=1)
    cached, (said,) = make(steps=1, cache="first-block")
    assert "skipped nothing" in said
    assert "no speed-up" in said
    assert fingerprint(cached.frames) == fingerprint(exact.frames)


def test_a_cache_that_does_not_suit_is_refused_by_name(make, monkeypatch):
    from kinetograph.neural.pretrained import caches

    monkeypatch.setattr(caches, "_config", lambda *_: None)
    with pytest.raises(InvalidRequest, match="the cache mag does not suit WanTransformer3DModel"):
        make(cache="mag")


@pytest.mark.filterwarnings("ignore:the card of")
@pytest.mark.parametrize("cache", ["none", "pab"])
@pytest.mark.parametrize("fault", [ValueError, KeyError, RuntimeError])
def test_what_goes_wrong_in_who_listens_is_blamed_on_neither_the_pipeline_nor_its_cache(home, cache, fault):
    def listener(progress):
        raise fault("mine")

    with pytest.raises(fault, match="mine"):
        cases.Family(cases.BY_NAME["wan"], home).make(listener, cache=cache)


@pytest.mark.filterwarnings("ignore:the card of")
def test_a_denoiser_without_caches_says_so(home):
    case = cases.BY_NAME["animatediff"]
    reference = f"pretrained:{cases.folder(case, home)}"
    with pytest.raises(InvalidRequest, match="knows no caches"):
        generate(reference, cases.asked(case, reference, home, cache="pab"), device="cpu")


# --- LoRA, schedulers, single files ---


@pytest.fixture(scope="module")
def lora(folder, tmp_path_factory):
    """Two LoRAs for the tiny Wan, with weights that are not nought."""
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    homes = []
    for seed in (1, 2):
        with pipelines.quiet():
            pipeline = diffusers.WanPipeline.from_pretrained(str(folder))
            torch.manual_seed(seed)
            settings = LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
            pipeline.transformer.add_adapter(settings)
            state = get_peft_model_state_dict(pipeline.transformer)
            home = tmp_path_factory.mktemp(f"lora{seed}")
            diffusers.WanPipeline.save_lora_weights(str(home), transformer_lora_layers=state)
        homes.append(str(home / "pytorch_lora_weights.safetensors"))
    return homes


def test_loras_change_the_clip_by_their_scales(make, lora):
    plain = fingerprint(make()[0].frames)
    one, half, nothing, two, other = (
        fingerprint(make(lora=names, lora_scale=scales)[0].frames)
        for names, scales in (
            ([lora[0]], []), ([lora[0]], [0.5]), ([lora[0]], [0.0]), (lora, []), ([lora[1]], [1.0])
        )
    )  # fmt: skip
    assert nothing == plain
    assert len({plain, one, half, two, other}) == 5


def test_a_file_that_is_no_lora_is_refused_and_a_pickle_unread(make, lora, folder, tmp_path):
    with pytest.raises(InvalidRequest, match="is no LoRA"):
        make(lora=[str(folder / "vae" / "diffusion_pytorch_model.safetensors")])
    (tmp_path / "lora.bin").write_bytes(b"pickle")
    with pytest.raises(UnsafeModel):
        make(lora=[str(tmp_path / "lora.bin")])
    for names, scales, match in ((lora[:1], [1, 2], "2 scales for 1"), ([], [0.5], "1 scales for 0")):
        with pytest.raises(InvalidRequest, match=match):
            make(lora=names, lora_scale=scales)


@pytest.mark.filterwarnings("ignore:the card of")
def test_a_clip_notes_which_files_made_it_and_is_not_made_again_with_others(make, folder, lora, tmp_path):
    own, single = tmp_path / "own.safetensors", tmp_path / "single.safetensors"
    for _ in range(2):  # with the engine cold, and warm with the weights of before
        own.unlink(missing_ok=True)
        single.unlink(missing_ok=True)
        shutil.copy(lora[0], own)
        shutil.copy(folder / "transformer" / "diffusion_pytorch_model.safetensors", single)
        video = make(lora=[str(own)], checkpoint=str(single))[0]
        said = video.provenance.request.options
        assert tuple(said["lora_sha256"]) == (files.sha256(own),)
        assert said["checkpoint_sha256"] == files.sha256(single)
        assert reproduce(video, device="cpu").same
        own.unlink()  # written over in place it would change under the loaded model, which maps it
        shutil.copy(lora[1], own)
        with pytest.raises(InvalidRequest, match=r"own.safetensors is not the file that it was") as error:
            reproduce(video, device="cpu")
        assert error.value.field == "lora"
        other = make(lora=[str(own)], checkpoint=str(single))[0]  # a new request: the engine reads the file anew
        assert fingerprint(other.frames) != fingerprint(video.frames)
    own.unlink()
    with pytest.raises(InvalidRequest) as error:
        reproduce(other, device="cpu")
    assert error.value.hint == "it is not here"


def test_another_scheduler_is_taken_by_its_class_and_a_wrong_one_refused(make):
    plain = make()[0].frames
    for name in ("FlowMatchHeunDiscreteScheduler", "UniPCMultistepScheduler", "DPMSolverMultistepScheduler"):
        other = make(scheduler=name)[0].frames
        assert 0 < np.abs(other.astype(int) - plain).mean() < 30, name
    with pytest.raises(InvalidRequest, match="cannot stand in"):
        make(scheduler="FlowMatchHeun")


def test_a_pipeline_without_a_scheduler_is_given_none():
    with pytest.raises(InvalidRequest, match="has no scheduler"):
        adapters.schedule(object(), "FlowMatchHeunDiscreteScheduler")


def test_a_single_file_replaces_the_denoiser(make, folder, tmp_path):
    source = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    shutil.copy(source, tmp_path / "single.safetensors")
    assert fingerprint(make(checkpoint=str(tmp_path / "single.safetensors"))[0].frames) == fingerprint(make()[0].frames)
    with pytest.raises(InvalidRequest, match="holds no WanTransformer3DModel"):
        make(checkpoint=str(folder / "vae" / "diffusion_pytorch_model.safetensors"))


# --- memory ---


def test_a_shorter_number_format_is_near_and_recorded(make):
    exact, near = (make(dtype=dtype)[0] for dtype in ("float32", "bfloat16"))
    assert 0 < np.abs(exact.frames.astype(int) - near.frames).mean() < 3
    assert near.provenance.request.options["dtype"] == "bfloat16"


@pytest.mark.parametrize("means", [{"vae_slicing": True}, {"attention": "_native_math"}, {"offload": "group"}])
def test_means_that_only_move_things_change_little(make, means):
    exact, other = make()[0], make(**means)[0]
    assert np.abs(exact.frames.astype(int) - other.frames).max() <= 2


def test_weights_in_eight_bits_are_rounded_and_tiles_meet(make):
    exact, eight = make()[0], make(layerwise=True)[0]
    assert 0 < np.abs(exact.frames.astype(int) - eight.frames).mean() < 20
    assert make(vae_tiling=True)[0].frames.shape == exact.frames.shape


@pytest.mark.parametrize(
    ("means", "field"),
    [
        ({"offload": "model"}, "GPU"),
        ({"offload": "sequential"}, "GPU"),
        ({"attention": "magic"}, "attention"),
        ({"attention": "magic", "memory_budget": "8GB"}, "attention"),
    ],
)
def test_what_this_machine_cannot_do_is_refused_by_name(make, means, field):
    with pytest.raises(InvalidRequest, match=field):
        make(**means)


@pytest.mark.filterwarnings("ignore:the card of")
@pytest.mark.parametrize(
    ("name", "means", "match"),
    [
        ("modular_wan", {"quantize": "nf4"}, "is made of blocks"),
        ("modular_wan", {"checkpoint": "single.safetensors"}, "is made of blocks"),
        ("animatediff", {"quantize": "nf4"}, "AnimateDiffPipeline has no transformer"),
    ],
)
def test_what_could_do_nothing_is_refused_and_not_passed_over(home, name, means, match):
    with pytest.raises(InvalidRequest, match=match) as error:
        cases.Family(cases.BY_NAME[name], home).make(**means)
    assert error.value.field in means


@pytest.mark.parametrize(
    ("means", "package"),
    [
        ({"quantize": "nf4"}, "bitsandbytes"),
        ({"quantize": "quanto-int8"}, "optimum-quanto"),
        ({"quantize": "torchao-int8"}, "torchao"),
        ({"checkpoint": "some.gguf"}, "gguf"),
    ],
)
def test_quantisation_without_its_library_says_how_to_install_it(make, means, package, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InvalidRequest, match="not installed") as error:
        memory.quantization(means["quantize"]) if "quantize" in means else make(**means)
    assert error.value.hint == f"pip install {package}"


@pytest.mark.filterwarnings("ignore")  # torchao's own
def test_torchao_keeps_the_denoiser_in_eight_bits(make):
    exact, eight = make()[0], make(quantize="torchao-int8")[0]
    assert 0 < np.abs(exact.frames.astype(int) - eight.frames).mean() < 20
    weight = warm.get(eight.provenance.engine, "cpu", eight.provenance.weights)._pipeline.transformer.blocks[0].ffn
    assert {type(p).__name__ for p in weight.parameters() if p.ndim == 2} == {"Int8Tensor"}


def test_a_gguf_file_replaces_the_denoiser(make, folder, tmp_path):
    import gguf

    writer = gguf.GGUFWriter(str(tmp_path / "wan.gguf"), "wan")
    for name, value in load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors").items():
        short = value.ndim == 2 and value.shape[1] % 32 == 0
        kind = gguf.GGMLQuantizationType.Q8_0 if short else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(value.numpy(), kind), raw_dtype=kind)
    for write in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        write()
    exact, eight = make()[0], make(checkpoint=str(tmp_path / "wan.gguf"))[0]
    assert 0 < np.abs(exact.frames.astype(int) - eight.frames).mean() < 20


def test_a_budget_says_what_it_chose(make):
    _, said = make(memory_budget="8GB")
    assert said == ["for 8GB: float32"]
    with pytest.raises(InvalidRequest, match="do not fit") as error:
        make(memory_budget="0.01MB")
    assert "the least is about" in error.value.hint


def test_the_command_has_a_budget_and_says_what_it_chose(folder, tmp_path):
    from typer.testing import CliRunner

    from kinetograph.cli.commands import app

    asked = ["--engine", f"pretrained:{folder}", "--size", f"{SIDE}x{SIDE}", "--frames", "1", "--set", "steps=1"]
    out = tmp_path / "ball.npz"
    done = CliRunner().invoke(
        app, ["generate", "a red ball", *asked, "--device", "cpu", "--memory-budget", "8GB", "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    assert "for 8GB: float32" in done.stderr
    assert Video.load(out).provenance.request.options["memory_budget"] == "8GB"
    refused = CliRunner().invoke(app, ["generate", "a red ball", "--engine", "gan", "--memory-budget", "8GB"])
    assert refused.exit_code == 2
    assert "memory_budget" in refused.stderr


def test_the_smaller_the_budget_the_more_is_done():
    parts = {"transformer": 1_300_000_000, "text_encoder": 5_700_000_000, "vae": 100_000_000}
    chosen = [memory.choose(parts, int(size * 1e9), "cuda:0", "bfloat16").said() for size in (24, 16, 4, 1)]
    tail = "vae_tiling, vae_slicing"
    assert chosen[0] == "bfloat16"
    assert chosen[1] == f"bfloat16, offload=model, {tail}"
    assert chosen[2] == f"bfloat16, offload=group, {tail}"
    heavy = {"transformer": 14_000_000_000, "text_encoder": 5_700_000_000}
    assert (
        memory.choose(heavy, 20 * 10**9, "cuda:0", "bfloat16").said() == f"bfloat16, offload=model, layerwise, {tail}"
    )
    with pytest.raises(InvalidRequest, match="do not fit"):
        memory.choose(heavy, 10**9, "cuda:0", "bfloat16")
    plainly = [memory.choose(parts, int(size * 1e9), "cuda:0", "float16", plainly=True).said() for size in (24, 16)]
    assert plainly == ["float16", "float16, offload=model"]
    with pytest.raises(InvalidRequest, match="do not fit"):
        memory.choose(parts, 4 * 10**9, "cuda:0", "float16", plainly=True)


def test_weights_are_counted_without_loading_them(folder):
    with pipelines.quiet():
        pipeline = diffusers.WanPipeline.from_pretrained(str(folder))
    counted = memory.numbers(folder)
    for name in ("transformer", "vae", "text_encoder"):
        assert counted[name] == sum(p.numel() for p in getattr(pipeline, name).parameters())


@pytest.mark.parametrize(("text", "size"), [("8GB", 8e9), ("8", 8e9), ("500 MB", 5e8), ("1.5g", 1.5e9), ("8GiB", 8e9)])
def test_a_budget_is_a_number_of_bytes(text, size):
    assert memory.parse_budget(text) == size


@pytest.mark.parametrize("text", ["much", "-1GB", "0", "nan", "inf"])
def test_a_budget_that_is_none_is_refused(text):
    with pytest.raises(InvalidRequest, match="memory_budget"):
        memory.parse_budget(text)


# --- blends ---


def test_frames_between_frames_are_blends(make):
    made, _ = make(frames=9, blend=2)
    fewer = describe(made.provenance.engine).request(
        "a red ball", seed=3, width=SIDE, height=SIDE, frames=5, options={"steps": 2}, fps=Fraction(8)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        real = generate(made.provenance.engine, fewer, device="cpu")
    assert np.array_equal(made.frames[::2], real.frames)
    middle = (real.frames[:-1].astype(float) + real.frames[1:]) / 2
    assert np.abs(made.frames[1::2] - middle).max() <= 0.5
    assert made.provenance.request.options["blend"] == 2


@pytest.mark.parametrize(("frames", "near"), [(7, 9), (10, 9), (14, 17)])
def test_a_number_of_frames_that_blends_do_not_make_is_refused(frames, near):
    with pytest.raises(InvalidRequest) as error:
        blending.fewer(frames, 2, 1, 4)
    assert error.value.hint == f"nearest: {near}"
    assert blending.fewer(near, 2, 1, 4) == (near - 1) // 2 + 1


# --- steps ---


def test_a_bar_goes_over_whatever_a_pipeline_counts_with():
    """SANA-WM counts with a tensor, which has no truth."""
    told = []
    listener = stepping.Listener(lambda *said: told.append(said[:2]))
    assert [int(item) for item in stepping.Bar(listener, torch.arange(3), None)] == [0, 1, 2]
    assert told == [(1, 3), (2, 3), (3, 3)]


class Opening:
    """A block that opens bars."""

    def progress_bar(self, iterable=None, total=None):
        raise AssertionError("nobody listens")


def test_the_bar_of_a_block_counts_and_not_the_schedulers_of_picture_and_sound():
    """LTX-2 and MiniMax-H3 step two schedulers at each of their steps, under one bar."""
    schedulers = [diffusers.FlowMatchEulerDiscreteScheduler() for _ in range(2)]
    inner = Opening()
    blocks = SimpleNamespace(sub_blocks={"denoise": SimpleNamespace(sub_blocks={"loop": inner})})
    components = {"scheduler": schedulers[0], "audio_scheduler": schedulers[1]}
    pipeline, told, x = SimpleNamespace(_blocks=blocks, components=components), [], torch.zeros(1, 2)
    with stepping.listening(pipeline, lambda *said: told.append(said[:2])):
        for scheduler in schedulers:
            scheduler.set_timesteps(2)
        for time in inner.progress_bar(list(schedulers[0].timesteps)):
            for scheduler in schedulers:
                scheduler.step(x, time, x)
    assert told == [(1, 2), (2, 2)]
    assert "progress_bar" not in vars(inner)


def test_tokens_are_of_the_kinds_that_transformers_says(home):
    words = cases.folder(cases.BY_NAME["modular_minimax_h3"], home) / "processor"
    ours = seeing.Processor(words)
    start, image, video, end = ours.tokenizer.convert_tokens_to_ids(tiny.VISION)
    texts = [[5, start, image, image, end, 6], [video, 7]]
    theirs = SimpleNamespace(image_token_ids=[image], video_token_ids=[video], audio_token_ids=[None])
    assert ours.create_mm_token_type_ids(texts) == ProcessorMixin.create_mm_token_type_ids(theirs, texts)


@pytest.mark.filterwarnings("ignore:the card of")
def test_a_picture_sets_minimax_in_motion_and_its_second_denoiser_is_not_asked_for(home):
    """Its index promises transformer_ref, which is nowhere here: it is for references, which no request can name."""
    family = cases.Family(cases.BY_NAME["modular_minimax_h3"], home)
    assert "transformer_ref" in json.loads((Path(family.reference[11:]) / "modular_model_index.json").read_text())
    picture = cases.beginning(cases.Case("a picture", family.case.side, start="image"), home)
    begun = family.make(start=str(picture))
    assert begun.frames.shape == (124, 32, 32, 3)
    assert fingerprint(begun.frames) != fingerprint(family.make().frames)


@pytest.mark.filterwarnings("ignore:the card of")
def test_a_pipeline_of_blocks_is_given_up_without_a_word(home):
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logging.getLogger("diffusers").addHandler(handler)
    try:
        assert cases.Family(cases.BY_NAME["modular_wan"], home).given_up
    finally:
        logging.getLogger("diffusers").removeHandler(handler)
    assert said.getvalue() == ""


@pytest.mark.filterwarnings("ignore:the card of")
def test_cosmos_made_of_blocks_asks_its_guardrail(home, monkeypatch):
    monkeypatch.setattr(tiny.Checker, "check_text_safety", lambda self, prompt: False)
    with pytest.raises(InvalidRequest, match="refuses this request"):
        cases.Family(cases.BY_NAME["modular_cosmos3"], home).make()


# --- several processes ---


@pytest.mark.slow
def test_two_processes_make_the_clip_of_one(make, folder, tmp_path):
    asked = ["--engine", f"pretrained:{folder}", "--size", f"{SIDE}x{SIDE}", "--frames", str(FRAMES), "--seed", "3"]
    asked += ["--set", "steps=2", "--set", "context_parallel=2", "--device", "cpu", "--out", str(tmp_path / "two.npz")]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "kinetograph", "generate", "a red ball", *asked], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    two = Video.load(tmp_path / "two.npz")
    assert np.abs(two.frames.astype(int) - make()[0].frames).max() <= 1
    assert two.provenance.request.options["context_parallel"] == 2


def test_one_process_is_not_two(make):
    with pytest.raises(InvalidRequest, match="needs 2 processes, not 1") as error:
        make(context_parallel=2)
    assert error.value.hint.startswith("torchrun --nproc-per-node 2")
