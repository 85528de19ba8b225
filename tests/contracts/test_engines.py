"""What every engine on the shelf keeps to, whoever wrote it."""

import json
from fractions import Fraction

import pytest
import torch
from pydantic import ValidationError

from kinetograph.engine import Options, describe, generate, warm
from kinetograph.errors import Cancelled, InvalidRequest
from kinetograph.neural.training import recipes
from kinetograph.request import VideoRequest
from kinetograph.shelf import ENGINES
from kinetograph.video import Video, fingerprint

PROMPT = "a red ball moving left"


@pytest.fixture(scope="session")
def tiny_flow(tmp_path_factory):
    """The engine whose own weights take seconds, with some that take none."""
    folder = tmp_path_factory.mktemp("flow") / "run"
    recipes.get("flow-tiny").train(folder, device="cpu", steps=2)
    return f"flow:{folder}"


@pytest.fixture(scope="session")
def tiny_pretrained(tmp_path_factory):
    """The engine of other people's weights, with random ones in their place: a few pixels, four frames."""
    from diffusers import AutoencoderKL, DDIMScheduler, TextToVideoSDPipeline, UNet3DConditionModel
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

    from kinetograph.neural.pretrained.pipelines import quiet

    folder = tmp_path_factory.mktemp("pretrained") / "model"
    words = Tokenizer(WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>"))
    with quiet():
        torch.manual_seed(0)
        unet = UNet3DConditionModel(
            block_out_channels=(8, 8),
            layers_per_block=1,
            sample_size=8,
            norm_num_groups=4,
            down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
            up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
            cross_attention_dim=32,
            attention_head_dim=4,
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 8),
            norm_num_groups=4,
            down_block_types=["DownEncoderBlock2D"] * 2,
            up_block_types=["UpDecoderBlock2D"] * 2,
        )
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=8, hidden_size=32, intermediate_size=8, num_hidden_layers=1, num_attention_heads=4
            )
        )
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=words, model_max_length=77, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
        )
        scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
        parts = {"vae": vae, "text_encoder": text, "tokenizer": tokenizer, "unet": unet, "scheduler": scheduler}
        TextToVideoSDPipeline(**parts).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return f"pretrained:{folder}"


@pytest.fixture(scope="session")
def tiny_zero(picture_model):
    """The engine that takes a picture model of the user's: one of random weights."""
    return f"zero:{picture_model('sd')}"


@pytest.fixture(params=ENGINES.names())
def info(request):
    own = {"flow": "tiny_flow", "pretrained": "tiny_pretrained", "zero": "tiny_zero"}
    reference = request.getfixturevalue(own[request.param]) if request.param in own else request.param
    yield describe(reference)  # bundled weights that are missing are a failure, not a reason to look away
    warm.clear()


def make(info, **more):
    return generate(info.reference, info.request(PROMPT, seed=7), device="cpu", **more)


def test_an_engine_describes_itself(info):
    assert info.reference.partition(":")[0] in ENGINES
    assert info.summary.strip()
    assert info.licence.strip()
    assert isinstance(info.fps, Fraction)


def test_its_defaults_are_legal(info):
    request = info.request(PROMPT, seed=7)
    assert info.check(request) == request
    assert VideoRequest.from_dict(json.loads(json.dumps(request.to_dict()))) == request


def test_its_options_are_frozen_complete_and_refuse_strangers(info):
    assert issubclass(info.Options, Options)
    options = info.Options()  # every option has a default
    with pytest.raises(ValidationError):
        info.Options(no_such_option=1)
    for name in info.Options.model_fields:
        with pytest.raises(ValidationError):
            setattr(options, name, None)
    json.dumps(info.Options.model_json_schema())  # from which the page grows its form


FRAMES = {  # the options that take a picture which comes first, a clip which comes first, a clip to change
    "flow": ("start", "start", ""),
    "pretrained": ("", "", "start"),  # ModelScope's
    "zero": ("start", "", "source"),
}


def test_what_it_does_with_frames_is_said_by_the_option_that_names_them(info):
    taken = info.begins, info.continues, info.edits
    assert taken == FRAMES.get(info.reference.partition(":")[0], ("", "", ""))
    assert all({name, f"{name}_sha256"} <= set(info.Options.model_fields) for name in taken if name)


def test_what_it_cannot_do_it_refuses(info):
    with pytest.raises(InvalidRequest, match="frames"):
        info.request(PROMPT, frames=info.max_frames + 1)
    with pytest.raises(InvalidRequest) as refusal:
        info.request(PROMPT, width=info.sizes.maximum + 1, frames=info.min_frames)
    assert "nearest" in refusal.value.hint


@pytest.mark.slow
def test_it_makes_what_was_asked_for_and_the_same_seed_makes_it_again(info):
    told = []
    one, two = make(info, on_progress=told.append), make(info)
    assert fingerprint(one.frames) == fingerprint(two.frames)
    assert one.frames.shape == (info.frames, info.height, info.width, 3)
    assert one.provenance.weights == info.weights
    assert one.provenance.device == "cpu"
    steps = [progress.step for progress in told]
    assert steps == sorted(steps)
    assert told[-1].step == told[-1].steps


@pytest.mark.slow
def test_another_seed_makes_another_video(info):
    other = generate(info.reference, info.request(PROMPT, seed=8), device="cpu")
    assert fingerprint(other.frames) != fingerprint(make(info).frames)


@pytest.mark.slow
def test_it_can_be_given_up(info):
    def give_up(progress):
        raise Cancelled

    with pytest.raises(Cancelled):
        make(info, on_progress=give_up)


@pytest.mark.slow
def test_its_video_survives_a_file(info, tmp_path):
    video = make(info)
    loaded = Video.load(video.save(tmp_path / "a.npz"))
    assert loaded.provenance == video.provenance
