"""The picture models that come with the package, as they are: whole, small, read by plain diffusers, and obeying."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from kinetograph import Video, hub, weights
from kinetograph.cli.commands import app
from kinetograph.engine import describe, generate
from kinetograph.neural import sampling
from kinetograph.neural.pictures import folder
from kinetograph.neural.training import stills
from kinetograph.neural.zeroshot import loop
from kinetograph.worlds import critters

MEGABYTES = 60  # that all weights of the package may weigh
COMPANIONS = ["pocket-depth", "pocket-edge", "pocket-edit", "pocket-pose"]
FEW = ["--set", "steps=2", "--device", "cpu", "--seed", "1", "--force"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A clip of the world, its depth and its skeletons."""
    scene, home = critters.sample(np.random.default_rng(1)), tmp_path_factory.mktemp("clips")
    for kind in ("draw", "depth", "pose"):
        Video(getattr(critters, kind)([scene], 2, 128, 128)[0], 4).save(home / f"{kind}.npz")
    return home


def run(*arguments):
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result


def test_the_package_has_them_and_all_its_weights_are_small():
    assert weights.pictures() == sorted([weights.POCKET, *COMPANIONS])
    size = sum(path.stat().st_size for path in weights.HERE.rglob("*.safetensors"))
    assert size < MEGABYTES * 1e6


@pytest.mark.parametrize("name", [weights.POCKET, *COMPANIONS])
def test_each_is_what_its_sums_say_and_has_a_card_with_a_licence(name):
    model = hub.locate(weights.path_of(name))  # compares the sums
    assert {path.relative_to(model.path).as_posix() for path in model.path.rglob("*.safetensors")} <= set(
        weights.declared(model.path, "")
    )
    assert model.licence == "apache-2.0"
    settings = [path.read_text(encoding="utf-8") for path in model.path.rglob("*.json")]
    assert not any("_name_or_path" in text for text in settings)  # nor a folder of the machine that made it


def test_plain_diffusers_makes_the_same_picture():
    from diffusers import StableDiffusionPipeline

    path = weights.HERE / weights.POCKET
    theirs = StableDiffusionPipeline.from_pretrained(path, local_files_only=True)
    theirs.set_progress_bar_config(disable=True)
    start = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(1))
    sentence = "a white cat on the beach"
    # five steps: where 1000 is no multiple, diffusers' DDIM goes to other levels than it then asks its network about
    wanted = theirs(sentence, latents=start, num_inference_steps=5, guidance_scale=2.0, output_type="np").images[0]
    ours = folder.load(path, "sd", "float32", torch.device("cpu"))
    words = ours.words([sentence], 128, 128), ours.words([""], 128, 128, negative=True)
    denoise = loop.frames_denoiser(ours.predict, ours.prediction, loop.guided(*words, 2.0))
    latents = sampling.sample(denoise, start[:, :, None], ours.levels(5, clean=True), "ddim")
    found = (ours.decode(latents[:, :, 0])[0].permute(1, 2, 0) / 2 + 0.5).clamp(0, 1)
    assert wanted.shape == (128, 128, 3)
    assert np.abs(found.detach().numpy() - wanted).max() < 1e-3


def test_a_sentence_is_enough(tmp_path):
    told = ["a white cat on the beach", "--engine", "zero", "--set", "motion=0.1,0", "--frames", "3"]
    run("generate", *told, *FEW, "--out", tmp_path / "cat.gif")
    made = Video.load(tmp_path / "cat.gif")
    assert made.frames.shape == (3, 128, 128, 3)
    assert made.provenance.engine == "zero"
    assert (made.frames[0] != made.frames[2]).any()


@pytest.mark.parametrize(("kind", "shown"), [("edge", "draw"), ("depth", "depth"), ("pose", "pose")])
def test_a_control_needs_no_further_argument(kind, shown, clip, tmp_path):
    told = ["a white cat on the beach", "--engine", "zero", "--control", f"{kind}={clip / shown}.npz"]
    run("generate", *told, *FEW, "--out", tmp_path / "cat.npz")
    made = Video.load(tmp_path / "cat.npz")
    assert made.frames.shape == (2, 128, 128, 3)
    assert f"pocket-{kind}" in json.dumps(made.provenance.request.options["control"])


def test_an_edit_needs_no_further_argument(clip, tmp_path):
    run("edit", clip / "draw.npz", "make it night", *FEW, "--out", tmp_path / "night.npz")
    made = Video.load(tmp_path / "night.npz")
    assert made.frames.shape == (2, 128, 128, 3)
    assert made.provenance.engine == "zero:pocket-edit"


def test_its_pictures_show_the_place_that_a_sentence_names():
    info = describe("zero")
    prompts = [prompt for prompt in stills.prompts(critters, 3, 8, "heldout") if "place" in critters.parse(prompt)]
    asked = [critters.parse(prompt) for prompt in prompts]
    made = [
        generate("zero", info.request(prompt, seed=2, frames=1, options={"steps": 10}), device="cpu").frames[0]
        for prompt in prompts
    ]
    seen = [critters.glimpse(frame, said)["place"] for frame, said in zip(made, asked, strict=True)]
    hits, strange = (
        sum(place == said["place"] for place, said in zip(seen, order, strict=True))
        for order in (asked, asked[1:] + asked[:1])
    )
    assert hits == len(asked)
    assert strange < len(asked)
