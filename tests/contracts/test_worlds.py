"""What every world on the shelf promises: its two laws, its split, its words, its pixels."""

import dataclasses

import numpy as np
import pytest
import torch

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


def test_parse_undoes_caption(world):
    rng = np.random.default_rng(0)
    for scene in scenes(world, 200):
        said = world.parse(world.caption(scene, rng))
        assert said.items() <= world.attributes(scene).items()


def test_parse_undoes_paraphrase_which_says_everything_in_known_words(world):
    rng = np.random.default_rng(0)
    for scene in scenes(world, 200):
        said = world.paraphrase(scene, rng)
        assert world.parse(said) == world.attributes(scene)
        assert set(tokens(said)) <= set(world.words())


def test_read_undoes_draw(world):
    some = scenes(world, 60)
    for scene, clip in zip(some, drawn(world, some), strict=True):
        assert world.read(clip) == world.attributes(scene)


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


def test_frames_are_bytes_of_the_size_asked_for_on_numpy_and_torch(world):
    some = scenes(world, 2)
    for xp in (np, torch):
        clips = world.draw(some, 3, 32, 48, xp=xp)
        assert tuple(clips.shape) == (2, 3, 32, 48, 3)
        assert clips.dtype == xp.uint8


def test_its_words_are_those_of_its_captions(world):
    rng = np.random.default_rng(0)
    said = {word for scene in scenes(world, 200) for word in tokens(world.caption(scene, rng))}
    assert said <= set(world.words())
    assert list(world.words()) == sorted(set(world.words()))
