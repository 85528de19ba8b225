"""obeys: what is asked for is read back."""

import numpy as np

from kinetograph.metrics import obeys
from kinetograph.shelf import WORLDS

WORLD = WORLDS["circle"]
SCENES = [WORLD.sample(np.random.default_rng([5, i]), split="heldout") for i in range(20)]
PROMPTS = [WORLD.caption(scene, np.random.default_rng(i), {}) for i, scene in enumerate(SCENES)]
VIDEOS = [*WORLD.draw(SCENES, 10, 64, 64)]


def test_the_world_obeys_itself_in_every_part():
    score = obeys.score(VIDEOS, PROMPTS, VIDEOS, WORLD)
    assert score.value == 1
    assert {*score.parts} == {*WORLD.ATTRIBUTES, "all", "shuffled"}
    assert all(part.value == 1 for name, part in score.parts.items() if name != "shuffled")


def test_under_each_others_prompts_clips_obey_by_chance_only():
    control = obeys.score(VIDEOS, PROMPTS, VIDEOS, WORLD).parts["shuffled"]
    assert control.value <= 0.05
    assert control.parts["size"].low < 1 / 3 < control.parts["size"].high


def test_one_wrong_attribute_is_missed_and_only_that():
    scene = WORLD.sample(np.random.default_rng(6), {"colour": "red", "motion": "left", "background": "white"})
    (clip,) = WORLD.draw([scene], 10, 64, 64)
    prompt = f"a {scene.size} blue circle moving left {scene.speed}"
    assert obeys.missed(clip, prompt, WORLD) == ("colour",)
    score = obeys.score([clip], [prompt], [clip], WORLD)
    assert (score.value, score.parts["colour"].value, score.parts["motion"].value) == (0, 0, 1)


def test_an_attribute_that_no_prompt_asks_for_has_no_part():
    score = obeys.score(VIDEOS, ["a circle"] * len(VIDEOS), VIDEOS, WORLD)
    assert {*score.parts} == {"background", "all", "shuffled"}


def test_frozen_clips_and_noise_do_not_obey():
    moving = [i for i, scene in enumerate(SCENES) if scene.motion != "still"]
    frozen = [np.repeat(VIDEOS[i][:1], 10, axis=0) for i in moving]
    noise = [*np.random.default_rng(7).integers(0, 256, (len(moving), 10, 64, 64, 3), dtype=np.uint8)]
    for videos in (frozen, noise):
        assert obeys.score(videos, [PROMPTS[i] for i in moving], videos, WORLD).value == 0


def test_a_derangement_leaves_nothing_in_its_place():
    for count in (2, 3, 10, 101):
        away = obeys.derangement(count)
        assert sorted(away) == [*range(count)]
        assert (away != np.arange(count)).all()
