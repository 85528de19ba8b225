"""The critters world: its two laws, its split, its words, its pixels, and what every action looks like."""

from pathlib import Path

import numpy as np
import pytest

from kinetograph.errors import InvalidRequest
from kinetograph.language import tokens
from kinetograph.worlds import critters
from kinetograph.worlds.critters.drawing import perform
from kinetograph.worlds.critters.scenes import ALONE, ALWAYS_HELD_OUT, ANIMALS, PARTNERS, heldout_combinations


def scenes(count, seed=0, **how):
    rng = np.random.default_rng(seed)
    return [critters.sample(rng, **how) for _ in range(count)]


def clips(drawn, frames=16, height=128, width=128):
    return [clip for i in range(0, len(drawn), 16) for clip in critters.draw(drawn[i : i + 16], frames, height, width)]


def right(drawn, shown):
    return np.mean(
        [critters.read(clip) == critters.attributes(scene) for scene, clip in zip(drawn, shown, strict=True)]
    )


def blurred(clip, sigma=1.0):
    weights = np.exp(-(np.arange(-3, 4) ** 2) / (2 * sigma**2))
    out = clip.astype(np.float32)
    for axis in (1, 2):
        out = sum(w * np.roll(out, k, axis) for k, w in zip(range(-3, 4), weights / weights.sum(), strict=True))
    return out


def test_the_example_prompts_are_all_that_is_held_out_of_pairs():
    prompts = (Path(__file__).parents[2] / "examples" / "heldout-triples.txt").read_text().splitlines()
    asked = [critters.parse(prompt) for prompt in prompts]
    triples = {(said["animal"], said["action"], said["partner"]) for said in asked}
    assert triples == {cell[:3] for cell in heldout_combinations() if cell[2]}
    assert len(prompts) == len(triples)


# --- the two laws ---


@pytest.mark.parametrize(("frames", "height", "width"), [(16, 64, 64), (12, 96, 160), (20, 160, 128)])
def test_read_undoes_draw_at_other_sizes_and_lengths(frames, height, width):
    drawn = scenes(32, seed=frames)
    assert right(drawn, clips(drawn, frames, height, width)) >= 0.95


def test_a_blurred_noisy_trembling_clip_is_still_read():
    drawn, rng = scenes(32, seed=6), np.random.default_rng(6)
    shown = [np.clip(blurred(clip) + rng.normal(0, 6, clip.shape), 0, 255).astype(np.uint8) for clip in clips(drawn)]
    shown = [np.stack([np.roll(frame, rng.integers(-1, 2, 2), (0, 1)) for frame in clip]) for clip in shown]
    assert right(drawn, shown) >= 0.85


@pytest.mark.parametrize("place", critters.ATTRIBUTES["place"])
@pytest.mark.parametrize("coat", critters.ATTRIBUTES["coat"])
def test_every_coat_stands_out_in_every_place(coat, place):
    rng = np.random.default_rng(7)
    drawn = [critters.sample(rng, {"coat": coat, "place": place, "animal": animal}) for animal in ANIMALS]
    assert right(drawn, clips(drawn)) == 1


# --- what the actions are ---


def path(scene, who=-1, frames=64):
    """The middle of a performer over time and its height, seen from the side."""
    act = perform(scene, np.linspace(0, 1, frames))[who]
    return act.x, act.height


def one(**wanted):
    return critters.sample(np.random.default_rng(8), wanted)


@pytest.mark.parametrize("animal", ANIMALS)
def test_a_run_goes_farther_than_a_walk_and_no_farther_than_a_span(animal):
    far = {action: np.ptp(path(one(animal=animal, action=action))[0]) for action in ("walks", "runs")}
    assert far["walks"] < 0.26 < 0.42 < far["runs"] < 0.6


@pytest.mark.parametrize("animal", ANIMALS)
def test_a_jump_leaves_the_ground_twice_and_rest_does_not(animal):
    _, height = path(one(animal=animal, action="jumps"))
    off = (height > 0.1).astype(int)
    assert np.sum(np.diff(off) == 1) == 2
    for action in ("sleeps", "sits"):
        x, height = path(one(animal=animal, action=action))
        assert np.ptp(x) == np.ptp(height) == 0


@pytest.mark.parametrize("action", ["chases", "follows"])
@pytest.mark.parametrize("direction", ["left", "right"])
def test_who_chases_or_follows_is_behind(action, direction):
    scene = one(animal="cat", action=action, partner="dog", direction=direction)
    ours, theirs = path(scene)[0], path(scene, 0)[0]
    sign = 1 if direction == "right" else -1
    assert (sign * (theirs - ours) > 0.1).all()
    assert sign * (ours[-1] - ours[0]) > 0.09


def test_a_chase_is_faster_than_a_walk_behind():
    chase, walk = (np.ptp(path(one(animal="dog", action=action))[0]) for action in ("chases", "follows"))
    assert chase > 1.5 * walk


@pytest.mark.parametrize("thing", PARTNERS["fetches"])
def test_what_is_fetched_lies_until_it_is_held_and_comes_back(thing):
    scene = one(animal="dog", action="fetches", partner=thing, direction="right")
    (ours, _), (theirs, height) = path(scene, 0), path(scene, 1)
    assert np.ptp(theirs[:26]) < 0.01
    assert height[-1] > height[0] + 0.02
    assert theirs[-1] < theirs[0] - 0.1
    assert abs(ours[-1] - ours[0]) < 0.02 < 0.2 < np.ptp(ours)


def test_who_jumps_over_crosses_high_above_a_partner_that_stays():
    scene = one(animal="rabbit", action="jumps over", partner="cat")
    (x, height), (rest, _) = path(scene), path(scene, 0)
    assert np.ptp(rest) == 0
    assert (x[0] - rest[0]) * (x[-1] - rest[0]) < 0
    assert height[np.argmin(abs(x - rest))] > 0.25


# --- what is drawn ---


def test_more_frames_show_the_same_performance_more_finely():
    drawn = scenes(4, seed=5)
    few, many = critters.draw(drawn, 5, 64, 64), critters.draw(drawn, 9, 64, 64)
    assert np.array_equal(few, many[:, ::2])


def test_nobody_leaves_the_picture():
    drawn = scenes(300, seed=9)
    s = np.linspace(0, 1, 16)
    for scene in drawn:
        for act in perform(scene, s):
            assert act.x.min() > 0.04
            assert act.x.max() < 0.96


@pytest.mark.parametrize("place", critters.ATTRIBUTES["place"])
def test_something_drifts_or_twinkles_behind_whoever_runs_and_elsewhere_in_another_clip(place):
    one, other = scenes(2, wanted={"place": place, "action": "runs"})
    first, second = (critters.behind([scene], 2, 128, 128, moments=np.array([[0.1, 0.8]]))[0] for scene in (one, other))
    moved = (first[0] != first[1]).any(-1).mean()
    assert 0 < moved < 0.5, moved
    assert (first[0] != second[0]).any()


def test_clips_are_practically_never_the_same():
    drawn = scenes(60, seed=6, wanted={"animal": "cat", "action": "sleeps", "coat": "white", "place": "room"})
    assert len({clip.tobytes() for clip in clips(drawn, 4, 64, 64)}) == 60


# --- the split ---


def test_a_cat_fetching_a_ball_and_a_dog_chasing_a_mouse_are_never_trained_on():
    for animal, action, partner in ALWAYS_HELD_OUT:
        wanted = {"animal": animal, "action": action, "partner": partner}
        assert critters.heldout(critters.sample(np.random.default_rng(0), wanted))
        with pytest.raises(InvalidRequest, match="split 'train'"):
            critters.sample(np.random.default_rng(0), wanted, split="train")


def test_about_a_tenth_of_the_combinations_is_held_out_for_ever():
    held = heldout_combinations()
    alone = len(ANIMALS) * len(ALONE) * len(critters.ATTRIBUTES["coat"])
    pairs = len(ANIMALS) * sum(map(len, PARTNERS.values()))
    assert alone // 10 == sum(not cell[2] for cell in held)
    assert pairs // 10 <= sum(bool(cell[2]) for cell in held) <= pairs // 10 + len(ALWAYS_HELD_OUT)


def test_every_part_of_a_held_out_combination_is_trained_on_in_other_company():
    drawn = scenes(8000, seed=10, split="train")
    assert not any(map(critters.heldout, drawn))
    seen = {pair for s in drawn for pair in ((s.animal, s.action), (s.action, s.partner))}
    for animal, action, partner, _ in heldout_combinations():
        assert {(animal, action), (action, partner)} <= seen
    coats = critters.ATTRIBUTES["coat"]
    assert {(s.animal, s.coat) for s in drawn} == {(animal, coat) for animal in ANIMALS for coat in coats}


def test_near_misses_differ_by_little_and_are_never_held_out():
    rng, close = np.random.default_rng(11), []
    for scene in scenes(400, seed=11, split="train"):
        ours = critters.attributes(scene)
        for name, miss in zip(critters.ATTRIBUTES, critters.near_misses(scene, rng), strict=True):
            theirs = critters.attributes(miss)
            differing = [n for n in critters.ATTRIBUTES if ours.get(n) != theirs.get(n)]
            assert differing
            assert not critters.heldout(miss)
            assert miss.coat != miss.partner_coat
            assert name in differing or name not in ours or name == "partner"
            close.append(len(differing) == 1)
    assert np.mean(close) > 0.7


# --- words ---


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a cat fetching a ball", {"animal": "cat", "action": "fetches", "partner": "ball"}),
        ("a dog chasing a mouse", {"animal": "dog", "action": "chases", "partner": "mouse"}),
        (
            "a brown dog chases a white cat across the meadow",
            {
                "animal": "dog",
                "coat": "brown",
                "action": "chases",
                "partner": "cat",
                "partner coat": "white",
                "place": "meadow",
            },
        ),
        (
            "An orange kitten dashes after a ball in the snow!",
            {"animal": "cat", "coat": "orange", "action": "chases", "partner": "ball", "place": "snow"},
        ),
        (
            "a puppy fetching a bone at night",
            {"animal": "dog", "action": "fetches", "partner": "bone", "place": "night"},
        ),
        ("a bunny hops", {"animal": "rabbit", "action": "jumps"}),
        ("the mouse runs away from the cat", {"animal": "cat", "action": "chases", "partner": "mouse"}),
        (
            "a mouse is chased by a black cat",
            {"animal": "cat", "coat": "black", "action": "chases", "partner": "mouse"},
        ),
        ("the ball that the cat chases", {"animal": "cat", "action": "chases", "partner": "ball"}),
        ("a sleeping dog", {"animal": "dog", "action": "sleeps"}),
        (
            "a cat jumps over a sleeping dog on the beach",
            {"animal": "cat", "action": "jumps over", "partner": "dog", "place": "beach"},
        ),
        ("a snow white rabbit", {"animal": "rabbit", "coat": "white"}),
        ("a dog runs from left to right", {"animal": "dog", "action": "runs", "direction": "right"}),
        ("a bird flies to the left", {"animal": "bird", "action": "runs", "direction": "left"}),
        ("a goldfish swims at night", {"animal": "fish", "action": "walks", "place": "night"}),
        ("a dog jumps across the carpet", {"animal": "dog", "action": "jumps", "place": "room"}),
        ("a cat", {"animal": "cat"}),
    ],
)
def test_prompts_of_ones_own_are_understood(prompt, expected):
    assert critters.parse(prompt) == expected


def test_the_vocabulary_holds_every_word_of_every_caption_and_paraphrase():
    vocabulary, rng = set(critters.words()), np.random.default_rng(12)
    for scene in scenes(1000, seed=12):
        for describe in (critters.caption, critters.paraphrase):
            assert set(tokens(describe(scene, rng))) <= vocabulary


def test_no_paraphrase_is_worded_like_a_caption():
    rng, (scene,) = np.random.default_rng(13), scenes(1, wanted={"action": "chases"})
    said = [{describe(scene, rng) for _ in range(2000)} for describe in (critters.caption, critters.paraphrase)]
    assert min(map(len, said)) > 300
    assert not said[0] & said[1]


# --- what is refused ---


@pytest.mark.parametrize(
    "wanted",
    [
        {"action": "fetches", "partner": "dog"},
        {"action": "sleeps", "direction": "left"},
        {"coat": "white", "partner coat": "white"},
        {"action": "walks", "partner": "ball"},
        {"partner": "ball", "partner coat": "white"},
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(wanted):
    with pytest.raises(InvalidRequest, match=next(iter(wanted.values()))):
        critters.sample(np.random.default_rng(0), wanted)


# --- what is not read ---


def moving(count, seed):
    return [scene for scene in scenes(2 * count, seed) if scene.action not in ("sleeps", "sits")][:count]


def test_noise_a_blank_and_an_empty_place_are_read_as_nothing():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (16, 128, 128, 3), dtype=np.uint8)
    blank = np.full((16, 128, 128, 3), 245, np.uint8)
    smooth = np.clip(blurred(noise, 3.0), 0, 255).astype(np.uint8)
    assert critters.read(noise) == critters.read(blank) == critters.read(smooth) == {}


def test_a_double_exposure_is_not_read():
    first, second = (clips(scenes(40, seed=seed)) for seed in (14, 15))
    both = [((a.astype(int) + b) // 2).astype(np.uint8) for a, b in zip(first, second, strict=True)]
    assert np.mean(["action" in critters.read(clip) for clip in both]) <= 0.05


def test_frames_in_another_order_or_backwards_do_not_show_the_action():
    drawn, rng = moving(40, seed=16), np.random.default_rng(16)
    shown = clips(drawn)
    assert right(drawn, [clip[rng.permutation(16)] for clip in shown]) <= 0.05
    assert right(drawn, [clip[::-1] for clip in shown]) == 0


def test_a_smear_over_time_and_coarse_blocks_are_not_read():
    drawn = moving(40, seed=17)
    shown = clips(drawn)
    smears = [np.repeat(clip.mean(0, keepdims=True), 16, 0).astype(np.uint8) for clip in shown]
    blocks = [
        clip.reshape(16, 16, 8, 16, 8, 3).mean((2, 4)).repeat(8, 1).repeat(8, 2).astype(np.uint8) for clip in shown
    ]
    assert right(drawn, smears) == 0
    assert right(drawn, blocks) <= 0.1
