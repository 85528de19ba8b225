"""Edits of scenes: what is asked is what is done, the rest stays, and people's words are understood."""

import numpy as np
import pytest

from kinetograph.errors import InvalidRequest
from kinetograph.language import tokens
from kinetograph.motions import times
from kinetograph.shelf import WORLDS
from kinetograph.worlds import critters, shapes
from kinetograph.worlds.critters import drawing
from kinetograph.worlds.critters import edits as critter_edits
from kinetograph.worlds.shapes import edits as shape_edits

EDITABLE = [WORLDS[name] for name in WORLDS.names() if hasattr(WORLDS[name], "edit")]
LISTS = {critters: critter_edits, shapes: shape_edits}
MOMENTS = times(5)[None]


@pytest.fixture(params=EDITABLE, ids=lambda world: world.__name__.rpartition(".")[2])
def world(request):
    return request.param


def pairs(world, count, seed=0, split="all"):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        scene = world.sample(rng, split=split)
        yield scene, *world.edit(scene, rng, split)


def clip(world, scene, size=128):
    return world.draw([scene], 5, size, size)[0].astype(int)


# --- laws ---


def test_an_instruction_asks_for_what_is_done_and_for_nothing_else(world):
    for scene, after, instruction in pairs(world, 600):
        asked, said = world.requested(instruction, world.attributes(scene)), world.attributes(scene)
        assert len(asked) == 1, instruction
        assert world.attributes(after) == {**said, **asked} != said, instruction


def test_instructions_consist_of_known_words_and_are_many(world):
    known, found = set(LISTS[world].words()), set()
    for _, _, instruction in pairs(world, 400, seed=1):
        assert set(tokens(instruction)) <= known
        found.add(instruction)
    assert len(found) > 200
    assert list(LISTS[world].words()) == sorted(known)


def test_edits_of_training_show_nothing_that_is_held_out(world):
    assert not any(world.heldout(after) for _, after, _ in pairs(world, 200, split="train"))


def test_an_edit_is_a_function_of_its_source(world):
    assert [*pairs(world, 5, seed=3)] == [*pairs(world, 5, seed=3)] != [*pairs(world, 5, seed=4)]


def test_every_attribute_that_is_seen_in_a_still_can_be_edited(world):
    kinds = {edit.attribute for scene, _, _ in pairs(world, 60, seed=5) for edit in LISTS[world].edits(scene)}
    still = {"motion", "speed", "relation", "direction", "partner shape", "partner size"}
    assert kinds == set(world.ATTRIBUTES) - still


@pytest.mark.slow
def test_the_scene_after_an_edit_is_read_as_what_it_is(world):
    some = [after for _, after, _ in pairs(world, 12, seed=6)]
    clips = world.draw(some, world.FRAMES, world.HEIGHT, world.WIDTH)
    right = [world.read(clip) == world.attributes(scene) for scene, clip in zip(some, clips, strict=True)]
    assert np.mean(right) >= 0.9


def test_what_makes_no_sense_is_refused_with_an_example(world):
    scene = world.sample(np.random.default_rng(0))
    for instruction in ("batman eats soup", "", "make it better"):
        with pytest.raises(InvalidRequest) as error:
            world.requested(instruction, world.attributes(scene))
        assert "for example" in error.value.hint


# --- what stays ---


def found(world, name, count=6):
    """Scenes with an edit of this attribute."""
    for scene, _, _ in pairs(world, 400, seed=7):
        for edit in [edit for edit in LISTS[world].edits(scene) if edit.attribute == name][:1]:
            yield scene, edit.scene
            count -= 1
        if not count:
            return


def own(scene, subject, size=128):
    """Where a performer or its shadow is, and its shadow's or its edges' softness with it, (t, h, w) bool."""
    canvas = np.full((1, 5, size, size, 3), 128, np.float32)
    act = critter_edits._act(scene, times(5), subject)
    stage = drawing.staged(canvas, np, None)
    drawing.paint_shadows(stage, [[act]])
    drawing.paint_cast(stage, [[act]])
    if subject:
        drawing.paint_letters(stage, [scene], [[act]], MOMENTS)
    return (canvas[0] != 128).any(-1)


@pytest.mark.parametrize("name", ["coat", "partner coat", "animal", "partner", "action"])
def test_only_the_critter_that_is_meant_changes(name):
    for scene, after in found(critters, name):
        subject = not name.startswith("partner")
        changed = (clip(critters, scene) != clip(critters, after)).any(-1)
        assert changed.any()
        assert not (changed & ~own(scene, subject) & ~own(after, subject)).any()


def test_another_coat_has_the_same_outline():
    for scene, after in found(critters, "coat"):
        assert np.array_equal(critters.depth([scene], 5, 64, 64), critters.depth([after], 5, 64, 64))


def test_in_another_place_the_critters_are_the_same():
    for scene, after in found(critters, "place"):
        before, now = clip(critters, scene), clip(critters, after)
        ground = critters.depth([scene], 5, 128, 128)[0, ..., 0].astype(int)
        bare = np.rint(255 * critters.depths.nearness((np.arange(128) + 0.5) / 128)).astype(int)
        inside = ground != bare[None, :, None]
        for axis in (1, 2):  # away from edges, which are mixed with what is behind
            inside = inside & np.roll(inside, 1, axis) & np.roll(inside, -1, axis)
        assert inside.any()
        assert np.abs(before - now)[inside].mean() < 1  # of 255: seams between parts let a little through
        assert (before != now).any(-1).mean() > 0.5


@pytest.mark.parametrize("name", ["colour", "partner colour", "shape", "size"])
def test_only_the_shape_that_is_meant_changes(name):
    for scene, after in found(shapes, name):
        changed = (clip(shapes, scene) != clip(shapes, after)).any(-1)
        before, now = (shapes.depth([one], 5, 128, 128)[0, ..., 0] for one in (scene, after))
        assert changed.any()
        assert not (changed & (before == 0) & (now == 0)).any()
        if scene.relation:
            other = shapes.COLOURS[scene.partner_colour if name == "colour" else scene.colour]
            assert not (changed & (clip(shapes, scene) == other).all(-1)).any()


def test_on_another_background_the_shapes_are_the_same():
    for scene, after in found(shapes, "background"):
        before, now = clip(shapes, scene), clip(shapes, after)
        solid = shapes.depth([scene], 5, 128, 128)[0, ..., 0] == 255
        assert np.array_equal(before[solid], now[solid])
        assert (before != now).any(-1).mean() > 0.5


# --- people's words ---

CHASE = {
    "animal": "cat",
    "coat": "white",
    "action": "chases",
    "partner": "cat",
    "partner coat": "black",
    "place": "snow",
}
ALONE = {"animal": "dog", "coat": "brown", "action": "sits", "place": "room"}
TWO = {"shape": "star", "colour": "red", "relation": "chases", "partner shape": "star", "partner colour": "blue"}


@pytest.mark.parametrize(
    ("said", "instruction", "asked"),
    [
        (ALONE, "Make it night!", {"place": "night"}),
        (ALONE, "make the dog red", {"coat": "orange"}),
        (ALONE, "turn the dog into a rabbit", {"animal": "rabbit"}),
        (ALONE, "turn the dog into a white rabbit", {"animal": "rabbit", "coat": "white"}),
        (ALONE, "make it black", {"coat": "black"}),
        (ALONE, "Please put the puppy on a sandy beach.", {"place": "beach"}),
        (ALONE, "make the dog snow white", {"coat": "white"}),
        (ALONE, "put the dog to sleep", {"action": "sleeps"}),
        (CHASE, "make the black cat orange", {"partner coat": "orange"}),
        (CHASE, "make the white cat orange", {"coat": "orange"}),
        (CHASE, "replace the black cat with a mouse", {"partner": "mouse"}),
    ],
)
def test_what_people_ask_of_critters_is_understood(said, instruction, asked):
    assert critters.requested(instruction, said) == asked


@pytest.mark.parametrize(
    ("instruction", "asked"),
    [
        ("make the background dark blue", {"background": "navy"}),
        ("Paint the red star green", {"colour": "green"}),
        ("the blue star should be yellow", {"partner colour": "yellow"}),
        ("turn the blue star into a heart", {"partner shape": "heart"}),
        ("make the star huge", {"size": "large"}),
    ],
)
def test_what_people_ask_of_shapes_is_understood(instruction, asked):
    assert shapes.requested(instruction, TWO) == asked
