"""What every world on the shelf promises: its two laws, its split, its words, its pixels."""

import dataclasses
from contextlib import suppress

import numpy as np
import pytest
import torch

from kinetograph import Video
from kinetograph.errors import InvalidRequest, UnknownName
from kinetograph.language import tokens
from kinetograph.shelf import WORLDS


@pytest.fixture(params=WORLDS.names())
def world(request):
    return WORLDS[request.param]


def scenes(world, count, seed=0, **how):
    rng = np.random.default_rng(seed)
    return [world.sample(rng, **how) for _ in range(count)]


def drawn(world, some):
    return world.draw(some, world.FRAMES, world.HEIGHT, world.WIDTH)


def test_it_says_what_it_is(world):
    assert world.__doc__


def test_a_scene_is_frozen_data(world):
    (scene,) = scenes(world, 1)
    assert dataclasses.is_dataclass(scene)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(scene, dataclasses.fields(scene)[0].name, None)


# --- the two laws ---


def test_parse_undoes_caption(world):
    rng = np.random.default_rng(0)
    for scene in scenes(world, 800):
        prompt = world.caption(scene, rng)
        assert world.parse(prompt).items() <= world.attributes(scene).items(), prompt


def test_a_caption_that_leaves_nothing_out_and_a_paraphrase_say_everything_in_known_words(world):
    rng, known = np.random.default_rng(1), set(world.words())
    for scene in scenes(world, 500, seed=1):
        for prompt in (world.caption(scene, rng, {}), world.paraphrase(scene, rng)):
            assert world.parse(prompt) == world.attributes(scene), prompt
            assert set(tokens(prompt)) <= known


def test_what_is_understood_are_attributes_of_the_world_whatever_is_said(world):
    rng, known = np.random.default_rng(2), world.words()
    for _ in range(500):
        said = " ".join(rng.choice(known, 8))
        with suppress(InvalidRequest):
            asked = world.parse(said)
            assert all(value in world.ATTRIBUTES[name] for name, value in asked.items()), said


def test_read_undoes_draw(world):
    some = scenes(world, 40)
    for scene, clip in zip(some, drawn(world, some), strict=True):
        assert world.read(clip) == world.attributes(scene)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif"])
def test_read_undoes_draw_after_a_lossy_round_trip(world, suffix, tmp_path):
    some = scenes(world, 10, seed=5)
    for i, (scene, clip) in enumerate(zip(some, drawn(world, some), strict=True)):
        path = Video(clip, world.FPS).save(tmp_path / f"{i}{suffix}")
        assert world.read(Video.load(path).frames) == world.attributes(scene), scene


def test_noise_and_a_blank_are_read_as_nothing(world):
    rng, size = np.random.default_rng(0), (world.FRAMES, world.HEIGHT, world.WIDTH, 3)
    assert world.read(rng.integers(0, 256, size, dtype=np.uint8)) == {}
    assert world.read(np.full(size, 245, np.uint8)) == {}


# --- sampling ---


def test_a_scene_is_drawn_with_the_attributes_wanted(world):
    for wanted in map(world.attributes, scenes(world, 30)):
        (scene,) = scenes(world, 1, wanted=wanted)
        assert world.attributes(scene) == wanted


def test_sampling_is_a_function_of_the_source(world):
    assert scenes(world, 5, seed=3) == scenes(world, 5, seed=3) != scenes(world, 5, seed=4)


def test_the_splits_do_not_overlap(world):
    assert not any(map(world.heldout, scenes(world, 300, split="train")))
    assert all(map(world.heldout, scenes(world, 50, split="heldout")))


def test_near_misses_are_of_the_training_split_and_say_something_else(world):
    rng = np.random.default_rng(0)
    for scene in scenes(world, 100, split="train"):
        misses = world.near_misses(scene, rng)
        assert len(misses) == len(world.ATTRIBUTES)
        assert not any(map(world.heldout, misses))
        assert all(world.attributes(miss) != world.attributes(scene) for miss in misses)


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_an_unknown_value_attribute_or_split_is_refused_with_the_nearest(world, split):
    name, (value, *_) = next(iter(world.ATTRIBUTES.items()))
    for wanted, near in (({name: value + "x"}, value), ({name + "x": value}, name)):
        with pytest.raises(UnknownName) as error:
            world.sample(np.random.default_rng(0), wanted, split)
        assert near in error.value.hint
    with pytest.raises(UnknownName, match="heldaut"):
        world.sample(np.random.default_rng(0), split="heldaut")


# --- drawing ---


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 48)])
def test_the_same_text_draws_on_numpy_and_on_torch(world, height, width):
    some = scenes(world, 24)
    ours, theirs = (world.draw(some, 4, height, width, xp=xp) for xp in (np, torch))
    assert tuple(ours.shape) == tuple(theirs.shape) == (24, 4, height, width, 3)
    assert ours.dtype == theirs.numpy().dtype == np.uint8
    assert np.abs(ours.astype(int) - theirs.numpy().astype(int)).max() <= 1  # the last bit of a root may differ


def test_a_batch_is_drawn_as_its_clips_alone(world):
    some = scenes(world, 6)
    alone = [world.draw([scene], 4, 64, 64)[0] for scene in some]
    assert np.array_equal(world.draw(some, 4, 64, 64), np.stack(alone))


# --- words ---


def test_a_prompt_in_which_nothing_is_understood_is_refused_with_an_example(world):
    with pytest.raises(InvalidRequest, match="understands nothing") as error:
        world.parse("batman eats soup")
    assert "for example" in error.value.hint


def test_captions_have_many_phrasings(world):
    (scene,), rng = scenes(world, 1), np.random.default_rng(9)
    assert len({world.caption(scene, rng) for _ in range(300)}) > 200


def test_its_words_are_those_of_its_captions(world):
    rng = np.random.default_rng(0)
    said = {word for scene in scenes(world, 200) for word in tokens(world.caption(scene, rng))}
    assert said <= set(world.words())
    assert list(world.words()) == sorted(set(world.words()))
