"""The models that come with the package: what their short names mean. Tiny random models stand in for the real ones."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from kinetograph import Video, controls, footage, hub, weights
from kinetograph.cli.commands import app
from kinetograph.controls import Control
from kinetograph.engine import describe, generate, reproduce, warm
from kinetograph.engines import zero
from kinetograph.errors import WeightsError
from kinetograph.worlds import critters

FEW = {"steps": 2, "chunk": 3}


@pytest.fixture
def package(picture_model, tmp_path, monkeypatch):
    """A package with a pocket model, and with two of its companions: edges and edits."""
    home = tmp_path / "weights"
    for kind, name in (("sd", "pocket-image"), ("controlnet", "pocket-edge"), ("pix2pix", "pocket-edit")):
        shutil.copytree(picture_model(kind), home / name)
        weights.seal(
            home / name, (path for path in (home / name).rglob("*") if path.suffix in (".safetensors", ".json"))
        )
    monkeypatch.setattr(weights, "HERE", home)
    warm.clear()
    yield home
    warm.clear()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    import numpy as np

    frames = critters.draw([critters.sample(np.random.default_rng(1))], 3, 64, 64)[0]
    return Video(frames, 8).save(tmp_path_factory.mktemp("clips") / "clip.npz")


def make(reference, settings=None, prompt="a cat", **options):
    given = dict(settings or {})
    said = {**FEW, **given.pop("options", {}), **options}
    info = describe(reference)
    return generate(reference, info.request(prompt, seed=3, options=said, **given), device="cpu")


def test_without_a_name_the_engine_has_the_model_of_the_package(package):
    info = describe("zero")
    assert info.reference == "zero"
    assert info.weights == hub.digest(package / "pocket-image")
    assert info.settled({}).items() >= {"guidance": 2.0, "t": 200, "t_prime": 200, "keep": 0.125}.items()
    assert (
        info.settled({}).items()
        >= {"sampler": "ddim", "eta": 1.0, "eta_above": 500, "steps": 16, "moved": "pixels"}.items()
    )
    assert info.settled({"sampler": "unipc"})["eta"] == 0.0
    assert info.settled({"sampler": "ddim", "eta": 0.5})["eta"] == 0.5
    video = make("zero")
    assert video.frames.shape[1:] == (64, 64, 3)
    assert (video.frames == make("zero:pocket-image").frames).all()
    assert "picture model of the package" in info.summary
    assert zero.references()[0] == "zero:pocket-edit"
    listed = json.loads(CliRunner().invoke(app, ["engines", "--json"]).stdout)["engines"]
    assert [row["name"] for row in listed].count("zero") == 1


def test_the_frames_after_the_first_are_moved_as_pixels_or_as_latents(package):
    pixels, latents = (make("zero", moved=moved).frames for moved in ("pixels", "latents"))
    assert (pixels == make("zero").frames).all()
    assert (pixels[0] == latents[0]).all()
    assert (pixels[1:] != latents[1:]).any()


def test_a_control_that_names_no_network_has_the_companion_of_the_package(package, clip):
    settings = controls.settings([Control.parse(f"edge={clip}")])
    video = make("zero", settings)
    noted = Control.parse(video.provenance.request.options["control"][0])
    assert noted.weights == "pocket-edge"
    assert noted.weights_sha256 == hub.digest(package / "pocket-edge")
    assert (
        video.frames == make("zero", controls.settings([Control.parse(f"edge={clip},weights=pocket-edge")])).frames
    ).all()
    assert (video.frames != make("zero", controls.settings([Control.parse(f"edge={clip},scale=0")])).frames).any()


def test_a_controlled_clip_is_made_again(package, clip, tmp_path):
    video = make("zero", controls.settings([Control.parse(f"edge={clip}")]))
    assert reproduce(video.save(tmp_path / "a.npz"), device="cpu").same


def test_a_model_that_was_made_from_it_has_its_companions_too(package, clip, tmp_path):
    shutil.copytree(package / "pocket-image", tmp_path / "rex")
    video = make(f"zero:{tmp_path / 'rex'}", controls.settings([Control.parse(f"edge={clip}")]))
    assert "weights=pocket-edge" in video.provenance.request.options["control"][0]


def test_a_model_of_another_shape_has_the_companions_of_its_own_family(package, clip, picture_model):
    info = describe(f"zero:{picture_model('sdxl')}")
    options = controls.settings([Control.parse(f"edge={clip}")])["options"]
    assert controls.WEIGHTS["edge"] in info.settled(options)["control"][0]
    assert info.settled({})["steps"] == 30


def test_a_companion_that_is_not_there_is_named_with_what_to_do(package, clip):
    with pytest.raises(WeightsError, match="pocket-pose") as error:
        make("zero", controls.settings([Control.parse(f"pose={clip}")]))
    assert "train it: the recipe pocket-pose" in error.value.hint


def test_a_file_of_the_package_that_was_altered_is_refused(package):
    path = next((package / "pocket-image" / "unet").glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="altered"):
        describe("zero")


def test_an_edit_has_the_model_of_edits_of_the_package(package, clip, tmp_path):
    arguments = [
        "edit",
        str(clip),
        "make it night",
        "--out",
        str(tmp_path / "a.npz"),
        "--seed",
        "3",
        "--set",
        "steps=2",
    ]
    result = CliRunner().invoke(app, [*arguments, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    video = Video.load(tmp_path / "a.npz")
    assert video.provenance.engine == "zero:pocket-edit"
    assert (video.frames == make("zero:pocket-edit", footage.from_source(clip), "make it night", chunk=8).frames).all()


def test_without_the_model_of_edits_the_command_says_so(package, clip, tmp_path):
    shutil.rmtree(package / "pocket-edit")
    result = CliRunner().invoke(app, ["edit", str(clip), "make it night", "--out", str(tmp_path / "a.npz")])
    assert result.exit_code != 0
    assert "pocket-edit" in result.output
