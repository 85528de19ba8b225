"""Companions of a picture model: what they learn from, exact resume, folders that diffusers and the engine load."""

import dataclasses
import functools
import json
import shutil
from contextlib import suppress

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kinetograph import Video, controls, files, hub, weights
from kinetograph.engine import describe, generate, warm
from kinetograph.errors import Interrupted, InvalidRequest, TrainingError, UnknownName, WeightsError
from kinetograph.neural.pictures import folder as loading
from kinetograph.neural.pictures import sharing
from kinetograph.neural.pictures.folder import quiet
from kinetograph.neural.training import companions, recipes, run, truths
from kinetograph.worlds import critters, shapes

KINDS = ("edge", "depth", "pose", "edit")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _short_sheets(monkeypatch):
    monkeypatch.setattr(companions, "SHOWN", 2)
    monkeypatch.setattr(companions, "STEPS", 2)


@pytest.fixture
def tiny(picture_model):
    """A recipe of a few steps on a tiny model; `tiny("edge", rate=1)` changes it."""

    def made(kind, **changes):
        few = {"steps": 3, "batch": 2, "rate": 1e-3, "size": 64, "save_every": 2, "sample_every": 3, "log_every": 1}
        said = {"model": str(picture_model("sd")), "bfloat16": False, "warmup": 1}
        return companions.Recipe(kind=kind, **{**few, **said, **changes})

    return made


def trainer(recipe):
    return companions.Trainer(recipe.settled(), CPU, run.Processes())


def lines(folder):
    return [json.loads(line) for line in (folder / run.METRICS).read_text().splitlines()]


# --- what they learn from ---


@pytest.mark.parametrize("kind", KINDS[:3])
def test_what_is_shown_is_what_a_control_takes_from_the_world(kind):
    """Of a clip of the truths; so that what was learnt is what will be asked."""
    stills = truths.controlled(kind, {"critters": 1.0}, 1, 3, range(6), 64, CPU)
    assert stills.pictures.shape == stills.shown.shape == (6, 3, 64, 64)
    for picture, shown in zip(stills.pictures, stills.shown, strict=True):
        source = picture if kind == "edge" else shown
        control = controls.Control(kind=kind, path="-")
        taken = controls.drawn(control, source.movedim(0, 2).numpy()[None])[0]
        assert np.array_equal(taken, shown.movedim(0, 2).numpy())
        assert shown.any()


def test_pairs_differ_by_what_the_instruction_asks_for():
    stills = truths.edited({"critters": 0.5, "shapes": 0.5}, 1, 3, range(12), 64, CPU)
    understood = 0
    for told, before, after in zip(stills.told, stills.shown, stills.pictures, strict=True):
        assert not torch.equal(before, after), told
        for world in (critters, shapes):
            with suppress(InvalidRequest):  # of the other world
                understood += bool(world.requested(told, {}))
    assert understood >= 12


def test_the_batch_does_not_depend_on_how_many_processes_share_it():
    for draw in (lambda where: truths.edited({"critters": 1.0}, 1, 5, where, 64, CPU),
                 lambda where: truths.controlled("pose", {"critters": 1.0}, 1, 5, where, 64, CPU)):  # fmt: skip
        whole, halves = draw(range(4)), [draw(range(2)), draw(range(2, 4))]
        assert whole.told == [*halves[0].told, *halves[1].told]
        assert torch.equal(whole.shown, torch.cat([half.shown for half in halves]))
        assert torch.equal(whole.pictures, torch.cat([half.pictures for half in halves]))


@pytest.mark.parametrize(
    ("kind", "worlds", "words"),
    [("pose", {"shapes": 1.0}, "critters"), ("edit", {"circle": 1.0}, "shapes"), ("edge", {}, "for example")],
)
def test_worlds_that_do_not_know_it_are_refused(tiny, kind, worlds, words):
    with pytest.raises(TrainingError) as error:
        tiny(kind, worlds=worlds).settled()
    assert words in error.value.hint


def test_a_model_or_a_size_that_cannot_be_is_refused(tiny, picture_model):
    with pytest.raises(WeightsError, match="XLPipeline"):
        tiny("edge", model=str(picture_model("sdxl"))).settled()
    with pytest.raises(TrainingError, match="multiple of 8"):
        tiny("edge", size=100).settled()
    with pytest.raises(UnknownName):
        tiny("edge", worlds={"circl": 1.0}).settled()


def test_without_the_model_of_the_package_a_recipe_says_so(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "HERE", tmp_path)
    with pytest.raises(WeightsError, match="not in this copy") as error:
        tiny("edge", model=weights.POCKET).settled()
    assert "pocket-autoencoder" in error.value.hint


# --- how they learn ---


@pytest.mark.parametrize("kind", ["depth", "edit"])
def test_a_companion_begins_by_changing_nothing(tiny, kind):
    teacher = trainer(tiny(kind))
    x, time, hint = torch.randn(2, 4, 8, 8), torch.tensor([10, 500]), torch.rand(2, 4 if kind == "edit" else 3, 8, 8)
    hint = hint if kind == "edit" else hint.repeat_interleave(8, 2).repeat_interleave(8, 3)
    words = teacher.pictures.words(["a cat", "a dog"], 64, 64).at(range(1))
    with torch.no_grad():
        plain = teacher.pictures.network(x, time, encoder_hidden_states=words["encoder_hidden_states"]).sample
        weights_of = dict(teacher.network.named_parameters())
        said = teacher.said(weights_of, x, hint, time, words)
    assert torch.allclose(plain, said, atol=1e-6)


@pytest.mark.parametrize("kind", ["depth", "edit"])
def test_it_learns_and_the_model_beside_it_does_not(tiny, kind):
    teacher = trainer(tiny(kind, rate=1e-2, steps=12, batch=4, average=0.5))
    before = {name: part.clone() for name, part in teacher.pictures.network.state_dict().items()}

    def error():
        with torch.no_grad():
            return float(teacher.error(teacher.kept(), 1000))

    at_first = error()
    for step in range(1, 13):
        teacher.step(step)
    assert error() < 0.97 * at_first
    assert all(torch.equal(part, before[name]) for name, part in teacher.pictures.network.state_dict().items())


@pytest.mark.parametrize("kind", ["depth", "edit"])
def test_a_compiled_companion_is_as_wrong_as_one_that_is_not(tiny, kind, monkeypatch):
    compiled = functools.partial(torch.compile, backend="eager")  # captured whole; writing the code takes minutes
    monkeypatch.setattr(torch, "compile", compiled)
    with torch.no_grad():
        errors = [
            float(teacher.error(teacher.network, 1))
            for teacher in (trainer(tiny(kind, noises=2, compiled=yes)) for yes in (False, True))
        ]
    assert errors[0] == pytest.approx(errors[1], rel=1e-4)


def test_each_still_is_met_in_several_noises(tiny):
    row = companions._Chances.of(tiny("depth", noises=4), 1, 0, 1000, (4, 8, 8))
    assert (row.time // 250).tolist() == [0, 1, 2, 3]
    assert row.noise.shape == (4, 4, 8, 8)
    assert not torch.equal(row.noise[0], row.noise[1])
    assert row.spread.shape == (4, 8, 8)


def test_silence_leaves_words_out_and_shows_nothing_to_a_model_of_edits(tiny):
    rows = [companions._Chances.of(tiny("edit", silent=0.2), 1, place, 1000, (4, 8, 8)) for place in range(400)]
    assert 0.2 < np.mean([row.mute for row in rows]) < 0.4
    assert 0.2 < np.mean([row.blind for row in rows]) < 0.4
    assert 0.08 < np.mean([row.blind and row.mute for row in rows]) < 0.25
    none = [companions._Chances.of(tiny("edit", silent=0.0), 1, place, 1000, (4, 8, 8)) for place in range(50)]
    assert not any(row.mute or row.blind for row in none)


@pytest.mark.parametrize("kind", ["pose", "edit"])
def test_an_error_counts_more_where_figures_are_and_something_tells_where(tiny, kind):
    def error(**changes):
        teacher = trainer(tiny(kind, batch=4, **changes))
        with torch.no_grad():
            return float(teacher.error(teacher.network, 1))

    assert error(figures=8.0, silent=0.0) > 1.2 * error(silent=0.0)
    if kind == "edit":  # that was shown nothing
        assert error(figures=8.0, silent=1.0) == error(silent=1.0)


def test_of_an_edit_figures_cover_cells_before_and_after(tiny):
    shares = {"critters": 0.5, "shapes": 0.5}
    pairs = truths.edited(shares, 1, 3, range(12), 64, CPU)
    assert pairs.figures.shape == (12, 1, 8, 8)
    assert set(pairs.figures.unique().tolist()) == {0.0, 1.0}
    after = truths._covered([row for row, _ in _edited(shares, range(12))], 64)
    before = truths._covered([row for _, row in _edited(shares, range(12))], 64)
    assert torch.equal(pairs.figures, torch.maximum(after, before))
    assert not torch.equal(after, before)


def _edited(shares, where):
    """The rows of pairs, after and before."""
    for place in where:
        row = truths._row(shares, 1, 3, place)
        yield dataclasses.replace(row, scene=row.world.edit(row.scene, row.rng, "train")[0]), row


@pytest.mark.parametrize("kind", ["pose", "edit"])
def test_a_companion_may_begin_with_the_weights_of_another(tiny, tmp_path, kind):
    tiny(kind, steps=1, sample_every=1, rate=0.1).train(tmp_path / "run", device="cpu")
    begun = trainer(tiny(kind, start=str(tmp_path / "run"))).network.state_dict()
    part = "unet" if kind == "edit" else ""
    stored = load_file(tmp_path / "run" / part / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(tensor, stored[name].float()) for name, tensor in begun.items())
    fresh = trainer(tiny(kind)).network.state_dict()
    assert not all(torch.equal(tensor, fresh[name]) for name, tensor in begun.items())
    history = {"steps": 1, "hardware": "", "hours": 0}
    recipe = tiny(kind, start=str(tmp_path / "run")).settled()
    assert "1 steps of 2 stills, beginning with the weights of `run` |" in companions.card(
        recipe, torch.nn.Linear(1, 1), history
    )


def test_one_of_another_shape_is_refused(tiny, tmp_path):
    with pytest.raises(WeightsError, match="does not fit"):
        trainer(tiny("edit", start="pocket-edit"))
    with pytest.raises(WeightsError, match="cannot be loaded"):
        trainer(tiny("edit", start=str(tmp_path)))


@pytest.mark.parametrize("kind", ["pose", "edit"])
def test_a_resumed_companion_takes_the_very_steps_that_would_have_come(tiny, tmp_path, kind):
    recipe = tiny(kind)
    recipe.train(tmp_path / "whole", device="cpu")

    def stop(step):
        if step.step == 2:
            raise Interrupted("enough")

    with pytest.raises(Interrupted):
        recipe.train(tmp_path / "parts", device="cpu", on_step=stop)
    recipe.train(tmp_path / "parts", device="cpu", resume=True)
    one, two = (load_file(tmp_path / name / run.STATE) for name in ("whole", "parts"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert [row["loss"] for row in lines(tmp_path / "whole")] == [row["loss"] for row in lines(tmp_path / "parts")]


# --- what they write ---


@pytest.mark.parametrize("slim", [True, False])
def test_a_controlnet_is_written_as_diffusers_and_the_engine_read_it(tiny, tmp_path, picture_model, slim):
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

    recipe = tiny("edge", slim=slim, steps=2, sample_every=2)
    out = tmp_path / "run"
    recipe.train(out, device="cpu")
    with quiet():
        net = ControlNetModel.from_pretrained(out)
        stored = load_file(out / "diffusion_pytorch_model.safetensors")
        assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
        pipe = StableDiffusionControlNetPipeline.from_pretrained(recipe.model, controlnet=net, safety_checker=None)
    assert pipe.controlnet is not None
    assert any("attn" in name for name in stored) != slim
    for line in (out / weights.SUMS).read_text().splitlines():
        digest, name = line.split("  ")
        assert files.sha256(out / name) == digest
    card = (out / weights.CARD).read_text()
    assert "A ControlNet for edge pictures" in card
    assert "`kinetograph train pocket-edge`, 2 steps" in card
    assert (out / "samples" / "000002.png").exists()
    clip = tmp_path / "clip.npz"
    Video(critters.draw([critters.sample(np.random.default_rng(0))], 2, 64, 64)[0], 4).save(clip)
    reference = f"zero:{picture_model('sd')}"
    control = controls.Control(kind="edge", path=str(clip), weights=str(out))
    request = describe(reference).request("a cat", seed=1, **controls.settings([control], options={"steps": 2}))
    warm.clear()
    assert generate(reference, request).frames.shape == (2, 64, 64, 3)


def test_a_model_of_edits_shares_its_parts_and_is_refused_beside_others(tiny, tmp_path, picture_model):
    base = tmp_path / "base"
    shutil.copytree(picture_model("sd"), base)
    out = tmp_path / "run"
    tiny("edit", model=str(base), steps=1, sample_every=1).train(out, device="cpu")
    assert not (out / "vae").exists()
    assert str(tmp_path) not in (out / "unet" / "config.json").read_text()  # no folder of this machine
    assert json.loads((out / "sharing.json").read_text())["model"] == "base"  # beside it: no path of a machine
    found = hub.locate(str(out))
    pictures = loading.load(found.path, "sd", "float32", CPU, found.variant)
    assert pictures.network.config.in_channels == 2 * pictures.channels
    kept = load_file(base / "vae" / "diffusion_pytorch_model.safetensors")
    assert torch.equal(pictures.vae.state_dict()["decoder.conv_in.weight"], kept["decoder.conv_in.weight"])
    assert describe(f"zero:{out}").width == 64
    together = tmp_path / "elsewhere"
    shutil.copytree(out, together / "pocket-edit")
    shutil.copytree(base, together / "base")
    shutil.rmtree(base)
    assert loading.load(together / "pocket-edit", "sd", "float32", CPU).vae is not None
    other = load_file(together / "base" / "vae" / "diffusion_pytorch_model.safetensors")
    save_file({**other, "decoder.conv_in.weight": other["decoder.conv_in.weight"] + 1},
              together / "base" / "vae" / "diffusion_pytorch_model.safetensors")  # fmt: skip
    with pytest.raises(WeightsError, match="shares parts") as error:
        loading.load(together / "pocket-edit", "sd", "float32", CPU)
    assert "vae" in error.value.hint


def test_a_model_beside_it_is_named_without_a_path_where_a_link_leads_to_both(tmp_path):
    (tmp_path / "real" / "base" / "vae").mkdir(parents=True)
    (tmp_path / "real" / "base" / "vae" / "diffusion_pytorch_model.safetensors").touch()
    (tmp_path / "real" / "run").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    sharing.note(link / "run", link / "base", ["vae"])
    assert json.loads((link / "run" / sharing.FILE).read_text())["model"] == "base"


def test_a_whole_model_of_edits_is_one_that_diffusers_loads(tiny, tmp_path):
    from diffusers import StableDiffusionInstructPix2PixPipeline

    tiny("edit", whole=True, steps=1, sample_every=1).train(tmp_path / "run", device="cpu")
    with quiet():
        pipe = StableDiffusionInstructPix2PixPipeline.from_pretrained(tmp_path / "run", safety_checker=None)
    assert pipe.unet.config.in_channels == 8


@pytest.mark.parametrize("kind", KINDS)
def test_the_recipes_are_named_and_say_what_they_are(kind):
    recipe = recipes.get(f"pocket-{kind}")
    assert recipe.kind == kind
    assert f"kinetograph train pocket-{kind}" in recipes.describe(f"pocket-{kind}")
    truths.check(kind, recipe.worlds)
    assert recipes.get(f"pocket-{kind}", {"model": "x"}).model == "x"
