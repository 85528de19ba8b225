"""DreamBooth: what learns and what stays, exact resume, files that diffusers loads, folders that are refused."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from kinetograph import weights
from kinetograph.errors import Interrupted, InvalidRequest, TrainingError, WeightsError
from kinetograph.neural.pictures.folder import quiet
from kinetograph.neural.training import dreambooth, recipes, run

PROMPT, PRIOR = "a photo of sks dog", "a photo of a dog"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rex")
    rng = np.random.default_rng(0)
    for index, size in enumerate([(70, 64), (64, 90), (128, 128)]):
        small = rng.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(small).resize(size).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def tiny(picture_model, images, tmp_path):
    """A recipe of a few steps on a tiny model; `tiny(rank=4)` changes it."""
    prior = tmp_path / "dogs"
    prior.mkdir()
    for index in range(2):
        Image.new("RGB", (64, 64), (90 * index, 120, 60)).save(prior / f"{index}.png")

    def made(**changes):
        few = {"steps": 6, "batch": 2, "rate": 1e-3, "size": 64, "save_every": 3, "sample_every": 6, "log_every": 1}
        said = {"model": str(picture_model("sd")), "images": str(images), "prompt": PROMPT, "prior_prompt": PRIOR}
        return dreambooth.Recipe(
            **{**few, "warmup": 1, **said, "prior_images": str(prior), "bfloat16": False, **changes}
        )

    return made


def lines(folder):
    return [json.loads(line) for line in (folder / run.METRICS).read_text().splitlines()]


def trainer(recipe, folder):
    return dreambooth.Trainer(recipe.settled(folder), torch.device("cpu"), run.Processes())


def unet(folder):
    return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")


def pipeline(folder):
    from diffusers import StableDiffusionPipeline

    with quiet():
        return StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, use_safetensors=True)


def test_the_whole_model_learns_and_its_unet_alone_changes(tiny, tmp_path):
    recipe = tiny()
    recipe.train(tmp_path / "run", device="cpu")
    source, made = dreambooth.Path(recipe.model), tmp_path / "run"
    before, after = unet(source), unet(made)
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)
    for part in ("vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors", "model_index.json"):
        assert (made / part).read_bytes() == (source / part).read_bytes()
    assert pipeline(made).unet.config.in_channels == 4
    assert (made / "samples" / "000006.png").exists()
    assert "`a photo of sks dog`" in (made / "README.md").read_text()
    assert not [path for path in made.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("changes", [{}, {"rank": 2}], ids=["whole", "lora"])
def test_the_loss_falls(tiny, tmp_path, changes):
    teacher = trainer(tiny(rate=3e-3, steps=60, batch=4, **changes), tmp_path / "run")

    def error():
        with torch.no_grad():
            return float(teacher._error(teacher.own, 1_000, range(48), 0))

    before = error()
    for step in range(1, 61):
        teacher.step(step)
    assert error() < (0.97 if changes else 0.9) * before


def test_a_resumed_run_takes_the_very_steps_that_would_have_come(tiny, tmp_path):
    for kind, changes in {"whole": {"words": True, "mirrored": True}, "lora": {"rank": 2}}.items():
        recipe = tiny(**changes)
        recipe.train(tmp_path / kind / "whole", device="cpu")

        def stop(step):
            if step.step == 3:
                raise Interrupted("enough")

        with pytest.raises(Interrupted):
            recipe.train(tmp_path / kind / "parts", device="cpu", on_step=stop)
        recipe.train(tmp_path / kind / "parts", device="cpu", resume=True)
        one, two = (load_file(tmp_path / kind / name / run.STATE) for name in ("whole", "parts"))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)
        assert [row["loss"] for row in lines(tmp_path / kind / "whole")] == [
            row["loss"] for row in lines(tmp_path / kind / "parts")
        ]


def test_lora_is_a_small_file_that_diffusers_loads_and_that_moves_attention_alone(tiny, tmp_path):
    recipe = tiny(rank=2)
    recipe.train(tmp_path / "run", device="cpu")
    assert not (tmp_path / "run" / "unet").exists()
    low = load_file(tmp_path / "run" / dreambooth.LORA)
    assert all(".attn" in name and ".lora" in name for name in low)
    assert max(min(tensor.shape) for tensor in low.values()) == 2
    pictures, told = pipeline(recipe.model), (torch.randn(1, 4, 8, 8), 10, torch.randn(1, 5, 16))
    teacher = trainer(recipe, tmp_path / "again")
    run.load_state(tmp_path / "run", teacher.parts)
    with torch.no_grad():
        plain = pictures.unet(*told).sample
        with quiet():
            pictures.load_lora_weights(tmp_path / "run")
        changed, learnt = pictures.unet(*told).sample, teacher.pictures.network(*told).sample
    assert not torch.allclose(plain, changed, atol=1e-4)
    assert torch.allclose(changed, learnt, atol=1e-5)
    frozen = {name: p for name, p in teacher.pictures.network.named_parameters() if "lora" not in name}
    before = unet(dreambooth.Path(recipe.model))
    assert all(torch.equal(p, before[name.replace(".base_layer", "")]) for name, p in frozen.items())


def test_the_loss_is_what_the_model_was_trained_for(tiny, tmp_path, picture_model):
    """Of a model of v the target is another: with the same network, noise and times, another loss."""
    one = trainer(tiny(), tmp_path / "a").step(1)["own"]
    other = trainer(tiny(model=str(picture_model("sd2-v"))), tmp_path / "b").step(1)["own"]
    assert one != other


def test_a_larger_family_learns_too(tiny, tmp_path, picture_model):
    from diffusers import StableDiffusionXLPipeline

    recipe = tiny(model=str(picture_model("sdxl")), rank=2, steps=2)
    recipe.train(tmp_path / "low", device="cpu")
    with quiet():
        pictures = StableDiffusionXLPipeline.from_pretrained(recipe.model, local_files_only=True)
        pictures.load_lora_weights(tmp_path / "low")
    assert pictures.get_active_adapters()
    tiny(model=recipe.model, steps=2).train(tmp_path / "whole", device="cpu")
    with quiet():
        StableDiffusionXLPipeline.from_pretrained(tmp_path / "whole", local_files_only=True)
    with pytest.raises(TrainingError, match="one text encoder"):
        tiny(model=recipe.model, words=True).train(tmp_path / "more", device="cpu")


def test_the_prior_weighs_what_it_should(tiny, tmp_path):
    figures = trainer(tiny(prior_weight=0.5), tmp_path / "a").step(1)
    assert figures["loss"] == pytest.approx(figures["own"] + 0.5 * figures["prior"])
    assert "prior" not in trainer(tiny(prior_prompt=""), tmp_path / "b").step(1)


def test_pictures_of_the_kind_are_made_once_and_the_same_for_a_model(tiny, tmp_path):
    recipe = tiny(prior_images="", prior_count=2, steps=1)
    recipe.train(tmp_path / "run", device="cpu")
    made = sorted((tmp_path / "run-prior").glob("*.png"))
    assert [path.name for path in made] == ["00000.png", "00001.png"]
    first, second = (path.read_bytes() for path in made)
    assert first != second
    made[1].unlink()
    recipe.train(tmp_path / "run", device="cpu", resume=True)
    assert made[1].read_bytes() == second
    with pytest.raises(TrainingError, match="another model or sentence"):
        dataclasses.replace(recipe, prior_prompt="a cat").train(tmp_path / "run", device="cpu")


def test_making_those_pictures_stops_cleanly_and_goes_on(tiny, tmp_path, monkeypatch):
    from contextlib import contextmanager

    asked = []

    @contextmanager
    def stopping():
        yield lambda: asked.append(1) or len(asked) > 1

    recipe = tiny(prior_images="", prior_count=3, steps=1)
    with monkeypatch.context() as patch:
        patch.setattr(run, "stopping", stopping)
        with pytest.raises(Interrupted, match="1 of 3 pictures"):
            recipe.train(tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()
    assert len([*(tmp_path / "run-prior").glob("*.png")]) == 1
    recipe.train(tmp_path / "run", device="cpu")
    assert len([*(tmp_path / "run-prior").glob("*.png")]) == 3


def test_a_precision_is_kept(tiny, tmp_path, picture_model):
    half = tmp_path / "half"
    pipeline(picture_model("sd")).to(dtype=torch.float16).save_pretrained(half, variant="fp16", safe_serialization=True)
    tiny(model=str(half), steps=1).train(tmp_path / "run", device="cpu")
    stored = load_file(tmp_path / "run" / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_folder_of_pictures_that_is_none_is_refused(tiny, tmp_path, images):
    with pytest.raises(TrainingError, match="no folder of pictures"):
        tiny(images=str(tmp_path / "none")).train(tmp_path / "run")
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "a.txt").write_text("hello")
    with pytest.raises(TrainingError, match="holds 0 pictures") as error:
        tiny(images=str(bad)).train(tmp_path / "run")
    assert ".txt" in error.value.hint
    whole = (images / "2.png").read_bytes()
    (bad / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TrainingError, match=r"cut\.png cannot be read"):
        tiny(images=str(bad)).train(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_model_that_is_none_is_refused(tiny, tmp_path, picture_model):
    for folder, said in ((tmp_path, "no text-to-image model"), (picture_model("pix2pix"), "InstructPix2Pix")):
        with pytest.raises(WeightsError, match=said):
            tiny(model=str(folder)).train(tmp_path / "run")
    broken = shutil.copytree(picture_model("sd"), tmp_path / "broken")
    (broken / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=r"vae.diffusion_pytorch_model\.safetensors is damaged"):
        tiny(model=str(broken)).train(tmp_path / "run")
    shutil.rmtree(broken / "unet")
    with pytest.raises(WeightsError, match="unet is missing"):
        tiny(model=str(broken)).train(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_model_of_the_package_goes_by_its_name(images, tmp_path):
    recipe = dataclasses.replace(
        recipes.get("dreambooth"), model=weights.POCKET, images=str(images), prompt="a sks dog", size=128
    )
    assert recipe.settled(tmp_path / "run").model == str(weights.HERE / weights.POCKET)


def test_a_run_does_not_go_on_with_other_pictures(tiny, tmp_path, images):
    own = shutil.copytree(images, tmp_path / "own")
    tiny(images=str(own), steps=1).train(tmp_path / "run", device="cpu")
    (own / "0.png").unlink()
    with pytest.raises(TrainingError, match="another recipe") as error:
        tiny(images=str(own)).train(tmp_path / "run", device="cpu", resume=True)
    assert "images_sha256" in error.value.hint


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": ""}, "its images"),
        ({"prompt": "", "model": ""}, "its model nor its prompt"),
        ({"size": 60}, "nearest: 64"),
        ({"rank": -1}, "rank"),
        ({"rank": 2, "words": True}, "rank"),
        ({"prior_prompt": PROMPT}, "rare word"),
    ],
)
def test_recipes_that_cannot_be_are_refused(tiny, tmp_path, changes, said):
    with pytest.raises(TrainingError) as error:
        tiny(**changes).train(tmp_path / "run")
    assert said in f"{error.value} {error.value.hint}"


def test_settings_of_a_recipe_may_be_replaced():
    recipe = recipes.get("dreambooth-lora", {"images": "rex", "steps": 5, "rate": 1e-5})
    assert (recipe.images, recipe.steps, recipe.rank) == ("rex", 5, 8)
    with pytest.raises(InvalidRequest) as error:
        recipes.get("dreambooth", {"imagse": "rex"})
    assert "images" in error.value.hint
    with pytest.raises(InvalidRequest, match="batch"):
        recipes.get("dreambooth", {"batch": "many"})
    assert recipes.get("flow-tiny", {"steps": 3}).sizes == recipes.get("flow-tiny").sizes
