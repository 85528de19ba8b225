"""Clips in layers: the networks, what they learn from, and the engine."""

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
from kinetograph.errors import Interrupted, InvalidRequest, TrainingError, UnknownName, WeightsError
from kinetograph.motions import times
from kinetograph.neural import animating, checkpoint, pixels
from kinetograph.neural import layers as sheets
from kinetograph.neural.device import noise
from kinetograph.neural.models import layered, painting, text
from kinetograph.neural.training import drawings, recipes, run, scenes, stirring
from kinetograph.neural.training import layered as training
from kinetograph.shelf import WORLDS
from kinetograph.video import fingerprint

TINY = recipes.get("layered-tiny")
CPU = torch.device("cpu")
WORDS = text.Config(vocabulary=20, length=8, **text.PRESETS["tiny"])
CONFIG = layered.Config(frames=6, values=((3, 2), (4,)), **layered.PRESETS["tiny"] | {"text": WORDS})
SLOTS = len(layers.LAYERS)


def speaking():
    """Networks whose silent layers say something."""
    torch.manual_seed(4)
    model = layered.Model(CONFIG).eval()
    for weight in model.parameters():
        weight.data.add_(torch.randn_like(weight) * 0.05)
    return model.requires_grad_(False)


def ids(*sentences):
    """Token ids of sentences."""
    return torch.tensor([([text.SUMMARY, *sentence] + [text.PADDING] * 8)[:8] for sentence in sentences])


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


def trainer(**changes):
    return training.Trainer(dataclasses.replace(TINY, **changes).settled(), CPU, run.Processes())


# ---- the networks


def asked(model, slots, moments=0.5, chances=0.25, seed=0):
    """What is asked of a painter for the first sentence: layers at a moment."""
    count = len(slots)
    torch.manual_seed(seed)
    rest = torch.randn(1, painting.REST).expand(count, -1)
    chances = torch.full((count, len(layers.UNSAID)), chances)
    return painting.Asked(torch.tensor(slots), torch.full((count,), moments), chances, rest)


def test_what_is_drawn_depends_on_the_words_the_layer_the_moment_the_chances_and_the_rest():
    model = speaking()
    one, other = (said(model, sentence).rows(torch.zeros(2, dtype=torch.long)) for sentence in (ONE, OTHER))
    first = asked(model, [2, painting.BEHIND])
    ways = [(other, first), (one, asked(model, [3, 0])), (one, asked(model, [2, painting.BEHIND], moments=0.6))]
    ways += [(one, asked(model, [2, painting.BEHIND], chances=0.5)), (one, asked(model, [2, painting.BEHIND], seed=1))]
    before = drawn(model, one, first)
    for told, wanted in ways:
        assert all(
            (one - other).abs().max() > 1e-6 for one, other in zip(drawn(model, told, wanted), before, strict=True)
        )


def drawn(model, said, wanted):
    """The colours, covers and grounds that a painter draws of what is asked."""
    heard = model.painter.listener(said, wanted.slots)
    codes, hues = model.painter.codes(heard, wanted), model.painter.hues(heard, wanted)
    return *model.painter.layers(codes, hues), model.painter.grounds(codes, hues)


def test_squares_are_of_their_size_and_a_sentence_says_the_same_alone_and_beside_others():
    model = speaking()
    both = drawn(model, said(model, ONE, OTHER), asked(model, [2, 2]))
    side = painting.SIDE
    assert [part.shape for part in both] == [(2, 3, side, side), (2, side, side), (2, 3, 2 * side, 2 * side)]
    alone = drawn(model, said(model, OTHER), asked(model, [2]))
    for one, other in zip(alone, both, strict=True):
        torch.testing.assert_close(one, other[1:], atol=1e-4, rtol=1e-4)


def test_colours_are_the_same_at_all_moments():
    model = speaking()
    one = said(model, ONE).rows(torch.zeros(2, dtype=torch.long))
    early, late = (asked(model, [2, painting.BEHIND], moments=moment) for moment in (0.1, 0.9))
    heard = model.painter.listener(one, early.slots)
    assert torch.equal(model.painter.hues(heard, early), model.painter.hues(heard, late))
    assert not torch.equal(model.painter.codes(heard, early), model.painter.codes(heard, late))


@pytest.mark.parametrize("size", [(32, 32), (48, 80)])
def test_layers_are_found_in_pictures_of_any_size_and_by_what_is_said(size):
    model, pictures = speaking(), torch.rand(2, 3, *size) * 2 - 1
    found = model.matting(pictures, said(model))
    assert found.mattes.shape == (2, SLOTS, *size)
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
        facing = seen.model.find(pictures, seen.ids([f"an animal walks to the {asked}"])).facing[:, 2]
    assert ((facing > 0) == (drawn == "right")).all()


def test_mattes_are_never_more_than_all_and_what_is_not_covered_is_as_it_was():
    torch.manual_seed(1)
    pictures, fringe = torch.rand(1, 3, 8, 12), 4 + layered.FRINGE
    logits = torch.full((1, SLOTS, 8, 12), -30.0)
    logits[..., :4] = 30.0  # all four lie on the left
    pictures[..., fringe:] = 0.25
    found = layered.Found(logits, torch.tensor([[-1.0, 1.0, -1.0, 2.0]]))
    still, facing = layered.taken_apart(pictures, found)
    torch.testing.assert_close(still.mattes.sum(1)[..., :4], torch.ones(1, 8, 4))
    torch.testing.assert_close(still.behind, torch.full_like(pictures, 0.25))  # a little of a layer may show around it
    assert facing.tolist() == [[1.0, 1.0, -1.0, 1.0]]  # shadows face nowhere


def test_a_pixel_of_two_layers_is_whose_it_is_more():
    logits = torch.full((1, SLOTS, 1, 1), -30.0)
    logits[0, 2], logits[0, 3] = torch.logit(torch.tensor(0.6)), torch.logit(torch.tensor(0.3))
    still, _ = layered.taken_apart(torch.ones(1, 3, 1, 1), layered.Found(logits, torch.ones(1, SLOTS)))
    assert still.mattes.flatten().tolist() == pytest.approx([0, 0, 0.9 * 16 / 17, 0.9 / 17], abs=1e-4)


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
    whole, lives = layered.Model(CONFIG).eval(), torch.linspace(0, 1, 6)
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
    model = layered.Model(CONFIG).courses
    steps, there = torch.randn(50, SLOTS, 6, 7), torch.zeros(50, SLOTS, dtype=torch.bool)
    there[:25, 2], steps[25:] = True, float("nan")
    before = model.components[0].axes.clone()
    model.look_at(steps, there)
    assert torch.equal(model.components[0].axes, before)  # of none that is there
    assert model.components[2].spread.isfinite().all()


@pytest.mark.parametrize("name", layered.PRESETS)
def test_every_size_draws_and_finds_layers_and_is_read_from_its_header(name):
    row = layered.PRESETS[name]
    words = text.Config(vocabulary=9, **text.PRESETS[row["text"]])
    config = layered.Config(frames=4, values=((2, 3), (4,)), **row | {"text": words})
    assert layered.Config.of(json.loads(json.dumps(dataclasses.asdict(config)))) == config
    model = layered.Model(config).eval()
    with torch.inference_mode():
        ids = torch.randint(1, 9, (2, 5))
        stage = animating.drawn(model, ids, 4, (32, 32), torch.randn)
        noisy = torch.randn(1, SLOTS, 4, 7)
        assert stage.clip(stage.sample(noisy, animating.COURSES)).shape == (1, 3, 4, 32, 32)
        assert model.find(torch.zeros(1, 3, 32, 32), ids[:1]).mattes.shape == (1, SLOTS, 32, 32)


# ---- sampling


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_clips_of_the_bundled_network_are_the_same_with_any_number_of_threads(guidance):
    seen = seen_by("flow")
    frames = seen.model.config.frames
    e = noise(4, shape=(1, SLOTS, frames, 7))
    before, clips = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            with torch.inference_mode():
                sentences = seen.ids(["a dog runs to the right", ""])
                stage = animating.drawn(seen.model, sentences, frames, (128, 128), lambda *shape: noise(5, shape=shape))
                settings = dataclasses.replace(animating.COURSES, guidance=guidance)
                clips.append(stage.clip(stage.sample(e, settings)))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(clips[1], clips[0], atol=1e-4, rtol=0)


def test_what_a_sentence_leaves_open_is_not_decided_as_the_negative_prompt_says():
    seen, world = seen_by("flow"), WORLDS["critters"]
    place, coat = ([*world.ATTRIBUTES].index(name) for name in ("place", "coat"))

    def decided(prompt, negative):
        """The places and the coats that thirty seeds bring."""
        with torch.inference_mode():
            said = seen.model.read(seen.told(prompt, negative))
            chances = [noise(seed, shape=(1, seen.model.completion.most)) for seed in range(30)]
            found = [seen.model.completion.complete(said.whole[:1], e, said.whole[2:]).values[0] for e in chances]
        return [
            {world.ATTRIBUTES[name][int(values[at])] for values in found}
            for name, at in (("place", place), ("coat", coat))
        ]

    everywhere, coats = decided("a cat fetching a ball", "")
    assert {"snow", "night", "beach"} < everywhere
    places, others = decided("a cat fetching a ball", "in the snow, at night, brown")
    assert places == everywhere - {"snow", "night"}
    assert others == coats - {"brown"}
    assert decided("a brown cat fetching a ball in the snow", "in the snow, brown") == [{"snow"}, {"brown"}]
    assert decided("a cat fetching a ball", "blurry, ugly") == [everywhere, coats]


def test_what_is_not_wanted_is_heard_behind_a_sentence_that_leaves_no_room():
    seen = seen_by("flow")
    long = "a cat fetching a ball " + 30 * "very "
    last = [int(row[-1]) for row in seen.told(long, "snow, brown")[2:]]
    assert last == [int(row[row != text.PADDING][-1]) for row in seen.ids(["snow", "brown"])]
    assert torch.equal(seen.told("a cat", "snow")[2:], seen.ids(["a cat snow"]))


def test_given_frames_are_known_with_their_places_and_the_last_is_the_still():
    picture = torch.rand(3, 3, 32, 32) * 2 - 1
    stage = animating.given(speaking(), picture, ids(ONE, NOTHING), 6)
    still = stage.scenery.still
    torch.testing.assert_close(still.colours, sheets.coloured(picture[-1:], *still[1:]))
    assert stage.known[0, :, :, 4].sum(0).gt(0).tolist() == [True] * 3 + [False] * 3


def test_of_what_is_drawn_no_place_is_known_and_it_faces_right():
    stage = animating.drawn(speaking(), ids(ONE, NOTHING), 6, (32, 48), torch.randn)
    assert not stage.known[..., 4:].any()
    assert (stage.known[..., 3] == stage.known[..., 0]).all()
    assert stage.clip(torch.zeros(1, SLOTS, 6, 7)).shape == (1, 3, 6, 32, 48)


# ---- learning


def test_every_weight_learns():
    learner = trainer()
    before = {name: p.detach().clone() for name, p in learner.model.named_parameters()}
    for step in range(1, 5):
        learner.step(step)
    assert all(not torch.equal(p, before[name]) for name, p in learner.model.named_parameters())


def test_a_head_start_is_of_naming_alone():
    learner = trainer(head_start=2)
    before = {name: weight.clone() for name, weight in learner.model.named_parameters()}
    assert learner.step(1).keys() == learner.step(2).keys() == {"naming"}
    changed = {
        name.partition(".")[0] for name, weight in learner.model.named_parameters() if (weight != before[name]).any()
    }
    assert changed == {"text", "completion"}
    assert learner.step(3).keys() == {"naming", "courses", "mattes", "facing", *drawings.PARTS}


def test_a_batch_that_comes_again_and_again_is_learnt():
    how = {"signal": (-1.0, 1.5), "bound": 0.2}  # levels where most is to be learnt
    learner = trainer(rate=5e-3, steps=1000, wordless=0.0, worlds={"shapes": 0.5, "critters": 0.5}, **how)
    told = [learner.step(1) for _ in range(60)]
    assert told[-1]["naming"] < 0.5 * told[0]["naming"]
    assert told[-1]["courses"] < 0.7 * told[0]["courses"]
    assert told[-1]["mattes"] < 0.7 * told[0]["mattes"]
    assert told[-1]["outlines"] < 0.3 * told[0]["outlines"]
    assert told[-1]["hues"] < 0.7 * told[0]["hues"]
    assert told[-1]["ground"] < 0.5 * told[0]["ground"]


def test_what_is_true_of_scenes_puts_their_clips_together():
    """The steps that a network learns, laid out, are read as the scenes are, whether frames are given or none."""
    worlds = {"circle": 0.3, "shapes": 0.7}
    learner = trainer(frames=16, height=128, width=128, worlds=worlds)
    asked = learner.source.asked(1, range(12))
    steps, told, there = learner.source.courses(asked)
    assert (told[..., 4].any(2).any(1).numpy() == asked.given.any(1) & there.any(1).numpy()).all()
    stills, mattes, _ = learner.source.pictures(asked, 12)
    clean, behind = (learner.source._drawn(asked, how) for how in ("draw", "behind"))
    assert (stills - clean).abs().mean() < 0.05
    colours = sheets.coloured(clean, mattes, behind)
    seen = sheets.measured(mattes)
    clip = sheets.put_together(sheets.Still(colours, mattes, behind), seen._replace(there=there), steps)
    for world, scene, frames, visible in zip(asked.worlds, asked.scenes, pixels.to_frames(clip), there, strict=True):
        wanted = WORLDS[world].attributes(scene)
        if "appear" in wanted.get("motion", "") or "relation" in wanted or not visible.any():
            continue  # what is not whole in the still is not whole in the clip
        assert WORLDS[world].read(frames) == wanted


@pytest.mark.parametrize("name", WORLDS)
def test_what_is_cut_out_of_scenes_puts_their_clips_together(name):
    """Squares and grounds as a painter that errs in nothing would draw them, along true courses, are read as the scenes
    are."""
    world, learner, t = WORLDS[name], trainer(worlds={name: 1.0}), 8
    for place in range(8):
        rng = np.random.default_rng(place)
        scene = world.sample(rng, {"action": "walks"} if name == "critters" else None)
        some = [scene] * (t + 1)
        when = np.zeros(t + 1, bool), np.append(times(t), painting.STILL)
        nothing = np.zeros((t + 1, 16), bool), np.ones((t + 1, SLOTS)), [np.random.default_rng(1)] * (t + 1)
        told = learner.source.drawings(scenes.Scenes([name] * (t + 1), some, *2 * [[""] * (t + 1)], *when, *nothing))
        clip = performed(world, scene, told, t)
        assert world.read(pixels.to_frames(clip)[0]) == world.attributes(scene)


def performed(world, scene, told, t):
    """The clip (1, 3, t, h, w) of what is to be drawn of a scene in t frames, and in the one that stands for all."""
    shape = 1, SLOTS, 3, t, painting.SIDE, painting.SIDE
    colours, covers, middles = torch.zeros(shape), torch.zeros(shape)[:, :, 0], torch.zeros(1, SLOTS, 2)
    extents, turns, there = torch.zeros(1, SLOTS), torch.zeros(1, SLOTS), torch.zeros(1, SLOTS, dtype=torch.bool)
    at = (torch.arange(painting.SIDE) + 0.5) * 2 / painting.SIDE - 1
    for i, row in enumerate(told.clear.tolist()):
        slot, frame, cover = int(told.asked.slots[row]), int(told.sentences[row]), told.cut.covers[i]
        if frame < t:
            colours[0, slot, :, frame], covers[0, slot, frame] = told.cut.colours[i], cover
        else:
            extents[0, slot], turns[0, slot], there[0, slot] = told.extents[i], told.turns[i], True
            middles[0, slot] = torch.stack([cover.sum(0) @ at, cover.sum(1) @ at]) / cover.sum()
    behind = told.grounds[:t].transpose(0, 1)[None]
    cast = sheets.Cast(colours, covers, extents, turns, middles, behind)
    courses, then = (
        torch.tensor(world.courses([scene], np.array([moments])), dtype=torch.float32)
        for moments in (times(t), [painting.STILL])
    )
    then = then[:, :, 0]
    angle = 2 * torch.pi * turns
    off_x = angle.cos() * middles[..., 0] - angle.sin() * middles[..., 1]
    off_y = angle.sin() * middles[..., 0] + angle.cos() * middles[..., 1]
    off_x = off_x * then[..., layers.FACING].sign()
    seen_at = then[..., :2] + extents.exp()[..., None] * torch.stack([off_x, off_y], dim=-1)
    steps = sheets.steps(courses, then, seen_at, torch.ones(1, SLOTS)).nan_to_num()
    ones = torch.ones(1, SLOTS)
    return sheets.performed(cast, sheets.Seen(middles, ones, ones, there), steps, 128, 128)


def test_squares_are_cut_out_upright_and_facing_right():
    """A mark before the middle of what faces left and lies on its back comes to lie on the right."""
    picture = torch.full((1, 3, 96, 128), -1.0)
    picture[:, :, 20:24, 62:66] = 1.0  # above the middle of the picture
    course = torch.tensor([[0.5, 0.5, -1.0, 0.25, -1.0, 1.0, 0.0]])
    whole = torch.ones(1, 96, 128)
    found = drawings.cut(picture, whole, whole, course, torch.tensor([0.4]))
    bright = (found.colours[0, 0] > 0).nonzero().float().mean(0)
    assert bright.tolist() == pytest.approx([painting.SIDE / 2, painting.SIDE * 0.5 * (1 - 26 / 96 / 0.4)], abs=1.5)


def hidden(colour):
    """A drawing of one layer whose upper half is hidden and of this colour, and what is behind it."""
    one, colours, shown = torch.zeros(1, dtype=torch.long), torch.zeros(1, 3, 64, 64), torch.ones(1, 64, 64)
    colours[:, :, :32], shown[:, :32] = colour, 0
    squares = drawings.Cut(colours, torch.ones(1, 64, 64), shown)
    wanted = asked(speaking(), [2, painting.BEHIND])
    of_one = torch.ones(2, dtype=torch.bool), one, squares, torch.full((1,), -1.0), torch.zeros(1)
    return drawings.Drawings(one.repeat(2), wanted, *of_one, torch.zeros(1, 3, 128, 128))


class Blind(painting.Reader):
    """Sees nothing that a sentence does not say."""

    def forward(self, seen, extents, heard):
        return torch.zeros(len(seen), painting.REST), torch.zeros(len(seen), painting.REST)


def test_colours_of_what_is_hidden_do_not_count():
    model, reader = speaking(), Blind(CONFIG.width)
    errors = [drawings.error(model.painter, reader, said(model, ONE), hidden(colour)) for colour in (-1.0, 1.0)]
    assert errors[0] == errors[1]
    drawn = hidden(0.0)
    shown = dataclasses.replace(drawn, cut=drawn.cut._replace(colours=drawn.cut.colours + 1))
    assert drawings.error(model.painter, reader, said(model, ONE), shown)["hues"] != errors[0]["hues"]


def test_where_no_layer_is_clear_enough_there_is_no_error_of_any():
    """A thing that fades in, at its first moment, alone in a batch."""
    learner = trainer(worlds={"shapes": 1.0})
    scene = WORLDS["shapes"].sample(np.random.default_rng(1), {"motion": "appearing"})
    caption, nothing = [WORLDS["shapes"].caption(scene, np.random.default_rng(1), {})], np.zeros((1, 4), bool)
    when = np.ones(1, bool), np.zeros(1), nothing, np.ones((1, 4))
    one = scenes.Scenes(["shapes"], [scene], caption, caption, *when, [np.random.default_rng(1)])
    lesson = dataclasses.replace(learner.lessons(1), drawings=learner.source.drawings(one))
    told = learner._drawing(lesson, learner.model.read(learner.ids(caption)))
    assert told.keys() == set(drawings.PARTS)
    assert all(value.isfinite() for value in told.values())
    assert told["outlines"] == told["hues"] == 0


def test_middles_are_told_of_frames_that_are_given_and_of_no_others():
    learner = trainer(frames=16)
    asked = learner.source.asked(2, range(12))
    moments = np.tile(np.linspace(0, 1, 16)[: animating.MOST_GIVEN], (12, 1))
    shown = learner.source._visible(asked, moments, scenes.SMALL)
    middles = torch.stack([sheets.measured(shown[:, :, i]).middles for i in range(animating.MOST_GIVEN)], dim=2)
    _, told, there = learner.source.courses(asked)
    seen = torch.from_numpy(asked.given)[:, None, :4] & there[:, :, None]
    assert seen.any()
    wanted = torch.where(seen[..., None], (middles - sheets.CENTRE) / sheets.AROUND, 0)
    stray = 5 * scenes.STRAYS / sheets.AROUND
    torch.testing.assert_close(told[:, :, :4, 5:], wanted, atol=stray, rtol=0)
    assert not told[:, :, 4:, 4:].any()


def test_some_captions_are_told_in_other_words_and_named_as_they_were():
    asked = trainer(stirred=0.5).source.asked(1, range(200))
    changed = [one != other for one, other in zip(asked.captions, asked.sentences, strict=True)]
    assert np.mean(changed) == pytest.approx(0.45, abs=0.1)
    plain = trainer(stirred=0.0).source.asked(1, range(200))
    assert plain.captions == plain.sentences


def test_a_stirred_sentence_has_all_its_words_and_a_few_small_ones_more():
    rng, orders = np.random.default_rng(3), set()
    for _ in range(200):
        words = stirring.stirred("a white dog is chasing a mouse in the snow", rng).split()
        rest = list(words)
        for word in ["a", "white", "dog", "is", "chasing", "a", "mouse", "in", "the", "snow"]:
            rest.remove(word)
        assert set(rest) <= set(stirring.SMALL)
        assert len(rest) <= stirring.MOST
        orders.add(" ".join(words))
    assert {"in the snow a white dog is chasing a mouse", "chasing a mouse in the snow is a white dog"} <= orders
    assert stirring.stirred("run", np.random.default_rng(1)).count("run") == 1


def test_some_layers_are_told_to_face_the_other_way_and_shadows_never_are():
    asked = trainer(worlds={"critters": 1.0}).source.asked(1, range(300))
    free = ~asked.given.any(1)
    for rows, often in zip((free, ~free), TINY.turned, strict=True):
        assert (asked.turned[rows][:, list(layers.FIGURES)] < 0).mean() == pytest.approx(often, abs=0.08)
    assert (asked.turned[:, list(layers.SHADOWS)] == 1).all()
    assert (trainer(worlds={"circle": 1.0}).source.asked(1, range(20)).turned == 1).all()  # it looks nowhere


def test_the_first_frames_are_given_or_none_and_the_still_is_the_last_of_them():
    asked = trainer(frames=16).source.asked(2, range(400))
    counts = asked.given.sum(1)
    assert (counts == 0).mean() == pytest.approx(1 - TINY.given, abs=0.08)
    assert set(counts) == {0, 1, 2, 3, 4}
    for given, count, moment in zip(asked.given, counts, asked.moments, strict=True):
        assert given[:count].all()
        assert count == 0 or moment == pytest.approx((count - 1) / 15)


def test_what_is_true_is_told_beside_sentences_but_seldom_and_never_beside_silence():
    learner = trainer(batch=200, drawings=2, stills=1, untold=0.2, wordless=0.3)
    lesson = learner.lessons(1)
    spoken = torch.zeros(200, dtype=torch.bool)
    spoken[lesson.spoken] = True
    assert not lesson.told[~spoken].any()
    assert lesson.told[spoken].float().mean() == pytest.approx(0.8, abs=0.1)
    assert lesson.true.said[~spoken].sum() == 0
    asked = learner.source.asked(1, range(200))
    for row, (name, scene, caption) in enumerate(zip(asked.worlds, asked.scenes, asked.captions, strict=True)):
        world = WORLDS[name]
        true = world.attributes(scene)
        for place, (attribute, values) in enumerate(world.ATTRIBUTES.items()):
            number = int(lesson.true.values[row, place])
            assert (values[number] if number < len(values) else None) == true.get(attribute)
            assert bool(lesson.true.said[row, place]) == (bool(caption) and attribute in world.parse(caption))


def test_what_is_taught_depends_on_seed_and_step_and_place_alone():
    learner = trainer()
    whole, part = learner.source.asked(3, range(6)), learner.source.asked(3, range(4, 6))
    assert whole.captions[4:] == part.captions
    assert whole.scenes[4:] == part.scenes
    assert (whole.moments[4:] == part.moments).all()
    assert learner.source.asked(4, range(6)).captions != whole.captions
    (steps, told, _), (some, known_, _) = learner.source.courses(whole), learner.source.courses(part)
    torch.testing.assert_close(steps[4:], some)
    torch.testing.assert_close(told[4:], known_)
    assert torch.equal(
        learner.source._normal(whole, 3)[4:], learner.source._normal(part, 3)
    )  # whatever was drawn before, too


def test_stills_are_looked_at_in_bfloat16_where_there_are_instructions_for_it(monkeypatch):
    monkeypatch.setattr(run, "has_bfloat16", lambda where: True)
    told = {kind: trainer(bfloat16=kind).step(1) for kind in (False, True)}
    assert told[True]["courses"] == told[False]["courses"]
    assert told[True]["mattes"] == pytest.approx(told[False]["mattes"], rel=0.05)
    assert told[True]["mattes"] != told[False]["mattes"]


def test_samples_are_drawn(tmp_path):
    learner = trainer()
    learner.draw_samples(tmp_path / "samples.png", learner.kept())
    with Image.open(tmp_path / "samples.png") as sheet:
        assert sheet.height > 4 * 32


@pytest.mark.parametrize(
    ("changes", "kind", "hint"),
    [
        ({"stills": 0}, TrainingError, "1 to 4"),
        ({"stills": 5}, TrainingError, "1 to 4"),
        ({"drawings": 0}, TrainingError, "1 to 4"),
        ({"frames": 2}, TrainingError, "4 or more"),
        ({"height": 100}, TrainingError, "nearest: 96"),
        ({"width": 0}, TrainingError, "nearest: 16"),
        ({"model": "tyni"}, UnknownName, "tiny"),
        ({"worlds": {"circel": 1.0}}, UnknownName, "circle"),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_refused_before_anything_is_written(tmp_path, changes, kind, hint):
    with pytest.raises(kind) as error:
        dataclasses.replace(TINY, **changes).train(tmp_path / "run", device="cpu")
    assert hint in error.value.hint
    assert not (tmp_path / "run").exists()


def test_weights_of_a_network_before_this_one_are_no_beginning(tmp_path):
    dataclasses.replace(TINY, steps=1).train(tmp_path / "first", device="cpu")
    found = weights.configuration(tmp_path / "first")
    found["config"]["heights"] = found["config"].pop("hidden")
    checkpoint.save(tmp_path / "first" / weights.MODEL, load_file(tmp_path / "first" / weights.MODEL), found)
    weights.seal(tmp_path / "first")
    with pytest.raises(WeightsError):
        trainer(start=str(tmp_path / "first"))


def test_weights_of_other_sizes_are_no_beginning(tmp_path):
    dataclasses.replace(TINY, steps=1).train(tmp_path / "first", device="cpu")
    with pytest.raises(WeightsError, match="other sizes"):
        trainer(start=str(tmp_path / "first"), frames=6)


def test_resuming_takes_the_very_steps_that_would_have_come(tmp_path):
    recipe = dataclasses.replace(TINY)

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


def test_a_run_may_begin_with_the_weights_of_another_and_says_so(tmp_path):
    dataclasses.replace(TINY, steps=2).train(tmp_path / "first", device="cpu")
    second = dataclasses.replace(TINY, start=str(tmp_path / "first"), steps=1)
    begun, kept = trainer(start=second.start), load_file(tmp_path / "first" / weights.MODEL)
    assert all(torch.equal(value, kept[name]) for name, value in begun.model.state_dict().items())
    second.train(tmp_path / "second", device="cpu")
    told = weights.configuration(tmp_path / "second")
    assert told["before"]["weights"] == weights.sha256(tmp_path / "first" / weights.MODEL)
    assert (told["before"]["steps"], told["before"]["batch"]) == (2, TINY.batch)
    assert told["recipe"]["start"] == "first"


# ---- the engine


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("moving") / "run"
    dataclasses.replace(TINY, steps=2).train(folder, device="cpu")
    yield f"flow:{folder}"
    engine.warm.clear()


def make(reference, on_progress=lambda progress: None, options=None, **more):
    request = engine.describe(reference).request("a red ball", seed=5, options={"steps": 2} | (options or {}), **more)
    return engine.generate(reference, request, on_progress, device="cpu")


def seen_by(reference):
    return engine.warm.get(reference, "cpu", engine.describe(reference).weights)._seen["float32"]


def test_the_engine_draws_layers_and_sets_them_in_motion(reference):
    told = []
    video = make(reference, told.append, options={"steps": 3}, width=64, frames=3)
    assert video.frames.shape == (3, 32, 64, 3)
    assert [(p.step, p.steps) for p in told] == [(1, 3), (2, 3), (3, 3)]
    assert all(p.preview.shape == (32, 64, 3) for p in told)
    assert engine.reproduce(video, device="cpu").same


def test_every_option_that_should_matter_does(reference):
    usual = {"steps": 4, "guidance": 4.0, "guided_above": 0.0}
    changes = ({}, {"steps": 3}, {"guidance": 1.0}, {"guided_above": 0.5}, {"negative_prompt": "moving left"})
    changes += ({"sampler": "euler"}, {"shift": 5.0}, {"rescale": 1.0})
    clips = {fingerprint(make(reference, options=usual | change).frames) for change in changes}
    assert len(clips) == len(changes)


def test_it_goes_on_from_four_frames_at_most(reference):
    with pytest.raises(InvalidRequest, match="context"):
        make(reference, options={"context": 5})


def test_a_picture_of_another_shape_is_refused(reference, tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "tall.png")
    with pytest.raises(InvalidRequest, match="64x48") as error:
        make(reference, options={"start": str(tmp_path / "tall.png")})
    assert "--size 64x48" in error.value.hint


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "euler", "heun", "heun-edm", "dpmpp-2m", "unipc"])
def test_every_sampler_makes_the_same_clip_again(reference, sampler):
    one, two = (make(reference, options={"sampler": sampler, "steps": 3}, frames=4).frames for _ in range(2))
    assert np.array_equal(one, two)


def test_a_clip_of_more_frames_is_the_same_performance(reference):
    one, four, seven = (make(reference, frames=frames).frames for frames in (1, 4, 7))
    assert np.array_equal(four, seven[::2])
    assert np.array_equal(one, four[2:3])  # of the two in the middle


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
    assert [(index, x.shape[2]) for index, x, _ in told] == [(0, 4), (1, 4), (2, 4)]
    assert len(loaded.levels(request)) == 4
    last = pixels.to_frames(told[-1][2])[0]
    assert np.abs(last.astype(int) - video.frames).mean() < 2  # what is clean at last is what is shown


def test_a_checkpoint_names_no_folder_of_the_machine_and_may_be_moved(reference, tmp_path):
    shutil.copytree(reference.partition(":")[2], tmp_path / "moved")
    assert str(tmp_path.parent) not in json.dumps(weights.configuration(tmp_path / "moved"))
    assert fingerprint(make(f"flow:{tmp_path / 'moved'}").frames) == fingerprint(make(reference).frames)


def test_it_says_which_sizes_it_can_draw(reference):
    info = engine.describe(reference)
    assert info.sizes.multiple == 16
    assert "of layers" in info.summary


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
