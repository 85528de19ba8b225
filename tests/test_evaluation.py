"""Evaluation: questions that are the same for everybody, answers that are scored, reports that are kept."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kinetograph.errors import Cancelled, CannotWrite, InvalidRequest, UnknownName
from kinetograph.evaluation import (
    REPEATED,
    SEEDS,
    Report,
    Subject,
    compare,
    evaluate,
    examine,
    prepare,
    score_videos,
    subject,
)
from kinetograph.shelf import WORLDS

WORLD = WORLDS["circle"]
QUICK = ("diversity", "flicker", "motion", "obeys")


@pytest.fixture(scope="module")
def report():
    return evaluate("render", count=24, metrics=QUICK)


def answering(frames):
    return Subject(name="dummy", make=lambda prompt, seed: (frames(prompt, seed), 0.5))


# --- the exam -------------------------------------------------------------------------------------------------------


def test_an_exam_is_the_same_for_ever_and_another_for_another_seed():
    assert prepare(count=5, metrics=QUICK) == prepare(count=5, metrics=QUICK)
    assert prepare(count=5, metrics=QUICK) != prepare(count=5, metrics=QUICK, seed=1)


def test_a_longer_exam_begins_like_a_shorter_one():
    assert prepare(count=9, metrics=QUICK).questions[:5] == prepare(count=5, metrics=QUICK).questions


def test_heldout_prompts_name_combinations_that_training_never_sees():
    for question in prepare(count=30, metrics=QUICK).questions:
        assert WORLD.heldout(question.scene)
        assert WORLD.attributes(question.scene) == WORLD.parse(question.prompt)


def test_the_keys_of_an_exam_are_not_those_of_training():
    trained = np.random.Generator(np.random.Philox(np.random.SeedSequence([0, 0, 0])))
    scene = WORLD.sample(trained, split="train")
    assert scene not in [question.scene for question in prepare(split="train", count=3, metrics=QUICK).questions]


def test_given_prompts_are_asked_in_turn_each_under_several_seeds():
    exam = prepare(count=5, prompts=["a red ball", "a ball moving left"], metrics=["obeys"])
    assert [question.prompt for question in exam.questions][1:4] == [
        "a ball moving left",
        "a red ball",
        "a ball moving left",
    ]
    assert len({question.seed for question in exam.questions}) == 5
    assert exam.split == "given"
    assert exam.repeats == ()


def test_prompts_are_repeated_for_the_metrics_that_compare_seeds():
    repeats = prepare(count=2, metrics=["diversity"]).repeats
    assert len(repeats) == REPEATED * SEEDS
    assert len({question.prompt for question in repeats}) == REPEATED
    assert len({question.seed for question in repeats}) == len(repeats)


def test_every_prompt_of_the_article_can_be_asked():
    assert len(prepare(count=18, prompts=WORLD.ARTICLE_PROMPTS, metrics=["obeys"]).questions) == 18


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"metrics": ["obey"]}, "'obeys'"),
        ({"world": "circel"}, "'circle'"),
        ({"split": "held"}, "heldout"),
        ({"engine": "rendr"}, "'render'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(wrong, said):
    with pytest.raises(UnknownName) as refusal:
        evaluate(**{"engine": "render", "count": 1, "metrics": ["obeys"]} | wrong)
    assert said in refusal.value.hint


@pytest.mark.parametrize("wrong", [{"count": 0}, {"prompts": []}, {"seed": -1}, {"prompts": ["what a day"]}])
def test_an_exam_that_cannot_be_set_is_refused(wrong):
    with pytest.raises(InvalidRequest):
        prepare(**{"count": 1, "metrics": ["obeys"]} | wrong)


# --- the answers ----------------------------------------------------------------------------------------------------


def test_the_engine_that_draws_what_is_asked_has_the_best_scores(report):
    assert report.scores["obeys"].value == 1
    assert report.scores["obeys"].parts["shuffled"].value <= 0.05
    assert report.scores["flicker"].value < 0.1
    assert report.scores["motion"].value < 0.2
    assert report.scores["diversity"].value > 0.8
    assert report.count == report.scores["obeys"].count == 24
    assert report.scores["diversity"].count == REPEATED * SEEDS


def test_two_evaluations_agree(report):
    assert evaluate("render", count=24, metrics=QUICK).scores == report.scores


def test_noise_and_frozen_clips_obey_nothing():
    def noise(prompt, seed):
        return np.random.default_rng(seed).integers(0, 256, (10, 64, 64, 3), dtype=np.uint8)

    def frozen(prompt, seed):
        scene = WORLD.sample(np.random.default_rng(seed), WORLD.parse(prompt))
        return np.repeat(WORLD.draw([scene], 10, 64, 64)[0][:1], 10, axis=0)

    exam = prepare(count=12, metrics=["obeys", "motion"], prompts=WORLD.ARTICLE_PROMPTS[:12])
    for make in (noise, frozen):
        found = examine(answering(make), exam)
        assert found.scores["obeys"].value == 0
        assert found.scores["motion"].value > 1


def test_clips_at_hand_can_be_scored_without_an_engine():
    exam = prepare(count=6, metrics=["obeys"])
    videos = [*WORLD.draw([question.scene for question in exam.questions], 10, 64, 64)]
    scores = score_videos(videos, [question.prompt for question in exam.questions], videos, WORLD, ["obeys", "motion"])
    assert (scores["obeys"].value, scores["motion"].value) == (1, 0)
    assert scores["obeys"].parts["colour"].unit == "of videos"


def test_the_first_clip_does_not_count_towards_the_time():
    times = iter([9.0, 0.2, 0.1, 0.3])
    who = Subject(name="slow start", make=lambda *_: (np.zeros((4, 16, 16, 3), np.uint8), next(times)))
    assert examine(who, prepare(count=4, metrics=["flicker"])).seconds == 0.2


def test_an_evaluation_tells_how_far_it_is_and_can_be_given_up():
    told = []

    def give_up(progress):
        told.append((progress.step, progress.steps))
        if len(told) == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        evaluate("render", count=5, metrics=["obeys"], on_progress=give_up)
    assert told == [(1, 5), (2, 5), (3, 5)]


# --- the report -----------------------------------------------------------------------------------------------------


def test_a_report_survives_its_file(report, tmp_path):
    report.write(tmp_path / "deep" / "er")
    again = Report.from_dict(json.loads((tmp_path / "deep" / "er" / "report.json").read_text()))
    assert again == report
    assert again.rows() == report.rows()
    assert sorted(path.name for path in (tmp_path / "deep" / "er").iterdir()) == ["contact_sheet.png", "report.json"]


def test_the_contact_sheet_says_what_each_clip_missed(tmp_path):
    black = answering(lambda prompt, seed: np.zeros((10, 64, 64, 3), np.uint8))
    found = examine(black, prepare(count=3, prompts=["a red ball moving left"], metrics=["flicker"]), out=tmp_path)
    assert found.captions == ("a red ball moving left - missed: colour, motion, background, speed",) * 3
    with Image.open(tmp_path / "contact_sheet.png") as sheet:
        assert sheet.width > 10 * 64


def test_a_report_that_cannot_be_written_says_why(report, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match=r"report\.json"):
        report.write(tmp_path / "file")


def test_rows_name_every_part_with_its_unit_and_direction(report):
    rows = {row.name: row for row in report.rows()}
    assert rows["obeys/colour"].better == "higher"
    assert rows["obeys/shuffled/colour"].better == "chance"
    assert (rows["motion/ratio"].unit, rows["motion/ratio"].better) == ("ratio", "one")
    assert all(row.unit and row.better and row.low <= row.value <= row.high for row in rows.values())


def test_reports_stand_side_by_side_in_one_table(report):
    black = answering(lambda prompt, seed: np.zeros((10, 64, 64, 3), np.uint8))
    table = compare(report, examine(black, prepare(count=3, metrics=["obeys"]))).splitlines()
    assert table[0] == "| score | better | render | dummy |"
    assert len({line.count("|") for line in table}) == 1
    assert any(line.startswith("| flicker") and line.endswith("| not measured |") for line in table)
    assert table[-1].endswith("| 0.5 |")


def test_evaluation_and_metrics_do_not_import_torch():
    code = (
        "import sys, kinetograph.evaluation; from kinetograph.shelf import METRICS; [METRICS[n] for n in METRICS];"
        "print('torch' in sys.modules)"
    )
    options = {"capture_output": True, "text": True, "check": True}
    assert subprocess.run([sys.executable, "-c", code], **options).stdout.strip() == "False"


# --- the peer -------------------------------------------------------------------------------------------------------


BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
def test_the_articles_network_has_the_articles_sizes_and_can_be_examined(monkeypatch, tmp_path):
    import torch

    monkeypatch.syspath_prepend(BENCHMARKS)
    article, peers = importlib.import_module("article_gan"), importlib.import_module("peers")
    sizes = [sum(p.numel() for p in part.parameters()) for part in (article.Generator(), article.Critic())]
    assert sizes == [2_477_251, 675_265]
    budget = peers.Budget(steps=2, minutes=5, seed=0, device=torch.device("cpu"))
    peer, training = article.trained(budget, tmp_path)
    assert training["steps"] == 2
    found = examine(peer, prepare(count=2, metrics=["obeys"]))
    assert found.scores["obeys"].value == 0


@pytest.mark.slow
def test_the_tutorials_network_is_told_text_and_time_and_can_be_examined(monkeypatch, tmp_path):
    import torch

    monkeypatch.syspath_prepend(BENCHMARKS)
    tutorial, peers = importlib.import_module("tutorial_diffusion"), importlib.import_module("peers")
    for name, small in {"WIDTH": 8, "TIMES": (1, 2), "SIDE": 16, "FRAMES": 4}.items():
        monkeypatch.setattr(tutorial, name, small)
    budget = peers.Budget(steps=3, minutes=5, seed=0, device=torch.device("cpu"))
    network, vocabulary, training = tutorial.train(WORLD, budget)
    assert training.steps == 3
    still = torch.zeros(2, 3, 4, 16, 16)
    ids = vocabulary.encode(["a red ball", "a blue disc"], 8)
    told = [network(still, torch.tensor([now, now]), ids, torch.tensor([False, False])) for now in (10, 900)]
    assert (told[0] - told[1]).abs().max() > 1e-6  # time
    assert (told[0][0] - told[0][1]).abs().max() > 1e-6  # text
    frames, _ = tutorial.peer(network, vocabulary, torch.device("cpu"), 3).make("a red ball", 1)
    assert frames.shape == (4, 16, 16, 3)


def test_a_step_of_the_tutorials_sampler_keeps_the_law_of_noise(monkeypatch):
    """From clean + noise at one level to the same at a lower one: the variance must come out right."""
    import torch

    monkeypatch.syspath_prepend(BENCHMARKS)
    tutorial = importlib.import_module("tutorial_diffusion")
    alphas, source = tutorial.kept_signal(), torch.Generator().manual_seed(0)
    clean = torch.full((200_000,), 0.5)
    now, to = 700, 300
    x = alphas[now].sqrt() * clean + (1 - alphas[now]).sqrt() * torch.randn(clean.shape, generator=source)
    made = tutorial.stepped(x, clean, alphas, now, to, torch.randn(clean.shape, generator=source))
    assert float(made.mean()) == pytest.approx(float(alphas[to].sqrt() * 0.5), abs=0.01)
    assert float(made.var()) == pytest.approx(float(1 - alphas[to]), abs=0.01)


def test_pairs_ask_two_prompts_that_differ_in_one_attribute_and_count_both():
    exam = prepare(count=20, kind="pairs", metrics=["obeys"])
    said = [WORLD.parse(question.prompt) for question in exam.questions]
    apart = [sum(a.get(n) != b.get(n) for n in {*a, *b}) for a, b in zip(said[::2], said[1::2], strict=True)]
    assert all(apart)
    assert apart.count(1) > 6  # what stands still has no speed either
    report = examine(subject("render"), exam)
    pairs = report.scores["obeys"].parts["pairs"]
    assert (pairs.value, pairs.count, pairs.unit) == (1.0, 10, "of pairs")


def test_options_reach_the_engine_and_strangers_are_refused():
    with pytest.raises(InvalidRequest, match="magic"):
        subject("render", options={"magic": 1})


@pytest.mark.parametrize(("kind", "metrics"), [("pairs", ["obeys"]), ("captions", ["frechet"]), ("captions", None)])
def test_too_few_questions_for_a_metric_are_refused_before_anything_is_made(kind, metrics):
    with pytest.raises(InvalidRequest, match="needs 2 videos, not 1") as error:
        prepare(count=1, kind=kind, metrics=metrics)
    assert "nearest: 2" in error.value.hint


def test_a_folder_that_cannot_be_written_is_refused_before_the_exam(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("kinetograph.evaluation.subject", lambda *a, **k: pytest.fail("the engine was loaded"))
    with pytest.raises(CannotWrite):
        evaluate("render", count=2, metrics=["obeys"], out=tmp_path / "file")


def test_an_unknown_kind_of_exam_is_refused():
    with pytest.raises(UnknownName, match="riddles"):
        prepare(kind="riddles")


def test_clips_of_other_sizes_and_lengths_can_be_asked_for(tmp_path):
    settings = {"width": 96, "height": 64, "frames": 12}
    report = evaluate("render", count=3, metrics=["obeys"], settings=settings, out=tmp_path)
    assert report.clips[0].shape == (12, 64, 96, 3)
    assert report.scores["obeys"].value == 1.0
    assert dict(Report.from_dict(json.loads((tmp_path / "report.json").read_text())).settings) == settings


@pytest.mark.parametrize("kind", ["captions", "motion"])
def test_a_size_that_an_engine_does_not_make_is_refused_before_anything_is_made(kind, tmp_path):
    with pytest.raises(InvalidRequest) as refused:
        evaluate("render:critters", "critters", kind=kind, settings={"width": 3}, out=tmp_path / "report")
    assert "nearest" in refused.value.hint
    assert not (tmp_path / "report").exists()
