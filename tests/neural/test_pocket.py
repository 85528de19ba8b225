"""The pocket model of pictures: its words, its optimiser, its two runs, and diffusers' own view of what they leave."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kinetograph import weights
from kinetograph.errors import Interrupted, TrainingError, WeightsError
from kinetograph.neural import pixels
from kinetograph.neural.pictures import folder, pocket
from kinetograph.neural.training import autoencoder, optimisers, recipes, run, stills
from kinetograph.neural.training import pocket as training
from kinetograph.shelf import WORLDS

CODER, IMAGE = recipes.get("pocket-autoencoder-tiny"), recipes.get("pocket-image-tiny")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def coder(tmp_path_factory):
    """The folder of a tiny autoencoder's run."""
    path = tmp_path_factory.mktemp("pocket") / "coder"
    CODER.train(path, device="cpu")
    return path


@pytest.fixture(scope="module")
def image(coder, tmp_path_factory):
    """The folder of a tiny picture model's run."""
    path = tmp_path_factory.mktemp("pocket") / "image"
    dataclasses.replace(IMAGE, autoencoder=str(coder)).train(path, device="cpu")
    return path


def tensors(path):
    return {str(file.relative_to(path)): load_file(file) for file in sorted(path.glob("*/*.safetensors"))}


def same(one, other):
    assert one.keys() == other.keys() != set()
    return all(torch.equal(value, other[name][key]) for name, found in one.items() for key, value in found.items())


# ---- words


def test_every_word_of_the_worlds_is_one_token_and_others_are_spelt():
    words = stills.words({name: WORLDS[name] for name in ("circle", "shapes", "critters")})
    tokens = pocket.tokenizer(words)
    assert all(len(tokens.tokenize(word)) == 1 for word in words - {"-"})
    assert "".join(tokens.tokenize("a zebra, quietly!")).replace("</w>", " ") == "a zebra , quietly ! "
    assert tokens("a zebra 7").input_ids.count(tokens.eos_token_id) == 1


def test_the_same_words_make_the_same_tokens():
    words = ["walks", "walking", "walk", "ball"]
    one, other = (pocket.tokenizer(some) for some in (words, words[::-1]))
    assert one.get_vocab() == other.get_vocab()
    assert pocket.merged_pairs([list("aab"), list("ab")]) == [("a", "b"), ("a", "ab")]


def test_the_longest_sentences_of_the_worlds_are_not_cut():
    worlds = {name: WORLDS[name] for name in ("circle", "shapes", "critters")}
    tokens, rng = pocket.tokenizer(stills.words(worlds)), np.random.default_rng(1)
    told = [stills.told(world, world.sample(rng), rng) for world in worlds.values() for _ in range(300)]
    assert max(len(ids) for ids in tokens(told).input_ids) < pocket.TOKENS


@pytest.mark.parametrize("name", ["circle", "shapes", "critters"])
def test_what_a_still_caption_asks_for_is_true_of_its_scene(name):
    world, rng = WORLDS[name], np.random.default_rng(2)
    for _ in range(200):
        scene = world.sample(rng)
        asked = stills.asked(world, world.still_caption(scene, rng))
        assert asked.items() <= world.attributes(scene).items()


# ---- the data


def test_a_batch_of_stills_is_the_same_however_many_share_it():
    worlds, shares = {"circle": WORLDS["circle"], "critters": WORLDS["critters"]}, {"circle": 0.5, "critters": 0.5}
    whole = stills.draw(worlds, shares, 3, 5, range(6), 2, 32, CPU)
    parts = [stills.draw(worlds, shares, 3, 5, where, 2, 32, CPU) for where in (range(3), range(3, 6))]
    assert torch.equal(whole.pictures, torch.cat([part.pictures for part in parts]))
    assert whole.captions == [caption for part in parts for caption in part.captions]
    assert set(whole.worlds) == {"circle", "critters"}
    assert whole.pictures.shape == (12, 3, 32, 32)
    assert len(whole.scenes) == len(whole.captions) == 12


def test_stills_are_moments_of_training_scenes():
    world = WORLDS["critters"]
    found = stills.draw({"critters": world}, {"critters": 1.0}, 3, 5, range(4), 2, 32, CPU)
    assert not any(world.heldout(scene) for scene in found.scenes)
    assert found.scenes[0] is found.scenes[1]
    assert not torch.equal(found.pictures[0], found.pictures[1])
    ends = [pixels.to_model(world.draw([scene], 2, 32, 32, xp=torch)) for scene in found.scenes[::2]]
    assert not any(
        torch.equal(pixels.signed(found.pictures[2 * i]), clip[0, :, end])
        for i, clip in enumerate(ends)
        for end in (0, 1)
    )


@pytest.mark.parametrize("name", ["circle", "shapes", "critters"])
def test_cells_that_figures_cover_are_known(name):
    worlds, side = {name: WORLDS[name]}, 16
    found = stills.draw(worlds, {name: 1.0}, 3, 5, range(8), 2, 32, CPU)
    covered = stills.covered(worlds, found.worlds, found.scenes, (1, side, side), found.times[:, None])[:, 0].bool()
    large = WORLDS[name].depth(found.scenes, 1, 8 * side, 8 * side, moments=found.times[:, None])[:, 0]
    share = (WORLDS[name].relief_of(large) > stills.RELIEF).reshape(16, side, 8, side, 8).mean((2, 4))
    assert covered[share > 0.6].float().mean() > 0.97
    assert covered[share == 0].float().mean() < 0.02
    assert 0.02 < covered.float().mean() < 0.3


# ---- the optimiser


@pytest.mark.parametrize(("channels", "able", "off"), [(12, True, 1e-6), (12, False, 6e-3), (1, True, 1e-6)])
def test_a_convolution_learns_as_the_matrix_that_it_is(monkeypatch, channels, able, off):
    monkeypatch.setattr(optimisers, "has_bfloat16", lambda device: able)
    torch.manual_seed(1)
    convolution = torch.nn.Conv2d(channels, 16, 3)
    matrix = torch.nn.Parameter(convolution.weight.detach().permute(0, 2, 3, 1).flatten(1).clone())
    ours = optimisers.Muon([convolution.weight], 0.1)
    plain = torch.optim.Muon([matrix], lr=0.1, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        gradient = torch.randn(16, channels, 3, 3)
        convolution.weight.grad = gradient
        matrix.grad = gradient.permute(0, 2, 3, 1).flatten(1)
        ours.step()
        plain.step()
    assert torch.allclose(convolution.weight.permute(0, 2, 3, 1).flatten(1), matrix, atol=off)


@pytest.mark.parametrize("shape", [(24, 24), (16, 90), (90, 16)])
@pytest.mark.parametrize("able", [True, False])
def test_muon_steps_are_nearly_orthogonal(monkeypatch, shape, able):
    monkeypatch.setattr(optimisers, "has_bfloat16", lambda device: able)
    torch.manual_seed(2)
    stretched = torch.linalg.svdvals(optimisers.orthogonal(torch.randn(shape)))
    assert 0.6 < stretched.min() < stretched.max() < 1.3


def test_every_weight_has_one_optimiser():
    network = pocket.unet("tiny", 4, 4)
    ours, plain = optimisers.of([network], 0.1)
    learning = [*ours.param_groups[0]["params"], *plain.param_groups[0]["params"]]
    assert {id(p) for p in learning} == {id(p) for p in network.parameters()}
    assert len(learning) == len(list(network.parameters()))


# ---- the runs


def test_colours_and_outlines_that_are_off_count():
    true = torch.zeros(1, 3, 4, 4)
    assert autoencoder.off(true, true, 20.0) == (0, 0)
    assert autoencoder.off(true + 0.5, true, 20.0) == (0.5, 0)
    striped = true.clone()
    striped[..., ::2] = 1
    assert autoencoder.off(striped, true, 20.0) == (0.5, 0.5)


def test_what_is_off_counts_more_where_there_is_much_to_see():
    true = torch.zeros(1, 3, 32, 32)
    true[..., 4:8, 4:8] = 1
    wrong_figure, wrong_sky = true.clone(), true.clone()
    wrong_figure[..., 4:8, 4:8] = 0.5
    wrong_sky[..., 24:28, 24:28] = 0.5
    assert autoencoder.off(wrong_figure, true, 20.0)[0] > 2 * autoencoder.off(wrong_sky, true, 20.0)[0]
    assert autoencoder.off(wrong_figure, true, 0.0)[0] == autoencoder.off(wrong_sky, true, 0.0)[0]
    assert autoencoder.liveliness(torch.ones(1, 3, 8, 8)).abs().max() == 0


def test_an_autoencoder_may_begin_with_the_weights_of_another(coder):
    trainer = autoencoder.Trainer(dataclasses.replace(CODER, start=str(coder)), CPU, run.Processes())
    kept = load_file(coder / "vae" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(value, kept[name]) for name, value in trainer.network.coder.state_dict().items())


def test_a_decoder_may_be_given_latents_as_a_network_leaves_them(coder):
    """With noise that is drawn for each picture anew, up to so much; what the encoder says stays the same."""
    plain, stirred = (
        autoencoder.Trainer(dataclasses.replace(CODER, start=str(coder), latent_noise=much), CPU, run.Processes())
        for much in (0.0, 5.0)
    )
    true = plain._draw(1)
    with torch.no_grad():
        one, other = plain._drawn_again(true, 1), stirred._drawn_again(true, 1)
        again = stirred._drawn_again(true, 1)
    assert torch.equal(one[1], other[1])
    assert torch.equal(other[0], again[0])
    away = (one[0] - other[0]).abs().mean((1, 2, 3))
    assert (away > 1e-3).all()
    assert away.std() > 1e-4


def test_a_decoder_that_learns_alone_leaves_latents_as_they_are(coder, tmp_path):
    dataclasses.replace(CODER, start=str(coder), decoder=True).train(tmp_path / "run", device="cpu")
    before, after = (
        load_file(path / "vae" / "diffusion_pytorch_model.safetensors") for path in (coder, tmp_path / "run")
    )
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder", "post_quant_conv"}
    one, other = (json.loads((path / "vae" / "config.json").read_text()) for path in (coder, tmp_path / "run"))
    assert one["scaling_factor"] == other["scaling_factor"] != 1


def test_the_first_latents_are_the_picture_a_cell_to_a_pixel():
    pictures = torch.zeros(1, 3, 16, 32)
    pictures[:, :, :, 16:] = torch.tensor([1.0, 0.2, -0.6])[:, None, None]
    small = autoencoder.seen_small(pictures)
    assert small.shape == (1, 3, 2, 4)
    mean = torch.tensor(autoencoder.MEAN)
    assert torch.allclose(small[0, :, 0, 0], -mean)
    wanted = torch.tensor(autoencoder.OPPONENT) @ torch.tensor([1.0, 0.2, -0.6]) - mean
    assert torch.allclose(small[0, :, 1, 3], wanted, atol=1e-5)


def test_latents_of_their_distributions_diverge_least():
    logvar = torch.full((64, 5, 8, 8), -2.0)
    draw = torch.Generator().manual_seed(0)
    spread = torch.tensor([1, 1, 1, 0.5, 0.5])[:, None, None]
    mean = torch.randn(64, 5, 8, 8, generator=draw) * spread
    at = autoencoder.divergence(mean, logvar, 0.5)
    assert autoencoder.divergence(mean * 1.2, logvar, 0.5) > at
    assert autoencoder.divergence(mean * 0, 2 * spread.log().expand(64, 5, 8, 8), 0.5) == 0


def test_an_autoencoder_learns_to_draw_pictures_again(tmp_path):
    seen = []
    longer = dataclasses.replace(CODER, steps=60, batch=4, save_every=60, sample_every=60)
    longer.train(tmp_path / "run", device="cpu", on_step=lambda step: seen.append(step.figures["colours"]))
    assert np.mean(seen[-10:]) < 0.7 * np.mean(seen[:10])


def test_latents_have_about_the_spread_of_noise(coder):
    vae = autoencoder.load(coder)
    found = stills.draw({"circle": WORLDS["circle"]}, {"circle": 1.0}, 9, 1, range(16), 1, 32, CPU)
    assert 0.5 < training.encoded(vae, pixels.signed(found.pictures)).std() < 2


def test_what_a_run_leaves_is_loaded_by_diffusers_and_draws_the_same_picture(image):
    from diffusers import StableDiffusionPipeline

    theirs = StableDiffusionPipeline.from_pretrained(image, local_files_only=True)
    theirs.set_progress_bar_config(disable=True)
    start = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    wanted = theirs("a red ball", latents=start, num_inference_steps=5, guidance_scale=3.0, output_type="np").images[0]
    ours = folder.load(image, "sd", "float32", CPU)
    words = ours.words(["a red ball"], 32, 32), ours.words([""], 32, 32, negative=True)
    from kinetograph.neural import sampling
    from kinetograph.neural.zeroshot import loop

    denoise = loop.frames_denoiser(ours.predict, ours.prediction, loop.guided(*words, 3.0))
    latents = sampling.sample(denoise, start[:, :, None], ours.levels(5, clean=True), "ddim")
    found = (ours.decode(latents[:, :, 0])[0].permute(1, 2, 0) / 2 + 0.5).clamp(0, 1)
    assert np.abs(found.numpy() - wanted).max() < 1e-3


@pytest.fixture(scope="module")
def rounded(coder, tmp_path_factory):
    """The folder of a model that was written in half precision, as the package has its own."""
    path = tmp_path_factory.mktemp("rounded") / "run"
    dataclasses.replace(IMAGE, autoencoder=str(coder), steps=1, bfloat16=True).train(path, device="cpu")
    return path


def test_the_autoencoder_comes_along_as_it_was_trained(coder, rounded):
    name = "vae/diffusion_pytorch_model.safetensors"
    assert (rounded / name).read_bytes() == (coder / name).read_bytes()


def test_what_is_stored_in_half_precision_is_computed_in_single_by_diffusers_too(rounded):
    from diffusers import StableDiffusionPipeline

    stored = load_file(rounded / "text_encoder" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    theirs = StableDiffusionPipeline.from_pretrained(rounded, local_files_only=True)
    assert {part.dtype for part in (theirs.unet, theirs.text_encoder, theirs.vae)} == {torch.float32}


def test_the_sums_of_a_run_are_those_of_its_files(image):
    lines = (image / "SHA256SUMS").read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == [
        str(path.relative_to(image)) for path in sorted(image.glob("*/*.safetensors"))
    ]
    assert all(weights.sha256(image / name) == digest for digest, name in (line.split("  ") for line in lines))
    made = json.loads((image / "made.json").read_text())
    assert made["steps"] == IMAGE.steps
    assert made["recipe"]["autoencoder_sha256"]


@pytest.mark.parametrize("kind", ["autoencoder", "image"])
def test_resuming_takes_the_very_steps_that_would_have_come(kind, coder, image, tmp_path):
    recipe = CODER if kind == "autoencoder" else dataclasses.replace(IMAGE, autoencoder=str(coder))
    stopped = tmp_path / "run"

    def interrupt(step):
        if step.step == 3:
            os.kill(os.getpid(), 2)

    with pytest.raises(Interrupted):
        recipe.train(stopped, device="cpu", on_step=interrupt)
    recipe.train(stopped, device="cpu", resume=True)
    assert same(tensors(stopped), tensors(coder if kind == "autoencoder" else image))


def test_a_text_encoder_that_others_share_can_be_left_as_it_is(coder, image, tmp_path):
    recipe = dataclasses.replace(IMAGE, autoencoder=str(coder), start=str(image), reading=False, naming=0.0, steps=2)
    recipe.train(tmp_path / "run", device="cpu")
    words, network = "text_encoder/model.safetensors", "unet/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "run" / words).read_bytes() == (image / words).read_bytes()
    assert (tmp_path / "run" / network).read_bytes() != (image / network).read_bytes()


def test_a_text_encoder_that_never_learnt_is_not_left_as_it_is(coder, tmp_path):
    with pytest.raises(TrainingError, match="nothing to say") as error:
        dataclasses.replace(IMAGE, autoencoder=str(coder), reading=False).train(tmp_path / "run", device="cpu")
    assert "start=" in error.value.hint
    assert not (tmp_path / "run").exists()


def test_a_run_can_begin_with_the_weights_of_another(coder, image):
    recipe = dataclasses.replace(IMAGE, autoencoder=str(coder), start=str(image))
    trainer = training.Trainer(recipe, CPU, run.Processes())
    begun = load_file(image / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(value, begun[name]) for name, value in trainer.network.unet.state_dict().items())


def test_attention_that_an_earlier_network_lacks_says_nothing_at_first():
    plain = pocket.unet("tiny", 4, 4, up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"))
    richer = pocket.unet("tiny", 4, 4)
    training._continue(richer, plain)
    seen, told = torch.randn(2, 4, 4, 4), torch.randn(2, 5, richer.config.cross_attention_dim)
    with torch.no_grad():
        assert torch.equal(*(net(seen, 10, encoder_hidden_states=told).sample for net in (plain, richer)))
    for other in (torch.nn.Linear(1, 1), pocket.unet("tiny", 6, 4)):
        with pytest.raises(WeightsError, match="another shape") as refused:
            training._continue(richer, other)
        assert "in the recipe's network" in refused.value.hint
    with pytest.raises(WeightsError, match="another shape"):
        training._continue(plain, richer)  # and attention that is there is not forgotten


def test_errors_in_figures_count_more_the_more_signal_there_is(coder):
    errors, figures = torch.zeros(2, 4, 2, 2), torch.zeros(2, 1, 2, 2)
    errors[:, :, 0, 0] = 1.0
    figures[0, 0, 0, 0] = 1.0
    for alpha, wanted in ((0.0, 0.25), (0.5, 0.25 * (3 + 1) / 2), (1.0, 0.25 * (9 + 1) / 2)):
        counted = training.counted(errors, torch.full((2, 1, 1, 1), alpha), 8.0 * figures)
        assert counted == pytest.approx(wanted)
    trainer = training.Trainer(dataclasses.replace(IMAGE, autoencoder=str(coder), figures=8.0), CPU, run.Processes())
    latents, _, shown = trainer._shown(trainer.lessons(1))
    assert shown.shape == (len(latents), 1, 4, 4)
    assert set(shown.unique().tolist()) == {0.0, 1.0}


def test_what_an_earlier_run_knows_of_words_is_not_forgotten_while_naming_is_new(coder, image):
    recipe = dataclasses.replace(IMAGE, autoencoder=str(coder), start=str(image))
    trainer = training.Trainer(recipe, CPU, run.Processes())
    words = [*trainer.network.text_encoder.parameters()]

    def heard(step):
        found = torch.autograd.grad(trainer._named(trainer.lessons(1), step), words, allow_unused=True)
        return any(gradient is not None for gradient in found)

    assert not heard(recipe.warmup)
    assert heard(recipe.warmup + 1)


def test_a_picture_is_met_in_several_noises_at_times_spread_over_all(coder):
    recipe = dataclasses.replace(IMAGE, autoencoder=str(coder), batch=64, noises=4, spread=0.0)
    trainer = training.Trainer(recipe, CPU, run.Processes())
    lesson = trainer.lessons(1)
    latents, ids, _ = trainer._shown(lesson)
    assert len(latents) == len(ids) == 64 * recipe.moments * 4
    assert torch.equal(latents[0], latents[3])
    assert not torch.equal(latents[3], latents[4])
    assert not torch.equal(lesson.noise[0], lesson.noise[1])
    assert torch.equal(lesson.times.reshape(-1, 4) // 250, torch.arange(4).expand(64 * recipe.moments, 4))
    spread = dataclasses.replace(recipe, spread=1.0, middle=0.5)
    middling = training.Trainer(spread, CPU, run.Processes()).lessons(1).times
    assert (middling.float() / 1000).logit(1e-3).mean() == pytest.approx(0.5, abs=0.1)
    assert (middling.float() / 1000).logit(1e-3).std() == pytest.approx(1.0, abs=0.1)


def test_a_compiled_network_learns_the_same(coder, tmp_path, monkeypatch):
    compiled = functools.partial(torch.compile, backend="eager")  # captured whole; writing the code takes minutes
    monkeypatch.setattr(torch, "compile", compiled)
    plain = dataclasses.replace(IMAGE, autoencoder=str(coder), steps=2)
    plain.train(tmp_path / "plain", device="cpu")
    dataclasses.replace(plain, compiled=True).train(tmp_path / "compiled", device="cpu")
    kept = load_file(tmp_path / "plain" / "unet" / "diffusion_pytorch_model.safetensors")
    for name, value in load_file(tmp_path / "compiled" / "unet" / "diffusion_pytorch_model.safetensors").items():
        torch.testing.assert_close(value, kept[name], atol=2e-4, rtol=1e-2)


def test_weights_that_know_other_words_are_no_beginning(coder, image):
    recipe = dataclasses.replace(IMAGE, autoencoder=str(coder), start=str(image), worlds={"shapes": 1.0})
    with pytest.raises(WeightsError, match="other words"):
        training.Trainer(recipe, CPU, run.Processes())


def test_a_picture_model_without_an_autoencoder_is_refused_with_the_command_that_makes_one(tmp_path):
    with pytest.raises(TrainingError, match="does not say its autoencoder") as refused:
        IMAGE.train(tmp_path / "run", device="cpu")
    assert "pocket-autoencoder" in refused.value.hint
    with pytest.raises(TrainingError, match="no autoencoder in"):
        dataclasses.replace(IMAGE, autoencoder=str(tmp_path)).train(tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_the_recipe_goes_on_from_the_weights_of_the_package():
    recipe = dataclasses.replace(recipes.get("pocket-image"), autoencoder="pocket-image", start="pocket-image")
    begun = training.Trainer(recipe.settled(), CPU, run.Processes()).network
    kept = load_file(weights.HERE / "pocket-image" / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(value, kept[name].float()) for name, value in begun.unet.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pocket-autoencoder-tiny", "pocket-image-tiny"])
def test_two_processes_take_the_same_steps_as_one(name, coder, image, tmp_path):
    settings = [] if "autoencoder" in name else ["--set", f"autoencoder={coder}"]
    command = ["-m", "kinetograph", "train", name, "--device", "cpu", "--out", str(tmp_path / "run"), *settings]
    told = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *command],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert told.returncode == 0, told.stderr
    one, two = (learnt(path) for path in (image if settings else coder, tmp_path / "run"))
    assert (one - two).norm() < 1e-3 * one.norm()


def learnt(path):
    return torch.cat([value.flatten() for found in tensors(path).values() for value in found.values()])
