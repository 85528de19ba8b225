"""Pictures set in motion: the networks, what they learn from, and the engine."""

import dataclasses
import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from kinetograph import engine, layers, weights
from kinetograph.errors import Interrupted, TrainingError, UnknownName, WeightsError
from kinetograph.neural import animating, checkpoint, flow, pixels, seeing
from kinetograph.neural import layers as sheets
from kinetograph.neural.device import noise
from kinetograph.neural.models import image_to_video
from kinetograph.neural.pictures import denoiser, pocket
from kinetograph.neural.training import image_to_video as training
from kinetograph.neural.training import recipes, run
from kinetograph.shelf import WORLDS
from kinetograph.video import fingerprint

TINY = recipes.get("image-to-video-tiny")
CPU = torch.device("cpu")
CONFIG = image_to_video.Config(tokens=20, end=19, length=8, frames=6, **image_to_video.PRESETS["tiny"])
SLOTS = len(layers.LAYERS)


def speaking():
    """Networks whose silent layers say something."""
    torch.manual_seed(4)
    model = image_to_video.Model(CONFIG).eval()
    for weight in model.parameters():
        weight.data.add_(torch.randn_like(weight) * 0.05)
    return model.requires_grad_(False)


def ids(*sentences):
    """Token ids of sentences: each begins with 18, and ends and is filled up with 19."""
    return torch.tensor([([18, *sentence] + [19] * 8)[:8] for sentence in sentences])


ONE, OTHER, NOTHING = (3, 4, 5), (6, 4), ()


def said(model, *sentences):
    return model.read(ids(*(sentences or (ONE, OTHER))))


def known(count=2, given=()):
    """What is known of clips of six frames with a subject and its shadow."""
    there = torch.tensor([[True, False, True, False]]).expand(count, -1)
    seen = sheets.Seen(torch.full((count, SLOTS, 2), 0.5), torch.full((count, SLOTS), -2.0), there.float(), there)
    frames = torch.zeros(count, 6, dtype=torch.bool)
    frames[:, list(given)] = True
    return sheets.known(seen, torch.ones(count, SLOTS), frames, torch.rand(count, SLOTS, 6, 2))


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


# ---- the networks


def test_sentences_are_read_up_to_their_end_and_no_further():
    model = speaking()
    both, alone = said(model, ONE, OTHER), said(model, OTHER)
    assert both.mask.tolist() == [[True] * 5, [True] * 4 + [False]]
    torch.testing.assert_close(both.whole[1:], alone.whole, atol=1e-5, rtol=1e-5)
    assert (both.whole[0] - both.whole[1]).abs().max() > 1e-3
    begins_as_it_ends = ids(ONE).where(ids(ONE) != 18, 19)
    torch.testing.assert_close(model.read(begins_as_it_ends).whole, both.whole[:1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (48, 80)])
def test_layers_are_found_in_pictures_of_any_size_and_by_what_is_said(size):
    model, pictures = speaking(), torch.rand(2, 3, *size) * 2 - 1
    found = model.matting(pictures, said(model))
    assert found.mattes.shape == (2, SLOTS, *size)
    assert found.lack.shape == pictures.shape
    assert found.facing.shape == (2, SLOTS)
    other = model.matting(pictures, said(model, OTHER, ONE))
    assert (other.mattes - found.mattes).abs().amax((1, 2, 3)).min() > 1e-4


def test_which_way_layers_face_the_picture_says_and_not_the_sentence():
    """All else the sentence has a say in."""
    model, pictures = speaking(), torch.rand(2, 3, 32, 32) * 2 - 1
    one, other, none = (model.find(pictures, ids(sentence)) for sentence in (ONE, OTHER, NOTHING))
    torch.testing.assert_close(one.facing, other.facing, atol=1e-4, rtol=1e-4)
    assert (one.mattes - other.mattes).abs().amax((1, 2, 3)).min() > 1e-4
    direct = model.matting(pictures, said(model, ONE, ONE))
    torch.testing.assert_close(one.mattes, direct.mattes, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.lack, direct.lack, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(none.facing, model.matting(pictures, said(model, NOTHING, NOTHING)).facing)
    assert (direct.facing - one.facing).abs().max() > 1e-5


@pytest.mark.parametrize("sides", [("left", "right"), ("right", "left")])
def test_the_bundled_network_sees_which_way_an_animal_faces_whatever_the_sentence_says(sides):
    drawn, asked = sides
    seen, world = seen_by("flow"), WORLDS["critters"]
    rng, wanted = np.random.default_rng(2), {"action": "walks", "direction": drawn}
    scenes = [world.sample(rng, wanted | {"animal": animal}) for animal in ("dog", "cat", "mouse", "rabbit")]
    pictures = pixels.to_model(world.draw(scenes, 1, 128, 128, xp=torch))[:, :, 0]
    with torch.inference_mode():
        facing = seen.network.find(pictures, seen.ids([f"an animal walks to the {asked}"])).facing[:, 2]
    assert ((facing > 0) == (drawn == "right")).all()


def test_mattes_are_never_more_than_all_and_what_is_not_covered_is_as_it_was():
    torch.manual_seed(1)
    pictures, fringe = torch.rand(1, 3, 8, 12), 4 + image_to_video.FRINGE
    logits = torch.full((1, SLOTS, 8, 12), -30.0)
    logits[..., :4] = 30.0  # all four lie on the left
    pictures[..., fringe:] = 0.25
    found = image_to_video.Found(logits, torch.zeros_like(pictures), torch.tensor([[-1.0, 1.0, -1.0, 2.0]]))
    still, facing = image_to_video.taken_apart(pictures, found, drawn=True)
    torch.testing.assert_close(still.mattes.sum(1)[..., :4], torch.ones(1, 8, 4))
    torch.testing.assert_close(still.behind, torch.full_like(pictures, 0.25))  # a little of a layer may show around it
    assert facing.tolist() == [[1.0, 1.0, -1.0, 1.0]]  # shadows face nowhere


def test_a_pixel_of_two_layers_is_whose_it_is_more():
    logits = torch.full((1, SLOTS, 1, 1), -30.0)
    logits[0, 2], logits[0, 3] = torch.logit(torch.tensor(0.6)), torch.logit(torch.tensor(0.3))
    found = image_to_video.Found(logits, torch.zeros(1, 3, 1, 1), torch.ones(1, SLOTS))
    still, _ = image_to_video.taken_apart(torch.ones(1, 3, 1, 1), found, drawn=True)
    assert still.mattes.flatten().tolist() == pytest.approx([0, 0, 0.9 * 16 / 17, 0.9 / 17], abs=1e-4)


def test_what_is_drawn_has_the_colours_that_it_should_and_what_is_given_those_that_it_has():
    logits = torch.full((1, SLOTS, 2, 2), -30.0)
    logits[0, 2, :, 0] = 30.0
    given = torch.full((1, 3, 2, 2), 0.5)
    for lack, colour in ((0.25, 0.75), (0.75, 1.0)):  # no colour is more
        found = image_to_video.Found(logits, torch.full_like(given, lack), torch.ones(1, SLOTS))
        assert (image_to_video.taken_apart(given, found, drawn=True)[0].colours == colour).all()
    assert (image_to_video.taken_apart(given, found, drawn=False)[0].colours[..., 0] == 0.5).all()


def test_what_a_frame_tells_depends_on_the_others_on_the_words_and_on_what_is_known():
    model = speaking()
    courses, told = model.courses, said(model)
    noisy, level = torch.randn(2, SLOTS, 6, 7), torch.tensor([0.5, 0.9])
    before = courses(noisy, level, told, known())
    changed = noisy.clone()
    changed[:, :, 5] += 1
    assert (courses(changed, level, told, known()) - before)[:, :, :5].abs().amax((1, 3)).min() > 1e-5
    assert (courses(noisy, level, said(model, OTHER, ONE), known()) - before).abs().amax((1, 3)).min() > 1e-5
    for given in ((0,), (0, 1)):
        assert (courses(noisy, level, told, known(given=given)) - before).abs().amax((1, 3)).min() > 1e-5


def test_layers_that_are_not_there_go_nowhere():
    """While courses are sampled, too: a network has never seen them anywhere else, and errs where it does."""
    model = speaking()
    courses, told = model.courses, said(model)
    guess = courses(torch.randn(2, SLOTS, 6, 7), torch.tensor([0.5, 0.9]), told, known())
    nothing = courses.whitened(torch.zeros_like(guess))
    assert torch.equal(guess[:, [1, 3]], nothing[:, [1, 3]])
    assert (guess[:, [0, 2]] != nothing[:, [0, 2]]).all()


def test_an_untrained_network_is_the_best_linear_filter():
    """Of courses that are smooth in a way of their own: no other share of a component comes nearer to them."""
    torch.manual_seed(2)
    whole, lives = image_to_video.Model(CONFIG).eval(), torch.linspace(0, 1, 6)
    model, told = whole.courses, whole.read(ids(NOTHING).expand(4000, -1))
    ways = torch.randn(4000, SLOTS, 1, 7) * lives[:, None] * 2 + torch.randn(4000, SLOTS, 1, 7) * 0.5
    model.look_at(ways, torch.ones(4000, SLOTS, dtype=torch.bool))
    for level in (0.2, 0.6, 0.9):
        noisy = (1 - level) * ways + level * torch.randn_like(ways)
        with torch.no_grad():
            guess = model(noisy, torch.full((4000,), level), told, known(4000))
        shown, found, true = (part[:, [0, 2]] for part in (noisy, guess, ways))  # those that are there
        error = (found - true).square().mean()
        assert error < 0.5 * (shown / (1 - level) - true).square().mean()
        for share in (0.93, 1.07):
            assert (share * found - true).square().mean() > error


def test_principal_components_are_of_layers_that_are_there():
    model = image_to_video.Model(CONFIG).courses
    steps, there = torch.randn(50, SLOTS, 6, 7), torch.zeros(50, SLOTS, dtype=torch.bool)
    there[:25, 2], steps[25:] = True, float("nan")
    before = model.components[0].axes.clone()
    model.look_at(steps, there)
    assert torch.equal(model.components[0].axes, before)  # of none that is there
    assert model.components[2].spread.isfinite().all()


# ---- sampling


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_clips_of_the_bundled_network_are_the_same_with_any_number_of_threads(guidance):
    seen, world = seen_by("flow"), WORLDS["critters"]
    scene = world.sample(np.random.default_rng(1), {"animal": "dog"})
    picture = pixels.to_model(world.draw([scene], 1, 128, 128, xp=torch))[:, :, 0]
    e = noise(4, shape=(1, SLOTS, seen.frames, 7))
    before, clips = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            with torch.inference_mode():
                sentences = seen.ids(["a dog runs to the right", ""])
                stage = animating.staged(seen.network, picture, sentences, seen.frames, given=False)
                clips.append(stage.clip(stage.sample(e, animating.Settings(guidance=guidance))))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(clips[1], clips[0], atol=1e-4, rtol=0)


def test_given_frames_are_known_with_their_places_and_the_last_is_the_still():
    picture = torch.rand(3, 3, 32, 32) * 2 - 1
    stage = animating.staged(speaking(), picture, ids(ONE, NOTHING), 6, given=True)
    torch.testing.assert_close(stage.still.colours, sheets.coloured(picture[-1:], *stage.still[1:]))
    assert (stage.known.bound.tolist(), stage.known.last.tolist()) == ([1.0], [2])
    assert stage.known.numbers[0, :, :, 4].sum(0).gt(0).tolist() == [True] * 3 + [False] * 3
    free = animating.staged(speaking(), picture[-1:], ids(ONE, NOTHING), 6, given=False)
    assert not free.known.numbers[..., 4:].any()
    lack = speaking().find(picture[-1:], ids(ONE)).lack
    torch.testing.assert_close(free.still.colours, (picture[-1:] + lack).clamp(-1, 1))


# ---- stills by a model of stills


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


# ---- learning


def test_every_weight_learns(pictures):
    learner = trainer(pictures)
    before = {name: p.detach().clone() for name, p in learner.model.named_parameters()}
    for step in range(1, 5):
        learner.step(step)
    assert all(not torch.equal(p, before[name]) for name, p in learner.model.named_parameters())


def test_a_head_start_is_of_naming_alone(pictures):
    learner = trainer(pictures, head_start=2)
    before = {name: weight.clone() for name, weight in learner.model.named_parameters()}
    assert learner.step(1).keys() == learner.step(2).keys() == {"naming"}
    changed = {
        name.partition(".")[0] for name, weight in learner.model.named_parameters() if (weight != before[name]).any()
    }
    assert changed == {"text"}
    assert learner.step(3).keys() == {"naming", "courses", "mattes", "colours", "facing"}


def test_a_batch_that_comes_again_and_again_is_learnt(pictures):
    how = {"signal": (-1.0, 1.5), "bound": 0.2}  # levels where most is to be learnt
    learner = trainer(pictures, rate=5e-3, steps=1000, wordless=0.0, worlds={"shapes": 0.5, "critters": 0.5}, **how)
    told = [learner.step(1) for _ in range(60)]
    assert told[-1]["naming"] < 0.5 * told[0]["naming"]
    assert told[-1]["courses"] < 0.7 * told[0]["courses"]
    assert told[-1]["mattes"] < 0.7 * told[0]["mattes"]
    assert told[-1]["colours"] < 0.7 * told[0]["colours"]


def test_what_is_true_of_scenes_puts_their_clips_together(pictures):
    """The steps that a network learns, laid out, are read as the scenes are, whether frames are given or none."""
    worlds = {"circle": 0.3, "shapes": 0.7}
    learner = trainer(pictures, frames=16, height=128, width=128, worlds=worlds, redrawn=0.0)
    asked = learner.asked(1, range(12))
    steps, told, there = learner.truth(asked)
    assert (told.bound.bool().numpy() == asked.given.any(1)).all()
    stills, mattes, colours, _ = learner._stills(asked, 12)
    clean, behind = (learner._drawn(asked, how) for how in ("draw", "behind"))
    assert (stills - clean).abs().mean() < 0.05
    seen = sheets.measured(mattes)
    clip = sheets.put_together(sheets.Still(colours, mattes, behind), seen._replace(there=there), steps)
    for world, scene, frames, visible in zip(asked.worlds, asked.scenes, pixels.to_frames(clip), there, strict=True):
        wanted = WORLDS[world].attributes(scene)
        if "appear" in wanted.get("motion", "") or "relation" in wanted or not visible.any():
            continue  # what is not whole in the still is not whole in the clip
        assert WORLDS[world].read(frames) == wanted


def test_stills_that_are_not_given_are_drawn_anew_for_their_sentences(pictures):
    """By a model that says what is clean they come back as its autoencoder leaves them; it hears the sentence, and of
    as much noise as leaves things in their places. Those that are given, or without a sentence, stay as they are."""
    learner = trainer(pictures, redrawn=1.0)
    asked, told = learner.asked(1, range(30)), []
    clean = learner._drawn(asked, "draw")
    coded = learner.pictures.encode(clean)
    may = ~asked.given.any(1) & np.array([caption != "" for caption in asked.captions])
    assert 0 < may.sum() < 30

    class Knowing(torch.nn.Module):
        def forward(self, noisy, level, ids):
            if not told or not torch.equal(told[-1][0], ids):
                told.append((ids, level.item()))
            return coded[np.flatnonzero(may)[len(told) - 1]][None, :, None]

    learner.drawing = Knowing()
    drawn = learner._redrawn(clean, asked)
    torch.testing.assert_close(drawn[may], learner.pictures.decode(coded[may]), atol=1e-4, rtol=0)
    assert torch.equal(drawn[~may], clean[~may])
    heard = torch.cat([ids for ids, _ in told])
    assert torch.equal(heard, learner.ids([caption for caption, one in zip(asked.captions, may, strict=True) if one]))
    assert {round(level, 3) for _, level in told} == {0.842, 0.774, 0.667}


def test_what_is_drawn_anew_depends_on_seed_and_step_and_place_alone(pictures):
    learner = trainer(pictures)
    whole, part = (learner.asked(1, places) for places in (range(40), range(30, 40)))
    clean = learner._drawn(whole, "draw")
    drawn = learner._redrawn(clean, whole)
    torch.testing.assert_close(learner._redrawn(clean[30:], part), drawn[30:])
    changed = (drawn != clean).flatten(1).any(1).numpy()
    may = ~whole.given.any(1) & np.array([caption != "" for caption in whole.captions])
    assert changed[may].mean() == pytest.approx(TINY.redrawn, abs=0.25)
    for redrawn in (0.0, 1.0):  # what is to be learnt of them stays as it is true
        told = trainer(pictures, redrawn=redrawn)._stills(learner.asked(1, range(4)), 4)
        torch.testing.assert_close(told[1:], learner._stills(learner.asked(1, range(4)), 4)[1:])


def test_middles_are_told_of_frames_that_are_given_and_of_no_others(pictures):
    learner = trainer(pictures, frames=16)
    asked = learner.asked(2, range(12))
    moments = np.tile(np.linspace(0, 1, 16)[: animating.MOST_GIVEN], (12, 1))
    shown = learner._visible(asked, moments, training.SMALL)
    middles = torch.stack([sheets.measured(shown[:, :, i]).middles for i in range(animating.MOST_GIVEN)], dim=2)
    _, told, there = learner.truth(asked)
    seen = torch.from_numpy(asked.given)[:, None, :4] & there[:, :, None]
    assert seen.any()
    wanted = torch.where(seen[..., None], (middles - sheets.CENTRE) / sheets.AROUND, 0)
    stray = 5 * training.STRAYS / sheets.AROUND
    torch.testing.assert_close(told.numbers[:, :, :4, 5:], wanted, atol=stray, rtol=0)
    assert not told.numbers[:, :, 4:, 4:].any()


def test_some_layers_are_told_to_face_the_other_way_and_shadows_never_are(pictures):
    asked = trainer(pictures, worlds={"critters": 1.0}).asked(1, range(300))
    free = ~asked.given.any(1)
    for rows, often in zip((free, ~free), TINY.turned, strict=True):
        assert (asked.turned[rows][:, list(layers.FIGURES)] < 0).mean() == pytest.approx(often, abs=0.08)
    assert (asked.turned[:, list(layers.SHADOWS)] == 1).all()
    assert (trainer(pictures, worlds={"circle": 1.0}).asked(1, range(20)).turned == 1).all()  # it looks nowhere


def test_the_first_frames_are_given_or_none_and_the_still_is_the_last_of_them(pictures):
    asked = trainer(pictures, frames=16).asked(2, range(400))
    counts = asked.given.sum(1)
    assert (counts == 0).mean() == pytest.approx(1 - TINY.given, abs=0.08)
    assert set(counts) == {0, 1, 2, 3, 4}
    for given, count, moment in zip(asked.given, counts, asked.moments, strict=True):
        assert given[:count].all()
        assert count == 0 or moment == pytest.approx((count - 1) / 15)


def test_what_is_taught_depends_on_seed_and_step_and_place_alone(pictures):
    learner = trainer(pictures)
    whole, part = learner.asked(3, range(6)), learner.asked(3, range(4, 6))
    assert whole.captions[4:] == part.captions
    assert whole.scenes[4:] == part.scenes
    assert (whole.moments[4:] == part.moments).all()
    assert learner.asked(4, range(6)).captions != whole.captions
    (steps, told, _), (some, known_, _) = learner.truth(whole), learner.truth(part)
    torch.testing.assert_close(steps[4:], some)
    for one, other in zip(told, known_, strict=True):
        torch.testing.assert_close(one[4:], other)
    assert torch.equal(learner._normal(whole, 3)[4:], learner._normal(part, 3))  # whatever was drawn before, too


def test_stills_are_looked_at_in_bfloat16_where_there_are_instructions_for_it(pictures, monkeypatch):
    monkeypatch.setattr(run, "has_bfloat16", lambda where: True)
    told = {kind: trainer(pictures, bfloat16=kind).step(1) for kind in (False, True)}
    assert told[True]["courses"] == told[False]["courses"]
    assert told[True]["mattes"] == pytest.approx(told[False]["mattes"], rel=0.05)
    assert told[True]["mattes"] != told[False]["mattes"]


def test_samples_are_drawn(pictures, tmp_path):
    learner = trainer(pictures)
    learner.draw_samples(tmp_path / "samples.png", learner.kept())
    with Image.open(tmp_path / "samples.png") as sheet:
        assert sheet.height > 4 * 32


@pytest.mark.parametrize(
    ("changes", "kind", "hint"),
    [
        ({"stills": 0}, TrainingError, "1 to 4"),
        ({"stills": 5}, TrainingError, "1 to 4"),
        ({"frames": 2}, TrainingError, "4 or more"),
        ({"height": 100}, TrainingError, "nearest: 96"),
        ({"width": 0}, TrainingError, "nearest: 16"),
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


def test_weights_of_a_network_before_this_one_are_no_beginning(pictures, tmp_path):
    dataclasses.replace(TINY, pictures=str(pictures), steps=1).train(tmp_path / "first", device="cpu")
    found = weights.configuration(tmp_path / "first")
    found["config"]["heights"] = found["config"].pop("hidden")
    checkpoint.save(tmp_path / "first" / weights.MODEL, load_file(tmp_path / "first" / weights.MODEL), found)
    weights.seal(tmp_path / "first")
    with pytest.raises(WeightsError):
        trainer(pictures, start=str(tmp_path / "first"))


def test_weights_of_other_sizes_are_no_beginning(pictures, tmp_path):
    dataclasses.replace(TINY, pictures=str(pictures), steps=1).train(tmp_path / "first", device="cpu")
    with pytest.raises(WeightsError, match="other sizes"):
        trainer(pictures, start=str(tmp_path / "first"), frames=6)


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


@pytest.fixture(scope="module")
def reference(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("moving") / "run"
    dataclasses.replace(TINY, pictures=str(pictures), steps=2).train(folder, device="cpu")
    yield f"flow:{folder}"
    engine.warm.clear()


def make(reference, on_progress=lambda progress: None, options=None, **more):
    request = engine.describe(reference).request("a red ball", seed=5, options={"steps": 2} | (options or {}), **more)
    return engine.generate(reference, request, on_progress, device="cpu")


def seen_by(reference):
    return engine.warm.get(reference, "cpu", engine.describe(reference).weights)._seen["float32"]


def test_the_engine_draws_a_still_and_then_sets_it_in_motion(reference):
    told = []
    video = make(reference, told.append, options={"steps": 3}, width=64, frames=3)
    assert video.frames.shape == (3, 32, 64, 3)
    assert [p.step for p in told] == [1, 2, 3, 4, 5, 6]
    assert {p.steps for p in told} == {6}
    assert all(p.preview.shape == (32, 64, 3) for p in told)
    assert engine.reproduce(video, device="cpu").same
    assert engine.describe(reference).Options().guided_above == 0.5


def test_the_still_is_what_its_picture_model_draws(reference):
    seen = seen_by(reference)
    told, e = seen.ids(["a red ball", ""]), torch.randn(1, seen.pictures.channels, 1, 4, 4)
    settings = flow.Settings(steps=3, shift=2.0, guidance=2.0)
    wanted = seeing.Wanted(told, 1, 32, 32, None)
    still = seen.sample(wanted, lambda shape, *path: e, seeing.Settings(settings), [lambda step: None] * 2)
    drawn = flow.sample(seen.stills, told[:1], told[1:], e, settings)
    assert torch.equal(still[:, :, 0], seen.pictures.decode(drawn[:, :, 0]))


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "euler", "heun", "heun-edm", "dpmpp-2m", "unipc"])
def test_every_sampler_makes_the_same_clip_again(reference, sampler):
    one, two = (make(reference, options={"sampler": sampler, "steps": 3}, frames=4).frames for _ in range(2))
    assert np.array_equal(one, two)


def test_a_single_frame_is_the_still_and_takes_no_more_steps_than_that(reference, monkeypatch):
    told = []
    monkeypatch.setattr(animating, "staged", lambda *given: pytest.fail("no clip was asked for"))
    assert len(make(reference, told.append, frames=1).frames) == 1
    assert [(p.step, p.steps) for p in told] == [(1, 2), (2, 2)]


def test_a_clip_of_more_frames_is_the_same_performance(reference):
    four, seven = (make(reference, frames=frames).frames for frames in (4, 7))
    assert np.array_equal(four, seven[::2])


def test_clips_longer_than_a_window_are_made_window_by_window(reference):
    told = []
    video = make(reference, told.append, frames=4 * TINY.frames + 1)
    assert len(video.frames) == 17
    assert [p.step for p in told] == list(range(1, told[0].steps + 1))
    assert engine.reproduce(video, device="cpu").same


def test_every_step_of_a_way_can_be_watched(reference):
    loaded = engine.warm.get(reference, "cpu", engine.describe(reference).weights)
    request = engine.describe(reference).request("a red ball", seed=1, options={"steps": 3}, frames=4)
    told = []
    video = loaded.watch(request, lambda p: None, lambda index, count, x, clean: told.append((index, x, clean)))
    assert [index for index, *_ in told] == [0, 1, 2, 0, 1, 2]
    assert [x.shape[2] for _, x, _ in told] == [1, 1, 1, 4, 4, 4]
    assert len(loaded.levels(request)) == 4
    last = pixels.to_frames(told[-1][2])[0]
    assert np.abs(last.astype(int) - video.frames).mean() < 2  # what is clean at last is what is shown


def test_a_model_and_its_pictures_may_be_moved_together(reference, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / pictures.name)
    shutil.copytree(reference.partition(":")[2], tmp_path / "moving")
    moved = f"flow:{tmp_path / 'moving'}"
    header = json.dumps(weights.configuration(tmp_path / "moving"))
    assert str(pictures.parent) not in header
    assert str(tmp_path.parent) not in header
    assert fingerprint(make(moved).frames) == fingerprint(make(reference).frames)


def test_it_says_which_sizes_it_can_draw(reference):
    info = engine.describe(reference)
    assert info.sizes.multiple == 16
    assert "stills set in motion" in info.summary


def test_it_goes_on_from_known_frames_which_stay_as_they_are(reference, tmp_path):
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
