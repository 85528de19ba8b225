"""Pictures set in motion: the network, what it learns from, its pool of latents, and the engine."""

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from kinetograph import engine, weights
from kinetograph.errors import Interrupted, TrainingError, UnknownName, WeightsError
from kinetograph.neural import checkpoint, flow, seeing
from kinetograph.neural.models import image_to_video
from kinetograph.neural.pictures import denoiser, pocket, sharing
from kinetograph.neural.training import image_to_video as training
from kinetograph.neural.training import pool, recipes, run
from kinetograph.neural.training.pool import Pool
from kinetograph.neural.training.stills import covered
from kinetograph.video import fingerprint

TINY = recipes.get("image-to-video-tiny")
CPU = torch.device("cpu")


def network():
    torch.manual_seed(3)
    return image_to_video.Model(image_to_video.Config(latents=4, words=16, **image_to_video.PRESETS["tiny"])).eval()


def speaking():
    """A network whose silent layers say something."""
    model = network()
    torch.manual_seed(4)
    for weight in model.parameters():
        weight.data.add_(torch.randn_like(weight) * 0.05)
    return model.requires_grad_(False)


def asked(frames=6, known=(2,), level=None):
    """Noisy latents of two clips with these frames known, their levels, words, and what a model of stills says."""
    torch.manual_seed(5)
    levels = torch.rand(2, 1).expand(2, frames).clone() * 0.8 + 0.1 if level is None else torch.full((2, frames), level)
    levels[:, list(known)] = 0
    clip, drawn = torch.randn(2, 2, 4, frames, 4, 8)
    return clip, levels, torch.randn(2, 5, 16), drawn


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """The folder of a tiny picture model."""
    path = tmp_path_factory.mktemp("pictures")
    coder, image = recipes.get("pocket-autoencoder-tiny"), recipes.get("pocket-image-tiny")
    dataclasses.replace(coder, steps=1).train(path / "coder", device="cpu")
    dataclasses.replace(image, steps=1, autoencoder=str(path / "coder")).train(path / "image", device="cpu")
    return path / "image"


def trainer(pictures, **changes):
    recipe = dataclasses.replace(TINY, pictures=str(pictures), **changes).settled()
    return training.Trainer(recipe, CPU, run.Processes())


# ---- the network


def test_known_frames_are_returned_as_they_are():
    clip, level, *words = asked(known=(1, 4))
    guess = speaking()(clip, level, *words).clean
    assert torch.equal(guess[:, :, [1, 4]], clip[:, :, [1, 4]])
    assert (guess - clip)[:, :, [0, 2, 3, 5]].abs().amin() > 0


def test_an_untrained_network_takes_noise_for_the_nearest_known_frame():
    clip, level, *told = asked(known=(1, 4), level=1.0)
    guess = network()(clip, level, *told).clean
    anchors = clip[:, :, [1, 1, 1, 4, 4, 4]]
    torch.testing.assert_close(guess, anchors, atol=1e-5, rtol=0)


def test_the_filter_around_the_network_is_the_best_linear_one():
    """Differences of the spread that it expects: no other share of what is seen comes nearer to them."""
    model = network()
    spread = model.config.spread
    torch.manual_seed(1)
    anchor = torch.randn(1, 4, 1, 32, 32)
    clean = torch.cat([anchor, anchor + spread * torch.randn(1, 4, 7, 32, 32)], dim=2)
    model.config = dataclasses.replace(model.config, passes=(0.0, 0.01))  # the network has all of the say
    for s in (0.1, 0.3, 0.7):
        level = torch.full((1, 8), s)
        level[:, 0] = 0
        wide = level[:, None, :, None, None]
        noisy = (1 - wide) * clean + wide * torch.randn_like(clean)
        guess = model(noisy, level, torch.zeros(1, 5, 16), noisy).clean
        error = (guess - clean)[:, :, 1:].square().mean().item()
        least = spread**2 * s**2 / (((1 - s) * spread) ** 2 + s**2)
        assert error == pytest.approx(least, rel=0.03)
        for share in (0.9, 1.1):
            other = anchor + share * (guess - anchor)
            assert (other - clean)[:, :, 1:].square().mean().item() > error


def test_frames_hear_of_each_other_near_and_far_and_of_the_words():
    model = speaking()
    clip, level, words, drawn = asked()
    before = model(clip, level, words, drawn).clean
    clip[:, :, 5] += 1
    after = model(clip, level, words, drawn).clean
    unknown = [0, 1, 3, 4, 5]
    assert all((before[:, :, frame] - after[:, :, frame]).abs().max() > 1e-5 for frame in unknown)
    other = model(clip, level, words + torch.randn_like(words), drawn).clean
    assert all((other[:, :, frame] - after[:, :, frame]).abs().max() > 1e-5 for frame in unknown)


def test_the_say_passes_from_the_model_of_stills_to_the_network_with_the_noise():
    model, unknown = network(), [0, 1, 3, 4, 5]
    low, high = model.config.passes
    for level, share in ((low / 2, 0), (low, 0), ((low + high) / 2, 0.5), (high, 1), (1.0, 1)):
        clip, levels, words, drawn = asked(level=level)
        own = model(clip, levels, words, drawn).clean
        model.config = dataclasses.replace(model.config, passes=(-1.0, 0.0))
        alone = model(clip, levels, words, drawn).clean
        model.config = dataclasses.replace(model.config, passes=(low, high))
        wanted = (share * alone + (1 - share) * drawn)[:, :, unknown]  # it corrects nothing before it has learnt to
        torch.testing.assert_close(own[:, :, unknown], wanted, atol=1e-5, rtol=1e-4)


def test_what_the_model_of_stills_says_is_seen_and_corrected_where_it_counts():
    model = speaking()
    for level, counts in ((0.3, True), (0.8, True), (0.95, False)):
        clip, levels, words, drawn = asked(level=level)
        changed = drawn.clone()
        changed[:, :, 0] += 1
        one, two = (model(clip, levels, words, said).clean for said in (drawn, changed))
        assert ((one - two)[:, :, 5].abs().max() > 1e-5) == counts  # another frame hears of it
        assert torch.equal(one, two) != counts


def test_the_model_of_stills_is_asked_only_where_it_counts():
    model = image_to_video.Experts(speaking(), stills(side=8))
    clip, level, words, *_ = asked()
    level[0, level[0] > 0], level[1, level[1] > 0] = 0.95, 0.5
    drawn = model.drawn(clip, level, words)
    assert torch.equal(drawn[0], clip[0])
    assert torch.equal(drawn[1, :, 2], clip[1, :, 2])
    alone = model.stills.draw(clip[1:, :, 4], level[1:, 4], words[1:])
    torch.testing.assert_close(drawn[1:, :, 4], alone, atol=1e-5, rtol=1e-5)


def test_the_nearest_known_frame_is_found_before_and_after():
    known = torch.zeros(3, 8, dtype=torch.bool)
    known[0, 0] = known[1, 3] = known[2, 1] = known[2, 6] = True
    assert image_to_video.nearest(known).tolist() == [[0] * 8, [3] * 8, [1, 1, 1, 1, 6, 6, 6, 6]]


def test_cells_are_splatted_where_they_come_to_lie():
    x = torch.zeros(1, 2, 3, 4, 5)
    x[0, :, :, 1, 1] = torch.tensor([[1.0], [3.0]])
    way = torch.zeros(1, 2, 3, 4, 5)
    way[:, 0, 1], way[:, 1, 1] = 2.0, 1.0  # two to the right, one down
    way[:, 0, 2], way[:, 1, 2] = 0.25, -0.5
    moved = image_to_video.splatted(x, way)
    assert torch.equal(moved[:, :, 0], x[:, :, 0])
    assert moved[0, 1, 1].nonzero().tolist() == [[2, 3]]
    assert moved[0, 1, 1, 2, 3] == 3
    shares = torch.tensor([[0.375, 0.125], [0.375, 0.125]])
    torch.testing.assert_close(moved[0, 0, 2, :2, 1:3], shares)
    assert moved[0, 0, 2].sum() == pytest.approx(1)
    way[:, 0] = 9.0
    assert not image_to_video.splatted(x, way).any()  # what leaves the picture is lost


def test_a_way_learns_where_its_cell_should_have_gone():
    x = torch.zeros(1, 1, 1, 6, 6)
    x[..., 2:4, 2:4] = 1
    wanted = torch.zeros(1, 1, 1, 6, 6)
    wanted[..., 2:4, 3:5] = 1
    way = torch.zeros(1, 2, 1, 1, 1, requires_grad=True)
    optimiser = torch.optim.Adam([way], 0.05)
    for _ in range(60):
        optimiser.zero_grad()
        (image_to_video.splatted(x, way.expand(1, 2, 1, 6, 6)) - wanted).square().sum().backward()
        optimiser.step()
    torch.testing.assert_close(way.detach().flatten(), torch.tensor([1.0, 0.0]), atol=0.05, rtol=0)


def test_a_network_that_knows_figures_and_ways_moves_them_before_what_is_behind():
    model = network()
    c, t = 4, 5
    anchor = torch.zeros(1, c, t, 6, 6)  # a figure of ones on a ground of zeros
    anchor[..., 2:4, 1:3] = 1
    near = torch.full((1, t), 1)
    layers = torch.zeros(1, c + 3, t, 6, 6)
    layers[:, c] = 2.0  # half a cell to the right in each frame, twice
    layers[:, c + 2] = torch.where(anchor[:, 0] > 0, 30.0, -30.0)
    layers[:, :c] = -anchor  # behind the figure there is ground
    moved, figures, ways = model._moved(anchor, near, layers)
    for frame in range(t):
        there = torch.zeros(6, 6)
        columns = [column + frame - 1 for column in (1, 2) if 0 <= column + frame - 1 < 6]
        there[2:4, columns] = 1
        torch.testing.assert_close(moved[0, 0, frame], there, atol=1e-5, rtol=0)
    assert ways[0, 0, :, 2, 2].tolist() == [-1, 0, 1, 2, 3]
    assert torch.equal(figures > 0, anchor[:, 0] > 0)


def test_halves_put_together_are_the_whole():
    x = torch.randn(2, 4, 6, 8, 3)
    for frames in (1, 2):
        half = image_to_video.halved(x, frames)
        assert half.shape == (2, 4 // frames, 3, 4, 12 * frames)
        assert torch.equal(image_to_video.doubled(half, frames), x)
    first = image_to_video.halved(x, 2)[0, 0, 0, 0].view(2, 2, 2, 3)
    assert torch.equal(first, x[0, :2, :2, :2])


def stills(side=4):
    """A tiny model of stills that denoises frames."""
    torch.manual_seed(3)
    unet, reader = pocket.unet("tiny", 4, side), pocket.text_encoder("tiny", pocket.tokenizer(["a", "red", "ball"]))
    return denoiser.Model(unet, reader, pocket.scheduler().alphas_cumprod).eval().requires_grad_(False)


def test_the_clean_latents_are_what_the_velocity_says():
    """With a network that guesses the true velocity, the model returns the clean latents, whatever the level."""
    model = stills()
    torch.manual_seed(5)
    clean, level, ids = torch.randn(2, 4, 3, 4, 4), torch.rand(2, 3) * 0.8 + 0.1, torch.tensor([[1, 2, 3], [3, 2, 1]])
    e = torch.randn_like(clean)
    wide = level[:, None, :, None, None]
    spread = ((1 - wide) ** 2 + wide**2).sqrt()
    velocity = ((1 - wide) * e - wide * clean) / spread

    class Knowing(torch.nn.Module):
        dtype = torch.float32

        def forward(self, frames, time, **told):
            return (velocity.transpose(1, 2).flatten(0, 1),)

    model.unet = Knowing()
    torch.testing.assert_close(model((1 - wide) * clean + wide * e, level, ids), clean, atol=1e-5, rtol=1e-5)


def test_the_network_of_stills_is_told_the_time_whose_ratio_of_noise_is_the_levels():
    model = stills()
    alphas = pocket.scheduler().alphas_cumprod.double()
    ratios = ((1 - alphas) / alphas).sqrt()
    for time in (0, 10, 500, 997):
        ratio = ratios[time]
        assert model.time((ratio / (1 + ratio)).float()[None]).item() == pytest.approx(time, abs=0.1)
    assert model.time(torch.tensor([0.0])).item() == 0
    assert model.time(torch.tensor([1.0])).item() == 999
    between = ((ratios[500] * ratios[501]).sqrt() / (1 + (ratios[500] * ratios[501]).sqrt())).float()
    assert model.time(between[None]).item() == pytest.approx(500.5, abs=0.1)


# ---- sampling


def test_frames_in_the_middle_that_are_known_stay_and_are_told_as_known():
    told = []

    class Zero(torch.nn.Module):
        def forward(self, clip, level, ids):
            told.append((clip, level))
            return torch.zeros_like(clip)

    known, e, ids = torch.full((1, 4, 2, 4, 4), 0.5), torch.randn(1, 4, 6, 4, 4), torch.zeros(1, 3, dtype=torch.long)
    clip = flow.sample(Zero(), ids, ids, e, flow.Settings(steps=3), known=flow.Known(known, 2))
    assert torch.equal(clip[:, :, 2:4], known)
    torch.testing.assert_close(clip[:, :, [0, 1, 4, 5]], torch.zeros(1, 4, 4, 4, 4), atol=1e-5, rtol=0)
    for seen, level in told:
        assert torch.equal(seen[:, :, 2:4], known)
        assert (level == 0).tolist() == [[False, False, True, True, False, False]]


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_seed_means_the_same_clip_alone_in_a_batch_and_with_any_number_of_threads(guidance):
    """Not bit by bit: matrix products of other sizes round otherwise."""
    model = image_to_video.Experts(speaking(), stills(side=8))
    ids, e = torch.tensor([[1, 2, 3], [3, 2, 1], [2, 2, 2], [1, 1, 1], [0, 0, 0]]), torch.randn(4, 4, 6, 4, 8)
    known, settings = torch.randn(4, 4, 1, 4, 8), flow.Settings(steps=4, guidance=guidance)
    before, clips = torch.get_num_threads(), []
    try:
        for count, places in ((1, [2]), (1, [0, 1, 2, 3]), (2, [2]), (2, [0, 1, 2, 3])):
            torch.set_num_threads(count)
            rows = flow.sample(model, ids[places], ids[4:], e[places], settings, known=flow.Known(known[places], 3))
            clips.append(rows[places.index(2)])
    finally:
        torch.set_num_threads(before)
    for other in clips[1:]:
        torch.testing.assert_close(other, clips[0], atol=1e-4, rtol=0)


# ---- learning


def test_every_weight_learns_and_the_picture_model_does_not(pictures):
    learner = trainer(pictures)
    still = [p for part in (learner.stills, learner.pictures.vae) for p in part.parameters()]
    before = {name: p.detach().clone() for name, p in learner.model.named_parameters()}, [p.clone() for p in still]
    for step in range(1, 5):
        learner.step(step)
    assert all(not torch.equal(p, before[0][name]) for name, p in learner.model.named_parameters())
    assert all(torch.equal(p, old) for p, old in zip(still, before[1], strict=True))


def test_a_batch_that_comes_again_and_again_is_learnt(pictures):
    learner = trainer(pictures, rate=5e-3, steps=1000, wordless=0.0)
    losses = [learner.step(1)["loss"] for _ in range(60)]
    assert losses[-1] < 0.8 * losses[0]


def test_figures_and_their_ways_are_told_of_the_nearest_known_frame(pictures):
    learner = trainer(pictures)
    known = torch.zeros(2, 4, dtype=torch.bool)
    known[:, 1] = True
    near = image_to_video.nearest(known)
    figures = covered(learner.worlds, ["circle"] * 2, [learner.scene(n)[1] for n in (0, 1)], learner.shape[1:])
    middle = training.middles(figures)
    gone = middle - middle[:, 1:2]
    right = image_to_video.Guess(
        torch.empty(0), (figures[:, 1:2].expand_as(figures) * 2 - 1) * 30, gone.transpose(1, 2)[..., None, None]
        .expand(2, 2, *figures.shape[1:]).contiguous()
    )  # fmt: skip
    assert all(value < 1e-5 for value in learner._layers(right, [0, 1], near).values())
    wrong = learner._layers(right._replace(figures=-right.figures, ways=right.ways + 1), [0, 1], near)
    assert wrong["figures"] > 10
    assert wrong["ways"] == pytest.approx(0.5, abs=0.01)


def test_the_middle_of_nothing_is_no_number():
    figures = torch.zeros(1, 2, 3, 4)
    figures[0, 0, 1:, 2:] = 1
    assert training.middles(figures)[0, 0].tolist() == [2.5, 1.5]
    assert training.middles(figures)[0, 1].isnan().all()


def test_the_network_learns_what_sentences_say_and_where_things_go(pictures):
    learner = trainer(pictures, rate=5e-3, steps=1000, sentences=8, telling=1.0)
    told = [learner.step(1) for _ in range(60)]
    assert told[-1]["naming"] < 0.7 * told[0]["naming"]
    assert told[-1]["courses"] < 0.8 * told[0]["courses"]


def test_a_head_start_is_of_sentences_alone(pictures, monkeypatch):
    learner = trainer(pictures, head_start=2)
    monkeypatch.setattr(learner, "latents", lambda numbers: pytest.fail("a clip was asked for"))
    before = {name: weight.clone() for name, weight in learner.model.named_parameters()}
    assert learner.step(1).keys() == learner.step(2).keys() == {"naming", "courses"}
    changed = {
        name.partition(".")[0] for name, weight in learner.model.named_parameters() if (weight != before[name]).any()
    }
    assert {"listen", "condition", "moment", "course"} <= changed
    monkeypatch.undo()
    assert learner.step(3).keys() == {"naming", "courses", "loss", "error", "figures", "ways"}


def test_a_course_begins_at_the_known_frame_and_is_told_by_the_sentence():
    model, near = speaking(), torch.full((2, 6), 2)
    level = torch.ones(2, 6)
    level[:, 2] = 0
    courses = model.courses(model.listen(torch.randn(2, 5, 16)), near, level)
    assert courses.shape == (2, 6, 2)
    assert not courses[:, 2].any()
    assert (courses[0, 5] - courses[1, 5]).abs().min() > 1e-4
    assert not network().courses(torch.randn(2, 16), near, level).any()  # before anything is learnt


def test_what_is_not_seen_has_gone_nowhere_and_counts_nothing():
    gone = torch.tensor([[[0.5, 3.0], [float("nan"), float("nan")]]])
    assert training.strayed(torch.zeros(1, 2, 2), gone).item() == pytest.approx((0.125 + 2.5) / 2)
    assert training.strayed(torch.zeros(1, 1, 2), gone[:, 1:]).item() == 0


def test_one_frame_or_some_that_begin_the_clip_are_known():
    rng = np.random.default_rng(2)
    seen = [training.level(rng, 16, (-0.8, 1.6)) for _ in range(2000)]
    known = [tuple(np.flatnonzero(levels == 0)) for levels in seen]
    assert all(len({*levels} - {0.0}) == 1 for levels in seen)
    assert {len(k) for k in known} == {1, 2, 3, 4}
    assert all(k == tuple(range(len(k))) for k in known if len(k) > 1)
    assert {k[0] for k in known if len(k) == 1} == set(range(16))
    first = np.mean([k == (0,) for k in known])
    assert first == pytest.approx(training.FIRST + training.ANY / 16, abs=0.04)
    alone = np.mean([level[image_to_video.middle(16)] == 0 and (level == 0).sum() == 1 for level in seen])
    assert alone == pytest.approx(training.MIDDLE + training.ANY / 16, abs=0.04)  # what text to video asks for


def test_latents_in_a_pool_are_those_that_are_made_anew(pictures, tmp_path):
    pooled, fresh = (trainer(pictures, pool=path) for path in (str(tmp_path / "pool"), ""))
    exact = fresh.latents([4, 0, 4])
    torch.testing.assert_close(pooled.latents([4, 0, 4]), exact, atol=2e-3, rtol=2e-3)
    made = []
    again = pooled.pool.take([0, 4, 2], lambda numbers: made.extend(numbers) or torch.ones(1, *pooled.shape))
    assert made == [2]
    torch.testing.assert_close(again[:2], exact[[1, 0]], atol=2e-3, rtol=2e-3)
    assert torch.equal(again[2], torch.ones(pooled.shape))


def test_a_pool_of_other_clips_is_refused(tmp_path):
    path = tmp_path / "pool"
    Pool(path, 3, (4, 2, 2, 2), {"seed": 1})
    Pool(path, 3, (4, 2, 2, 2), {"seed": 1})
    for count, made_by in ((4, {"seed": 1}), (3, {"seed": 2})):
        with pytest.raises(TrainingError, match="other clips"):
            Pool(path, count, (4, 2, 2, 2), made_by)
    for damage in ("made-by.json", "latents.npy"):
        (path / damage).write_bytes(b"{")
        with pytest.raises(TrainingError, match="holds no latents"):
            Pool(path, 3, (4, 2, 2, 2), {"seed": 1})
    assert [p.name for p in tmp_path.iterdir()] == ["pool"]


def test_of_two_that_begin_a_pool_at_once_the_slower_takes_the_others(tmp_path):
    path, made = tmp_path / "runs" / "pool", {"shape": [3, 4, 2, 2, 2]}
    pool._begin(path, (3, 4, 2, 2, 2), made)
    Pool(path, 3, (4, 2, 2, 2), {}).take([1], lambda numbers: torch.ones(1, 4, 2, 2, 2))
    pool._begin(path, (3, 4, 2, 2, 2), made)  # it had looked before the other was done
    assert [p.name for p in path.parent.iterdir()] == ["pool"]
    assert Pool(path, 3, (4, 2, 2, 2), {}).take([1], lambda numbers: None).all()


def test_what_was_written_in_part_is_made_anew(tmp_path):
    filled = Pool(tmp_path / "pool", 3, (4, 2, 2, 2), {})
    np.load(tmp_path / "pool" / "latents.npy", mmap_mode="r+")[1, 0] = 7
    ones = torch.ones(1, 4, 2, 2, 2)
    assert torch.equal(filled.take([1], lambda numbers: ones), ones)
    assert torch.equal(filled.take([1], lambda numbers: 2 * ones), ones)


def test_frames_begin_with_noise_that_they_share_in_part(pictures):
    for shared in (0.0, 0.5, 1.0):
        learner = trainer(pictures, shared=shared, frames=6, height=128, width=128)
        e = torch.cat([learner._noise(1, i).flatten(2) for i in range(8)], dim=2)  # (c, t, n)
        assert e.std() == pytest.approx(1, abs=0.04)
        table = torch.corrcoef(e.transpose(0, 1).flatten(1))
        torch.testing.assert_close(table, torch.eye(6) * (1 - shared) + shared, atol=0.05, rtol=0)


def test_samples_are_drawn_in_numbers_of_any_kind(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "has_bfloat16", lambda where: True)
    learner = trainer(pictures, bfloat16=True)
    assert learner.kind == torch.bfloat16
    assert np.isfinite(learner.step(1)["loss"])
    learner.draw_samples(tmp_path / "samples.png", learner.kept())
    assert (tmp_path / "samples.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("changes", "kind", "hint"),
    [
        ({"clips": 0}, TrainingError, "1 or more"),
        ({"frames": 5}, TrainingError, "an even number: 6"),
        ({"frames": 2}, TrainingError, "an even number: 4"),
        ({"height": 100}, TrainingError, "nearest: 96"),
        ({"width": 0}, TrainingError, "nearest: 32"),
        ({"model": "tyni"}, UnknownName, "tiny"),
        ({"worlds": {"circel": 1.0}}, UnknownName, "circle"),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_refused_before_anything_is_written(pictures, tmp_path, changes, kind, hint):
    with pytest.raises(kind) as error:
        dataclasses.replace(TINY, pictures=str(pictures), **changes).train(tmp_path / "run", device="cpu")
    assert hint in error.value.hint
    assert not (tmp_path / "run").exists()


def test_a_model_that_predicts_noise_is_refused(picture_model, tmp_path):
    with pytest.raises(WeightsError, match="predicts") as error:
        dataclasses.replace(TINY, pictures=str(picture_model("sd"))).train(tmp_path / "run", device="cpu")
    assert "velocities" in error.value.hint


def test_weights_of_another_autoencoder_are_no_beginning(pictures, tmp_path):
    dataclasses.replace(TINY, pictures=str(pictures), steps=1).train(tmp_path / "first", device="cpu")
    checkpoint.save(
        tmp_path / "first" / weights.MODEL,
        load_file(tmp_path / "first" / weights.MODEL),
        weights.configuration(tmp_path / "first") | {"autoencoder": "0"},
    )
    weights.seal(tmp_path / "first")
    with pytest.raises(WeightsError, match="another picture model"):
        trainer(pictures, start=str(tmp_path / "first"))


def test_a_plain_transformer_has_the_same_outside():
    sizes = image_to_video.PRESETS["plain"] | {"width": 32, "layers": 1, "heads": 2}
    model = image_to_video.Model(image_to_video.Config(latents=4, words=16, **sizes))
    clip, level, *told = asked(level=0.8)
    assert model(clip, level, *told).clean.shape == clip.shape


def test_resuming_takes_the_very_steps_that_would_have_come(pictures, tmp_path):
    recipe = dataclasses.replace(TINY, pictures=str(pictures), pool=str(tmp_path / "pool"))

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


def test_a_run_may_begin_with_the_weights_of_another_and_says_so(pictures, tmp_path):
    dataclasses.replace(TINY, pictures=str(pictures), steps=2).train(tmp_path / "first", device="cpu")
    second = dataclasses.replace(TINY, pictures=str(pictures), start=str(tmp_path / "first"), steps=1)
    begun, kept = trainer(pictures, start=second.start), load_file(tmp_path / "first" / weights.MODEL)
    assert all(torch.equal(value, kept[name]) for name, value in begun.model.state_dict().items())
    second.train(tmp_path / "second", device="cpu")
    told = weights.configuration(tmp_path / "second")
    assert told["before"]["weights"] == weights.sha256(tmp_path / "first" / weights.MODEL)
    assert (told["before"]["steps"], told["before"]["batch"]) == (2, TINY.batch)
    assert told["recipe"]["start"] == "first"


def test_a_picture_model_that_is_none_or_not_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(weights, "pictures", list)
    with pytest.raises(WeightsError, match="pocket-image") as refused:
        TINY.train(tmp_path / "run", device="cpu")
    assert "pocket-autoencoder, then pocket-image" in refused.value.hint
    assert not (tmp_path / "run").exists()


# ---- the engine


def test_the_unfinished_weights_fit_the_package_and_its_pictures():
    folder = Path(__file__).parents[2] / "unfinished" / "image-to-video"
    found = weights.configuration(folder, training.KIND)
    model = image_to_video.Model(image_to_video.Config.of(found["config"]))
    assert checkpoint.load_model(folder, model)
    assert sharing.lender(folder)[0] == weights.HERE / weights.POCKET
    assert "/" not in found["recipe"]["pictures"] + found["recipe"]["start"] + found["recipe"]["pool"]
    sizes = image_to_video.PRESETS[recipes.get("image-to-video").model]
    assert {name: found["config"][name] for name in sizes} == sizes


@pytest.fixture(scope="module")
def reference(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("moving") / "run"
    latents = str(folder.parent / "pool")
    dataclasses.replace(TINY, pictures=str(pictures), pool=latents, steps=2).train(folder, device="cpu")
    yield f"flow:{folder}"
    engine.warm.clear()


def make(reference, on_progress=lambda progress: None, options=None, **more):
    request = engine.describe(reference).request("a red ball", seed=5, options={"steps": 2} | (options or {}), **more)
    return engine.generate(reference, request, on_progress, device="cpu")


def test_the_engine_draws_a_still_and_then_a_clip_around_it(reference):
    told = []
    video = make(reference, told.append, options={"steps": 3}, width=64, frames=3)
    assert video.frames.shape == (3, 32, 64, 3)
    assert [p.step for p in told] == [1, 2, 3, 4, 5, 6]
    assert {p.steps for p in told} == {6}
    assert all(p.preview.shape == (32, 64, 3) for p in told)
    assert engine.reproduce(video, device="cpu").same
    assert engine.describe(reference).Options().guided_above == 0.5


def test_what_it_begins_with_is_what_its_picture_model_draws(reference):
    loaded = engine.warm.get(reference, "cpu", engine.describe(reference).weights)
    seen = loaded._seen["float32"]
    ids, e = seen.ids(["a red ball", ""]), torch.randn(1, *seen.shape(1, 32, 32))
    settings = flow.Settings(steps=3, shift=2.0, guidance=2.0)
    known = seen.begin(ids, lambda *path: e, settings, lambda *told: None)
    assert known.at == 1
    assert torch.equal(known.frames, flow.sample(seen.model.stills, ids[:1], ids[1:], e, settings))


def test_the_still_is_the_same_whatever_the_number_of_frames(reference):
    one, two, four = (make(reference, frames=frames).frames for frames in (1, 2, 4))
    assert np.array_equal(one[0], two[0])
    assert np.array_equal(one[0], four[1])


def test_a_single_frame_is_the_still_and_takes_no_more_steps_than_that(reference, monkeypatch):
    two, told = make(reference, frames=2).frames, []
    monkeypatch.setattr(image_to_video.Experts, "forward", lambda *given: pytest.fail("no clip was asked for"))
    one = make(reference, told.append, frames=1).frames
    assert np.array_equal(one[0], two[0])
    assert [(p.step, p.steps) for p in told] == [(1, 2), (2, 2)]


def test_all_noise_in_common_and_a_silent_network_make_a_clip_that_stands_still(pictures, tmp_path):
    """The frames' noise is that of the still, so the model of stills says the same of all of them."""
    recipe = dataclasses.replace(TINY, pictures=str(pictures), shared=1.0, rate=0.0, steps=1)
    recipe.train(tmp_path / "run", device="cpu")
    frames = make(f"flow:{tmp_path / 'run'}", options={"sampler": "euler"}, frames=4).frames
    others = frames[[0, 2, 3]].astype(int)
    assert np.abs(others - others[:1]).max() <= 1
    engine.warm.clear()


def test_longer_clips_are_made_window_by_window(reference):
    told = []
    video = make(reference, told.append, frames=9)
    assert len(video.frames) == 9
    assert [p.step for p in told] == list(range(1, told[0].steps + 1))


def test_a_model_and_its_pictures_may_be_moved_together(reference, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / pictures.name)
    shutil.copytree(reference.partition(":")[2], tmp_path / "moving")
    moved = f"flow:{tmp_path / 'moving'}"
    header = json.dumps(weights.configuration(tmp_path / "moving"))
    assert str(pictures.parent) not in header
    assert str(tmp_path.parent) not in header
    assert fingerprint(make(moved).frames) == fingerprint(make(reference).frames)


def test_it_says_which_sizes_it_can_draw(reference):
    assert engine.describe(reference).sizes.multiple == 32  # cells of eight pixels, halved twice


def test_it_goes_on_from_known_frames(reference, tmp_path):
    Image.new("RGB", (64, 32), (200, 30, 30)).save(tmp_path / "red.png")
    told = []
    video = make(reference, told.append, options={"start": str(tmp_path / "red.png")}, frames=9)
    assert len(video.frames) == 9
    assert (video.frames[0] == (200, 30, 30)).all()
    assert [p.step for p in told] == list(range(1, told[0].steps + 1))


def test_it_computes_in_bfloat16_where_asked(reference):
    exact, rounded = (make(reference, options={"precision": kind}).frames for kind in ("float32", "bfloat16"))
    assert 0 < np.abs(exact.astype(int) - rounded).mean() < 8


def test_words_that_are_not_known_are_told(reference):
    request = engine.describe(reference).request("a red zebra", seed=1, options={"steps": 1})
    with pytest.warns(UserWarning, match="does not know 'zebra'"):
        engine.generate(reference, request, device="cpu")


def test_latents_of_clips_are_drawn_again_frame_by_frame(pictures):
    moving = seeing.animating(pictures, network(), CPU, frames=16, shared=0.5)
    clip = torch.rand(2, 3, 3, 32, 64) * 2 - 1
    latents = moving.encode(clip)
    assert latents.shape == (2, *moving.shape(3, 32, 64))
    alone = moving.encode(clip[:, :, 1:2])
    torch.testing.assert_close(latents[:, :, 1:2], alone, atol=1e-5, rtol=1e-5)
    assert moving.decode(latents).shape == clip.shape


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
