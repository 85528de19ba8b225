"""Stills set in motion: layers between frames, what they are told of noise, and how they learn."""

import copy
import dataclasses
import functools
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from kinetograph import engine, weights
from kinetograph.errors import Interrupted, WeightsError
from kinetograph.neural import checkpoint, flow, seeing
from kinetograph.neural.models import moving_unet
from kinetograph.neural.pictures import pocket
from kinetograph.neural.training import clips, motion, recipes, run, stills
from kinetograph.video import fingerprint

TINY = recipes.get("motion-tiny")
CPU = torch.device("cpu")


def made(side=4):
    """A tiny model of clips, its layers between frames still silent."""
    torch.manual_seed(3)
    tokens = pocket.tokenizer(["a", "red", "ball"])
    alphas = pocket.scheduler().alphas_cumprod.double()
    unet, reader = pocket.unet("tiny", 4, side), pocket.text_encoder("tiny", tokens)
    config = moving_unet.Config(**moving_unet.PRESETS["tiny"])
    return moving_unet.Model(unet, reader, ((1 - alphas) / alphas).sqrt(), config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """The folder of a tiny picture model."""
    path = tmp_path_factory.mktemp("pictures")
    coder, image = recipes.get("pocket-autoencoder-tiny"), recipes.get("pocket-image-tiny")
    dataclasses.replace(coder, steps=1).train(path / "coder", device="cpu")
    dataclasses.replace(image, steps=1, autoencoder=str(path / "coder")).train(path / "image", device="cpu")
    return path / "image"


def trainer(pictures, **changes):
    recipe = dataclasses.replace(TINY, pictures=str(pictures), **changes)
    return motion.Trainer(recipe, CPU, run.Processes())


def noisy(frames=3):
    torch.manual_seed(5)
    return torch.randn(2, 4, frames, 4, 4), torch.rand(2, frames) * 0.8 + 0.1, torch.tensor([[1, 2, 3], [3, 2, 1]])


# ---- the network


def test_silent_layers_draw_each_frame_as_a_still():
    model = made()
    clip, level, ids = noisy()
    whole = model(clip, level, ids)
    for frame in range(3):
        alone = model(clip[:, :, frame : frame + 1], level[:, frame : frame + 1], ids)
        torch.testing.assert_close(whole[:, :, frame : frame + 1], alone, atol=1e-5, rtol=1e-5)


def test_layers_that_speak_make_frames_hear_of_each_other_near_and_far():
    model = made()
    torch.manual_seed(1)
    for weight in model.motion().values():
        weight.data.add_(torch.randn_like(weight) * 0.05)
    clip, level, ids = noisy(frames=5)
    before = model(clip, level, ids)
    clip[:, :, 4] += 1
    after = model(clip, level, ids)
    assert all((before[:, :, frame] - after[:, :, frame]).abs().max() > 1e-5 for frame in range(5))


def test_the_clean_latents_are_what_the_velocity_says():
    """With a network that guesses the true velocity, the model returns the clean latents, whatever the level."""
    model = made()
    clean, level, ids = noisy()
    e = torch.randn_like(clean)
    wide = level[:, None, :, None, None]
    spread = ((1 - wide) ** 2 + wide**2).sqrt()
    velocity = ((1 - wide) * e - wide * clean) / spread

    class Knowing(torch.nn.Module):
        def forward(self, frames, time, **told):
            return (velocity.transpose(1, 2).flatten(0, 1),)

    model.unet = Knowing()
    torch.testing.assert_close(model((1 - wide) * clean + wide * e, level, ids), clean, atol=1e-5, rtol=1e-5)


def test_the_network_is_told_the_time_whose_ratio_of_noise_is_the_levels():
    model = made()
    ratios = model.ratios.double()
    for time in (0, 10, 500, 997):
        ratio = ratios[time]
        assert model.time((ratio / (1 + ratio)).float()[None]).item() == pytest.approx(time, abs=0.1)
    assert model.time(torch.tensor([0.0])).item() == 0
    assert model.time(torch.tensor([1.0])).item() == 999
    between = ((ratios[500] * ratios[501]).sqrt() / (1 + (ratios[500] * ratios[501]).sqrt())).float()
    assert model.time(between[None]).item() == pytest.approx(500.5, abs=0.1)


def test_a_copy_of_a_model_counts_its_own_frames():
    model = made()
    other = copy.deepcopy(model)
    clip, level, ids = noisy(frames=4)
    other(clip, level, ids)
    assert model._clip.frames == 1
    assert {id(part._clip) for part in model.modules() if isinstance(part, moving_unet.Followed)} == {id(model._clip)}


def test_frames_attend_where_cells_are_few_and_look_around_where_they_are_many():
    unet = made().unet
    kinds = [{type(part) for part in stage.modules()} for stage in (*unet.down_blocks, unet.mid_block, *unet.up_blocks)]
    attend = [moving_unet.Attention in kind for kind in kinds]
    assert attend == [False, True, True, True, True, True, False]
    assert all((moving_unet.Convolution in kind) != yes for kind, yes in zip(kinds, attend, strict=True))


# ---- learning


def test_only_the_layers_between_frames_learn_and_all_of_them_do(pictures):
    learner = trainer(pictures)
    before = {name: p.detach().clone() for name, p in learner.model.named_parameters()}
    for step in range(1, 5):
        learner.step(step)
    moved = {name for name, p in learner.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == learner.model.motion().keys()


def test_a_batch_that_comes_again_and_again_is_learnt(pictures):
    learner = trainer(pictures, rate=5e-3, steps=1000, sizes=(clips.Size(1.0, 4, 32, 32),), known=0.0, wordless=0.0)
    losses = [learner.step(1)["loss"] for _ in range(60)]
    assert losses[-1] < 0.8 * losses[0]


def test_frames_begin_with_noise_that_they_share_in_part():
    independent = torch.randn(2, 4, 6, 64, 64, generator=torch.Generator().manual_seed(2))
    for shared in (0.0, 0.5, 1.0):
        e = flow.related(independent, shared)
        assert e.shape == (2, 4, 5, 64, 64)
        table = torch.corrcoef(e.transpose(1, 2).transpose(0, 1).flatten(1))
        assert e.std() == pytest.approx(1, abs=0.02)
        torch.testing.assert_close(table, torch.eye(5) * (1 - shared) + shared, atol=0.03, rtol=0)


def test_the_engine_begins_with_the_noise_that_a_run_learnt_from(pictures, tmp_path):
    dataclasses.replace(TINY, pictures=str(pictures), steps=1, shared=1.0).train(tmp_path / "run", device="cpu")
    still = make(f"flow:{tmp_path / 'run'}", options={"sampler": "euler"}, frames=4).frames  # layers are silent yet
    assert np.abs(np.diff(still.astype(int), axis=0)).max() <= 1
    assert weights.configuration(tmp_path / "run")["recipe"]["shared"] == 1.0


def test_errors_in_figures_count_more_the_more_signal_there_is(pictures):
    learner = trainer(pictures, figures=8.0)
    batch = clips.draw(learner.recipe, learner.worlds, 1, range(2), CPU)
    frames = batch.clips.shape[2]
    shown = stills.covered(learner.worlds, batch.worlds, batch.scenes, (frames, 4, 4))
    assert shown.shape == (2, frames, 4, 4)
    assert set(shown.unique().tolist()) == {0.0, 1.0}
    noisy, clear = (dataclasses.replace(batch, level=torch.full((2, frames), level)) for level in (1.0, 0.0))
    assert torch.equal(learner._counted(torch.ones_like(shown), noisy), torch.ones(2, frames))
    torch.testing.assert_close(learner._counted(torch.ones_like(shown), clear), (1 + 8 * shown).mean(dim=(2, 3)))


def test_a_compiled_network_is_as_wrong_as_one_that_is_not(pictures, monkeypatch):
    compiled = functools.partial(torch.compile, backend="eager")  # captured whole; writing the code takes minutes
    monkeypatch.setattr(torch, "compile", compiled)
    losses = [trainer(pictures, compiled=yes).step(1)["loss"] for yes in (False, True)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_latents_of_clips_are_drawn_again_frame_by_frame(pictures):
    moving = seeing.moving(pictures, CPU)
    clip = torch.rand(2, 3, 3, 32, 64) * 2 - 1
    latents = moving.encode(clip)
    assert latents.shape == (2, *moving.shape(3, 32, 64))
    alone = moving.encode(clip[:, :, 1:2])
    torch.testing.assert_close(latents[:, :, 1:2], alone, atol=1e-5, rtol=1e-5)
    assert moving.decode(latents).shape == clip.shape


def test_resuming_takes_the_very_steps_that_would_have_come(pictures, tmp_path):
    recipe = dataclasses.replace(TINY, pictures=str(pictures))

    def stop(step):
        if step.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    recipe.train(tmp_path / "whole", device="cpu")
    with pytest.raises(Interrupted):
        recipe.train(tmp_path / "halves", device="cpu", on_step=stop)
    recipe.train(tmp_path / "halves", device="cpu", resume=True)
    one, two = (load_file(tmp_path / name / weights.MODEL) for name in ("whole", "halves"))
    assert one.keys() == two.keys() != set()
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_a_run_may_begin_with_the_layers_of_another_and_says_so(pictures, tmp_path):
    dataclasses.replace(TINY, pictures=str(pictures), steps=2).train(tmp_path / "first", device="cpu")
    second = dataclasses.replace(TINY, pictures=str(pictures), start=str(tmp_path / "first"), steps=1)
    begun, kept = trainer(pictures, start=second.start), load_file(tmp_path / "first" / weights.MODEL)
    assert all(torch.equal(value, kept[name]) for name, value in begun.learning.named().items())
    second.train(tmp_path / "second", device="cpu")
    told = weights.configuration(tmp_path / "second")
    assert told["before"]["weights"] == weights.sha256(tmp_path / "first" / weights.MODEL)
    assert (told["before"]["steps"], told["before"]["batch"]) == (2, TINY.batch)
    assert told["recipe"]["start"] == "first"


def test_layers_of_another_picture_model_are_no_beginning(pictures, tmp_path):
    learner = trainer(pictures)
    found = {name: layer.detach() for name, layer in learner.model.motion().items()}
    for others in ({**found, "unet.elsewhere.motion.weight": torch.zeros(1)}, dict(list(found.items())[1:])):
        checkpoint.save(tmp_path / weights.MODEL, others, {"kind": "motion"})
        weights.seal(tmp_path)
        with pytest.raises(WeightsError, match="another picture model"):
            trainer(pictures, start=str(tmp_path))


def test_a_picture_model_that_is_none_or_not_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(weights, "pictures", list)
    with pytest.raises(WeightsError, match="pocket-image") as refused:
        TINY.train(tmp_path / "run", device="cpu")
    assert "pocket-autoencoder, then pocket-image" in refused.value.hint
    assert not (tmp_path / "run").exists()


# ---- the engine


@pytest.fixture(scope="module")
def reference(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("motion") / "run"
    dataclasses.replace(TINY, pictures=str(pictures), steps=2).train(folder, device="cpu")
    yield f"flow:{folder}"
    engine.warm.clear()


def make(reference, on_progress=lambda progress: None, options=None, **more):
    request = engine.describe(reference).request("a red ball", seed=5, options={"steps": 2} | (options or {}), **more)
    return engine.generate(reference, request, on_progress, device="cpu")


def test_the_engine_makes_clips_of_stills_set_in_motion(reference):
    told = []
    video = make(reference, told.append, options={"steps": 3}, width=64, frames=3)
    assert video.frames.shape == (3, 32, 64, 3)
    assert [p.step for p in told] == [1, 2, 3]
    assert all(p.preview.shape == (32, 64, 3) for p in told)
    assert engine.reproduce(video, device="cpu").same
    assert engine.describe(reference).Options().shift == 2.0


def test_a_model_and_its_pictures_may_be_moved_together(reference, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / pictures.name)
    shutil.copytree(reference.partition(":")[2], tmp_path / "motion")
    moved = f"flow:{tmp_path / 'motion'}"
    assert str(pictures.parent) not in (tmp_path / "motion" / weights.MODEL).read_bytes().decode("latin-1")
    assert fingerprint(make(moved).frames) == fingerprint(make(reference).frames)


def test_it_says_which_sizes_its_picture_model_can_draw(reference):
    assert engine.describe(reference).sizes.multiple == 32  # cells of eight pixels, halved twice


def test_it_goes_on_from_known_frames_in_windows(reference, tmp_path):
    Image.new("RGB", (32, 32), (200, 30, 30)).save(tmp_path / "red.png")
    video = make(reference, options={"start": str(tmp_path / "red.png")}, frames=9)
    assert len(video.frames) == 9
    assert (video.frames[0] == (200, 30, 30)).all()


def test_it_computes_in_bfloat16_where_asked(reference):
    exact, rounded = (make(reference, options={"precision": kind}).frames for kind in ("float32", "bfloat16"))
    assert 0 < np.abs(exact.astype(int) - rounded).mean() < 8


def test_words_that_are_not_known_are_told(reference):
    request = engine.describe(reference).request("a red zebra", seed=1, options={"steps": 1})
    with pytest.warns(UserWarning, match="does not know 'zebra'"):
        engine.generate(reference, request, device="cpu")


def test_a_picture_model_that_was_changed_is_refused(reference, pictures):
    path = pictures / "unet" / "diffusion_pytorch_model.safetensors"
    before = path.read_bytes()
    engine.warm.clear()
    try:
        path.write_bytes(before[:-4] + bytes(4))
        with pytest.raises(WeightsError, match="shares parts with"):
            make(reference)
    finally:
        path.write_bytes(before)
