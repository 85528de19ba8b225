"""The circle world: its two laws, its split, its words, its pixels."""

import hashlib
from fractions import Fraction

import array_api_strict
import numpy as np
import pytest

from kinetograph import Video
from kinetograph.errors import InvalidRequest
from kinetograph.language import tokens
from kinetograph.worlds import circle


def scenes(count, seed=0, **how):
    rng = np.random.default_rng(seed)
    return [circle.sample(rng, **how) for _ in range(count)]


def clips(drawn, frames=10, height=64, width=64):
    return [circle.draw([scene], frames, height, width)[0] for scene in drawn]


# --- the two laws ---


@pytest.mark.parametrize(
    ("frames", "height", "width"), [(10, 64, 64), (16, 128, 128), (24, 96, 160), (8, 48, 48), (30, 64, 64)]
)
def test_read_undoes_draw_at_any_size_and_length(frames, height, width):
    drawn = scenes(120, seed=frames)
    for scene, clip in zip(drawn, clips(drawn, frames, height, width), strict=True):
        assert circle.read(clip) == circle.attributes(scene), scene


def test_every_motion_size_and_speed_is_read_back():
    wanted = [
        {"motion": motion, "size": size, "speed": speed}
        for motion in circle.MOTIONS
        for size in circle.SIZES
        for speed in circle.SPEEDS
    ]
    rng = np.random.default_rng(3)
    for attributes in wanted:
        scene = circle.sample(rng, attributes)
        assert circle.read(clips([scene])[0]) == circle.attributes(scene)


@pytest.mark.slow
@pytest.mark.parametrize(("side", "enlarge"), [(64, None), (64, 1), (192, None)])
def test_every_motion_and_speed_is_read_back_after_h264(tmp_path, side, enlarge):
    rng = np.random.default_rng(4)
    for motion in circle.MOTIONS:
        for speed in circle.SPEEDS:
            scene = circle.sample(rng, {"motion": motion, "speed": speed})
            (clip,) = clips([scene], 10, side, side)
            path = Video(clip, Fraction(10)).save(tmp_path / "clip.mp4", enlarge=enlarge, overwrite=True)
            assert circle.read(Video.load(path).frames) == circle.attributes(scene), scene


# --- what is left to chance ---

# In which order a path asks for its chances; `way` is a coin.
ASKED = {
    "straight": ("radius", "extent", "x", "y"),
    "bouncing": ("radius", "extent", "rate", "phase", "x", "y"),
    "zigzagging": ("radius", "extent", "way", "sway", "rate", "phase", "x", "y"),
    "circling": ("radius", "rate", "extent", "phase", "x", "y"),
    "shrinking": ("radius", "rate", "x", "y"),
    "expanding": ("radius", "rate", "x", "y"),
    "still": ("radius", "x", "y"),
}


class Again:
    """A random source that decides once more what was decided."""

    def __init__(self, motion, chances):
        asked = ASKED.get(motion.split(" ")[0], ASKED["straight"])
        self.left = [0.5 * (chances[name] < 0) if name == "way" else chances[name] for name in asked]

    def random(self):
        return self.left.pop(0)

    def uniform(self, low, high):
        return low + (high - low) * self.random()


@pytest.mark.parametrize("motion", circle.MOTIONS)
def test_attributes_and_chances_tell_the_whole_path(motion):
    for scene in scenes(20, wanted={"motion": motion}):
        again = Again(motion, circle.chances(scene))
        path = circle._path(again, motion, scene.speed, scene.size)
        assert again.left == []
        for name, value in vars(path).items():
            assert np.allclose(value, getattr(scene.path, name), atol=1e-9), name


def test_chances_are_even_and_say_nothing_of_the_attributes():
    told = [circle.chances(scene) for scene in scenes(4000)]
    for name in (*circle.CHANCES, *circle.PHASES):
        decided = np.sort([chances[name] for chances in told if name in chances])
        assert abs(decided - np.linspace(0, 1, len(decided))).max() < 2 / np.sqrt(len(decided)), name
    assert {chances["way"] for chances in told if "way" in chances} == {-1.0, 1.0}
    slow, quick = (
        np.mean([circle.chances(scene)["extent"] for scene in scenes(500, wanted={"motion": "up", "speed": speed})])
        for speed in ("slowly", "quickly")
    )
    assert abs(slow - quick) < 0.08


# --- what is drawn ---


@pytest.mark.parametrize(("frames", "height", "width"), [(10, 64, 64), (1, 16, 16), (7, 33, 80), (3, 100, 64)])
def test_stamping_draws_what_drawing_draws_bit_by_bit(frames, height, width):
    drawn = scenes(200)
    stamped = np.zeros((200, frames, height, width), np.uint8)
    for which, corners, patches in circle.stamps(drawn, frames, height, width):
        for clip, places, stamps in zip(which, corners, patches, strict=True):
            for frame, (x, y), patch in zip(stamped[clip], places, stamps, strict=True):
                frame[y : y + len(patch), x : x + len(patch[0])] = patch
    for scene, index, clip in zip(drawn, stamped, circle.draw(drawn, frames, height, width), strict=True):
        assert np.array_equal(circle.shades(scene)[index], clip)


def test_drawing_keeps_to_the_array_api_standard_bit_by_bit():
    some = scenes(8)
    drawn = circle.draw(some, 10, 64, 64, xp=array_api_strict)
    assert np.array_equal(np.asarray(drawn), circle.draw(some, 10, 64, 64))


def test_no_frame_is_blank_and_no_disc_touches_the_border():
    drawn = scenes(400, seed=4)
    for scene, clip in zip(drawn, clips(drawn), strict=True):
        ground = np.array(circle.BACKGROUNDS[scene.background])
        away = np.abs(clip.astype(int) - ground).sum(-1)
        assert (away.reshape(10, -1).max(1) > 60).all()
        assert away[:, [0, -1]].max() == away[:, :, [0, -1]].max() == 0


def test_clips_are_practically_never_the_same():
    drawn = scenes(1000, seed=6, wanted={"motion": "right", "colour": "red", "size": "small", "background": "white"})
    assert len({clip.tobytes() for clip in clips(drawn)}) == 1000


def test_a_clip_of_one_frame_shows_the_disc_at_its_start():
    (scene,) = scenes(1)
    one, ten = circle.draw([scene], 1, 64, 64)[0], circle.draw([scene], 10, 64, 64)[0]
    assert np.array_equal(one[0], ten[0])
    assert {name: circle.read(one).get(name) for name in ("colour", "background")} == {
        "colour": scene.colour,
        "background": scene.background,
    }


# --- the split ---


def test_a_tenth_of_all_combinations_is_held_out_for_ever():
    held = circle.heldout_combinations()
    assert len(held) == len(circle.COLOURS) * len(circle.MOTIONS) * len(circle.SIZES) // 10
    assert {motion for _, motion, _ in held} == set(circle.MOTIONS)
    listed = "\n".join("/".join(combination) for combination in sorted(held))
    assert hashlib.sha256(listed.encode()).hexdigest().startswith("a4bfd363b5c03d0a")  # this never changes


def test_near_misses_differ_in_one_attribute_each_and_are_never_held_out():
    rng = np.random.default_rng(7)
    for scene in scenes(1000, split="train"):
        for name, miss in zip(circle.ATTRIBUTES, circle.near_misses(scene, rng), strict=True):
            differing = [other for other in circle.ATTRIBUTES if getattr(scene, other) != getattr(miss, other)]
            assert differing in ([name], ["motion"])
            assert differing == [name] or name in ("speed", "size")  # where no other speed or size may be seen
            assert not circle.heldout(miss)


# --- words ---


@pytest.mark.parametrize("prompt", circle.ARTICLE_PROMPTS)
def test_every_prompt_of_the_article_means_a_motion(prompt):
    assert circle.parse(prompt)["motion"] in circle.MOTIONS


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("A crimson disc drifts to the right!", {"colour": "red", "motion": "right"}),
        ("the tiny blue dot, bouncing up and down quickly", {"motion": "bouncing vertically", "speed": "quickly"}),
        ("a navy ball", {}),
        ("a red ball on a dark-blue background", {"colour": "red", "background": "navy"}),
        ("a white circle standing still", {"background": "black", "motion": "still"}),
        ("ball goes up and to the right, slow", {"motion": "up-right", "speed": "slowly"}),
        ("a red ball flies upwards", {"motion": "up"}),
        ("CIRCLE ROTATING COUNTER-CLOCKWISE", {"motion": "circling counter-clockwise"}),
    ],
)
def test_prompts_of_ones_own_are_understood(prompt, expected):
    said = circle.parse(prompt)
    assert {name: said.get(name) for name in expected} == expected


def test_a_speed_said_twice_is_not_taken_for_a_size():
    asked = circle.parse("a slow circle moving slowly to the left")
    assert asked == {"motion": "left", "speed": "slowly", "background": "white"}


def test_a_prompt_without_a_speed_or_a_background_means_the_usual_ones():
    assert circle.parse("a red circle moving up") == {
        "colour": "red",
        "motion": "up",
        "speed": "steadily",
        "background": "white",
    }


def test_the_vocabulary_holds_every_word_of_every_caption_and_of_the_article():
    vocabulary, rng = set(circle.words()), np.random.default_rng(8)
    said = [circle.caption(scene, rng) for scene in scenes(1000, seed=8)] + list(circle.ARTICLE_PROMPTS)
    assert {word for prompt in said for word in tokens(prompt)} <= vocabulary


# --- what is refused ---


def test_a_disc_that_cannot_be_seen_is_refused_by_name():
    with pytest.raises(InvalidRequest, match="colour white, background white"):
        circle.sample(np.random.default_rng(0), {"colour": "white", "background": "white"})


# --- what is not read ---


def test_noise_a_blank_and_a_smear_are_read_as_nothing():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (10, 64, 64, 3), dtype=np.uint8)
    blank = np.full((10, 64, 64, 3), 245, np.uint8)
    smear = np.full((10, 64, 64, 3), 245, np.uint8)
    smear[:, 20:30, 5:60] = (225, 35, 35)
    assert circle.read(noise) == circle.read(blank) == circle.read(smear) == {}


def test_a_square_and_two_discs_are_not_read_as_one_disc():
    drawn = scenes(2, wanted={"colour": "red", "background": "white", "motion": "still", "size": "small"})
    pair = np.minimum(*clips(drawn))
    centres, _ = circle.geometry(drawn, 10, 64, 64)
    assert np.linalg.norm(centres[0, 0] - centres[1, 0]) > 20
    assert circle.read(pair) == {}


def test_a_flash_between_two_levels_is_read_as_nothing():
    flash = np.zeros((10, 64, 64, 3), np.uint8)
    flash[::2] = 255
    assert circle.read(flash) == {}


def test_frames_in_another_order_do_not_show_the_motion():
    drawn = scenes(40, wanted={"motion": "right", "speed": "quickly"})
    order = np.random.default_rng(0).permutation(10)
    assert not any(circle.read(clip[order]).get("motion") == "right" for clip in clips(drawn))
