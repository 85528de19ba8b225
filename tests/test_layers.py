"""Scenes as layers: what worlds say of theirs must be what they draw."""

import numpy as np
import pytest

from kinetograph import layers
from kinetograph.motions import clock
from kinetograph.shelf import WORLDS

SIZE = 64


def some(name, count=16, split="all"):
    world, rng = WORLDS[name], np.random.default_rng(4)
    return world, [world.sample(rng, split=split) for _ in range(count)]


def order(courses):
    return courses[:, :, 0, layers.ORDER]


@pytest.mark.parametrize("name", ["circle", "shapes", "critters"])
def test_where_no_layer_lies_there_is_what_is_behind(name):
    world, scenes = some(name)
    drawn, behind = (np.asarray(how(scenes, 5, SIZE, SIZE), int) for how in (world.draw, world.behind))
    free = world.mattes(scenes, 5, SIZE, SIZE).sum(1) == 0
    letters = np.array([getattr(scene, "action", "") == "sleeps" for scene in scenes])  # the letters z are no layer
    assert (drawn == behind)[~letters][free[~letters]].all()
    assert (drawn != behind).any(-1)[~free].mean() > 0.8


@pytest.mark.parametrize("name", ["circle", "shapes", "critters"])
def test_a_layer_is_there_where_its_course_says(name):
    """The middle of what is covered goes as the course goes, within what a posture changes."""
    world, scenes = some(name)
    courses, mattes = world.courses(scenes, clock(len(scenes), 6)), world.mattes(scenes, 6, SIZE, SIZE)
    covered = mattes.sum((3, 4))
    there = np.isfinite(courses[..., layers.X])
    assert ((covered > 0) <= there).all()
    places = (np.arange(SIZE) + 0.5) / SIZE
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y = (mattes.sum(3) @ places) / covered, (mattes.sum(4) @ places) / covered
    seen = there & (covered > 4)
    assert np.abs(x - courses[..., layers.X])[seen].max() < 0.06
    lying = 0.1 if name == "critters" else 0.0  # below where it would turn about, were it on its legs
    assert np.abs(y - courses[..., layers.Y])[seen].max() < 0.06 + lying
    assert seen[:, layers.FIGURES[0]].mean() > 0.9


@pytest.mark.parametrize("name", ["circle", "shapes", "critters"])
def test_what_is_seen_of_layers_is_at_most_all_and_the_nearest_is_whole(name):
    world, scenes = some(name, 40)
    courses, mattes = world.courses(scenes, clock(len(scenes), 3)), world.mattes(scenes, 3, SIZE, SIZE)
    seen = layers.visible(mattes, order(courses))
    assert (seen.sum(1) < 1 + 1e-5).all()
    nearest = np.nan_to_num(order(courses), nan=-1).argmax(1)
    rows = np.arange(len(scenes))
    np.testing.assert_allclose(seen[rows, nearest], mattes[rows, nearest], atol=1e-6)
    assert (seen <= mattes + 1e-6).all()


@pytest.mark.parametrize("name", ["circle", "shapes", "critters"])
def test_mattes_are_the_same_on_torch(name):
    import torch

    world, scenes = some(name, 6)
    one, two = world.mattes(scenes, 2, SIZE, SIZE), world.mattes(scenes, 2, SIZE, SIZE, xp=torch)
    np.testing.assert_allclose(two.numpy(), one, atol=1e-4)
    assert (world.behind(scenes, 2, SIZE, SIZE, xp=torch).numpy() == world.behind(scenes, 2, SIZE, SIZE)).all()


def test_moments_are_those_that_are_asked_for():
    for name in ("circle", "shapes", "critters"):
        world, scenes = some(name, 3)
        whole, moments = world.mattes(scenes, 5, SIZE, SIZE), np.full((3, 1), 0.75)
        one = world.mattes(scenes, 1, SIZE, SIZE, moments=moments)
        np.testing.assert_allclose(one[:, :, 0], whole[:, :, 3], atol=1e-5)
        np.testing.assert_array_equal(
            world.courses(scenes, moments)[:, :, 0], world.courses(scenes, clock(3, 5))[:, :, 3]
        )


def test_what_passes_in_front_has_the_higher_order():
    world, rng = WORLDS["shapes"], np.random.default_rng(1)
    for relation, nearer in (("passes in front of", 0), ("passes behind", 1)):
        scene = world.sample(rng, {"relation": relation})
        told = order(world.courses([scene], clock(1, 2)))[0, list(layers.FIGURES)]
        assert told.argmax() == nearer


def test_who_is_the_subject_of_critters_is_in_its_place():
    world, rng = WORLDS["critters"], np.random.default_rng(1)
    subject, partner = layers.FIGURES
    chase = world.sample(rng, {"animal": "dog", "action": "chases", "partner": "mouse", "direction": "right"})
    fetch = world.sample(rng, {"animal": "dog", "action": "fetches", "partner": "ball", "direction": "right"})
    alone = world.sample(rng, {"animal": "dog", "action": "walks"})
    ways = world.courses([chase, fetch, alone], clock(3, 4))
    assert (ways[0, partner, :, layers.X] > ways[0, subject, :, layers.X]).all()  # it is ahead
    assert (np.ptp(ways[1, partner, :2, layers.X]) < 1e-9) & (np.ptp(ways[1, subject, :2, layers.X]) > 0.1)
    assert np.isnan(ways[2, partner]).all()
    assert np.isnan(ways[2, layers.SHADOWS[1]]).all()
    assert set(np.sign(ways[1, subject, :, layers.FACING])) == {1.0, -1.0}  # it turns round
