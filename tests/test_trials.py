"""Trials: what is right scores as right, what is wrong as wrong, so that no check passes everything."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from kinetograph import Video, evaluation
from kinetograph.controls import Control
from kinetograph.engines.zero import clips
from kinetograph.errors import InvalidRequest, KinetographError, UnknownName
from kinetograph.shelf import TRIALS, WORLDS
from kinetograph.trials import Shape, edge, motion, pose, sampled
from kinetograph.worlds import critters, shapes

SHAPE = Shape(3, 128, 128, Fraction(4))
FEW = 4
ABLE = [
    (name, world) for name in TRIALS for world in WORLDS if all(hasattr(WORLDS[world], n) for n in TRIALS[name].NEEDS)
]


def questions(name, world, folder, count=FEW, seed=0, shape=SHAPE):
    sources = [np.random.default_rng([seed, place]) for place in range(count)]
    return [TRIALS[name].ask(WORLDS[world], rng, shape, folder, "heldout") for rng in sources]


def test_every_trial_is_for_the_critters():
    assert {name for name, world in ABLE if world == "critters"} == set(TRIALS.names()) == {
        "depth", "edge", "edit", "motion", "pose",
    }  # fmt: skip


@pytest.mark.parametrize(("name", "world"), ABLE)
def test_questions_are_the_same_for_the_same_source(name, world, tmp_path):
    one, other = (questions(name, world, tmp_path / part) for part in ("a", "b") if not (tmp_path / part).mkdir())
    assert [q.prompt for q in one] == [q.prompt for q in other]
    assert [q.scene for q in one] == [q.scene for q in other]
    assert len({q.prompt for q in one}) > 1


# --- edges, depth, skeletons ---


@pytest.mark.parametrize("world", ["critters", "shapes", "circle"])
def test_edges_of_the_truth_are_met_and_of_another_scene_are_not(world, tmp_path):
    asked = questions("edge", world, tmp_path)
    found = edge.score([one.truth for one in asked], asked, WORLDS[world])["edge"]
    assert found.value == 1.0
    assert found.parts["shuffled"].value < 0.35
    blank = edge.score([0 * one.truth for one in asked], asked, WORLDS[world])["edge"]
    assert blank.value == 0.0


def test_the_tolerance_of_edges_is_a_pixel_at_128_and_no_more():
    line = np.zeros((1, 128, 128, 3), np.uint8)
    line[0, :, 40:80] = 255
    assert edge.overlap(np.roll(line, 1, 2), line) > 0.95
    assert edge.overlap(np.roll(line, 4, 2), line) < 0.1
    assert 0.3 < edge.overlap(line[:, :, :], np.where(np.arange(128)[None, :, None, None] < 64, line, 0)) < 0.7


@pytest.mark.parametrize("world", ["critters", "shapes"])
def test_depth_of_the_truth_agrees_and_of_another_scene_or_an_empty_place_does_not(world, tmp_path):
    asked = questions("depth", world, tmp_path, seed=1)
    trial, module = TRIALS["depth"], WORLDS[world]
    found = trial.score([one.truth for one in asked], asked, module)["depth"]
    assert found.value > 0.93
    assert found.parts["shuffled"].value < 0.6
    empty = np.broadcast_to(np.median(asked[0].truth, (0, 2))[:, None].astype(np.uint8), asked[0].truth.shape)
    assert trial.score([empty], asked[:1], module)["depth"].value < 0.2


def test_skeletons_of_the_truth_are_near_and_of_another_scene_are_not(tmp_path):
    asked = questions("pose", "critters", tmp_path, count=2, seed=2)
    found = pose.score([one.truth for one in asked], asked, critters)["pose"]
    assert found.value < 0.02
    assert found.parts["followed"].value == 1.0
    assert found.parts["shuffled"].value > 0.1
    assert pose.score([0 * one.truth for one in asked], asked, critters)["pose"].value == 1.0


def test_the_joint_error_is_the_distance_in_sides():
    scene = critters.sample(np.random.default_rng(3), {"animal": "dog", "action": "walks"})
    (dog,) = critters.joints(scene, np.zeros(1))
    true = [{name: path[0] for name, path in dog.points.items()}]
    moved = dog._replace(points={name: path + np.array([0.03, 0.04]) for name, path in dog.points.items()})
    assert pose.apart([dog], true) == 0
    assert pose.apart([moved], true) == pytest.approx(0.05)
    assert pose.apart([], true) == pose.apart([dog, dog], true) == 1.0


@pytest.mark.parametrize("kind", ["edge", "depth", "pose"])
def test_what_is_shown_is_a_file_that_shows_the_truth(kind, tmp_path):
    (one,) = questions(kind, "critters", tmp_path, count=1)
    control = Control.parse(one.settings["options"]["control"][0])
    shown = Video.load(control.path).frames
    assert np.array_equal(shown, one.truth if kind == "edge" else getattr(critters, kind)([one.scene], 3, 128, 128)[0])
    assert (one.settings["frames"], one.settings["width"], one.settings["fps"]) == (3, 128, 4)


# --- edits ---


@pytest.mark.parametrize("world", ["critters", "shapes"])
def test_the_scene_after_an_edit_passes_and_the_one_before_or_another_place_does_not(world, tmp_path):
    asked = questions("edit", world, tmp_path, count=6, seed=4)
    trial, module = TRIALS["edit"], WORLDS[world]
    right = trial.score([one.truth for one in asked], asked, module)["edit"]
    assert right.value >= 5 / 6
    assert right.parts["rest unchanged"].value == 1.0
    assert right.parts["drift"].value == 0.0
    assert right.parts["shuffled"].value <= 1 / 6
    undone = trial.score([one.before for one in asked], asked, module)["edit"]
    assert undone.value == undone.parts["done"].value == 0.0
    ruined = [((one.truth.astype(int) + 40) % 256).astype(np.uint8) for one in asked]
    assert trial.score(ruined, asked, module)["edit"].parts["rest unchanged"].value == 0.0


# --- motion ---


def travelling(one, frames=8):
    """The first picture of a scene, moved as it was asked to be; what leaves at one side comes in at the other."""
    first = critters.draw([one.scene], 1, 128, 128)[0, 0]
    gone = [one.settings["options"]["motion"][0] * k / one.fps * 128 for k in range(frames)]
    return np.stack([np.roll(first, round(x), 1) for x in gone])


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    return questions("motion", "critters", tmp_path_factory.mktemp("motion"), seed=7)


def test_a_moved_picture_obeys_keeps_who_it_is_and_goes_as_far_as_it_was_asked(asked):
    found = motion.score([travelling(one) for one in asked], asked, critters)
    assert found["obeys"].value == found["obeys"].parts["every frame"].value == 1.0
    assert found["identity"].value == 1.0
    assert found["translation"].value < 0.1
    assert found["translation"].parts["picture"].value < 0.1


def test_a_still_clip_strays_by_all_that_was_asked_and_does_not_flicker(asked):
    still = [np.repeat(travelling(one)[:1], 8, axis=0) for one in asked]
    found = motion.score(still, asked, critters)
    assert found["translation"].value == pytest.approx(1.0, abs=0.01)
    assert found["flicker"].value == 0.0
    shaken = [np.where(np.arange(8)[:, None, None, None] % 2, clip, clip - clip // 8) for clip in still]
    assert motion.score(shaken, asked, critters)["flicker"].value > 4


def test_another_coat_half_way_is_another_identity_and_another_sentence_is_not_obeyed(asked):
    changed = []
    for one in asked:
        coat = next(c for c in critters.ATTRIBUTES["coat"] if c != one.scene.coat)
        other = replace(one, scene=replace(one.scene, coat=coat))
        changed.append(np.concatenate([travelling(one)[:4], travelling(other)[4:]]))
    found = motion.score(changed, asked, critters)
    assert found["identity"].value == 0.0
    assert found["identity"].parts["frames"].value == pytest.approx(3 / 7)
    assert found["obeys"].parts["shuffled"].value < found["obeys"].value
    strangers = motion.score([travelling(one) for one in asked[1:] + asked[:1]], asked, critters)
    assert strangers["obeys"].value < 1.0
    nothing = motion.score([0 * travelling(one) for one in asked], asked, critters)
    assert nothing["obeys"].value == nothing["identity"].value == 0.0
    assert nothing["translation"].value == 1.0


# --- what single pictures show ---


@pytest.mark.parametrize("world", [critters, shapes, WORLDS["circle"]], ids=["critters", "shapes", "circle"])
def test_a_single_picture_is_read(world):
    rng, right = np.random.default_rng(8), []
    for _ in range(24):
        scene = sampled(world, rng, "all")
        said = world.shown(world.attributes(scene))
        frame = world.draw([scene], 1, 128, 128, moments=np.array([[rng.random()]]))[0, 0]
        right.append(said.items() <= world.glimpse(frame, said).items())
    assert np.mean(right) >= 22 / 24
    assert world.glimpse(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) == {}


# --- with an engine ---


def test_an_engine_is_put_to_a_trial_and_the_report_says_so(picture_model, tmp_path):
    reference = f"zero:{picture_model('sd')}"
    report = evaluation.evaluate(
        reference, "shapes", count=2, kind="motion", options={"steps": 2, "chunk": 8}, out=tmp_path / "out"
    )
    assert report.kind == "motion"
    assert report.scores["obeys"].value == 0.0  # random weights
    assert report.scores["translation"].parts["picture"].unit == "of what was asked"
    assert evaluation.Report.from_dict(report.to_dict()) == report
    assert (tmp_path / "out" / evaluation.REPORT).exists()
    assert "translation/picture" in evaluation.compare(report)


def test_controls_and_edits_are_asked_of_an_engine(picture_model, monkeypatch):
    control = picture_model("controlnet")
    monkeypatch.setattr(clips.ClipOptions, "companions", dict.fromkeys(("edge", "depth", "pose"), str(control)))
    few, settings = {"steps": 2}, {"width": 96, "frames": 3}
    asked = {"count": 2, "kind": "edge", "options": few, "settings": settings}
    report = evaluation.evaluate(f"zero:{picture_model('sd')}", "shapes", **asked)
    assert 0 <= report.scores["edge"].value < 0.5
    assert report.clips[0].shape[0] == 3
    assert report.clips[0].shape[2] == 96
    assert dict(report.settings) == settings
    edited = evaluation.evaluate(f"zero:{picture_model('pix2pix')}", "shapes", count=2, kind="edit", options=few)
    assert edited.scores["edit"].value == 0.0


def test_the_ablation_asks_the_same_of_every_row(picture_model, tmp_path):
    few = {"steps": 2, "chunk": 8, "t": 450, "t_prime": 450}
    rows = evaluation.ablation(f"zero:{picture_model('sd')}", "shapes", 1, options=few, out=tmp_path)
    assert [row.engine for row in rows] == [*evaluation.ABLATIONS]
    assert len({row.captions for row in rows}) == 1
    clips = [row.clips[0] for row in rows]
    assert all((clips[0] != clip).any() for clip in clips[1:4])
    assert rows[5] == replace(rows[0], engine="latents moved")  # what it does by itself: made once
    assert (clips[6] != clips[0]).any()
    table = evaluation.compare(*rows)
    assert "without cross-frame attention" in table
    assert "identity" in table
    assert (tmp_path / "comparison.md").read_text() == table + "\n"
    with Image.open(tmp_path / "contact_sheet.png") as sheet:
        assert sheet.height > len(rows) * clips[0].shape[1]


def test_a_trial_that_cannot_be_is_refused(picture_model):
    reference = f"zero:{picture_model('sd')}"
    with pytest.raises(InvalidRequest, match="knows nothing of pose") as error:
        evaluation.evaluate(reference, "circle", count=1, kind="pose")
    assert "critters" in error.value.hint
    with pytest.raises(InvalidRequest, match="of its own"):
        evaluation.evaluate(reference, "critters", count=1, kind="pose", metrics=["obeys"])
    with pytest.raises(UnknownName, match="poses") as wrong:
        evaluation.evaluate(reference, "critters", count=1, kind="poses")
    assert "pose" in wrong.value.hint


@pytest.mark.parametrize("how", [{"seed": -1}, {"split": "nonsense"}, {"world": "circle"}, {}], ids=str)
def test_a_trial_that_is_refused_leaves_no_folder_behind(how, tmp_path):
    """The last is for an engine that is told of no edits."""
    with pytest.raises(KinetographError):
        evaluation.evaluate("render", count=1, kind="edit", out=tmp_path / "out", **{"world": "critters", **how})
    assert not (tmp_path / "out").exists()
