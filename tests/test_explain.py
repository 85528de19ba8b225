"""Diffusion made visible: numbers that are right, pictures that show them, files that are whole."""

import csv
import json
import math
import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from kinetograph import Video, explaining, media
from kinetograph.cli.commands import app
from kinetograph.engine import describe, warm
from kinetograph.errors import Cancelled, CannotWrite, InvalidRequest, OutputExists, UnknownName
from kinetograph.evaluation import Subject
from kinetograph.explaining import explain, figures, forward, measured, numbers, plates, reverse, schedule
from kinetograph.neural import sampling
from kinetograph.neural.device import noise
from kinetograph.neural.training import recipes

PROMPT = "a large red circle moving right"


CAPTIONS = {"ask": "captions", "world": "circle"}
PANELS = {"obeys", "diversity", "flicker", "seconds"}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flow") / "run"
    recipes.get("flow-tiny").train(folder, device="cpu", steps=2)
    yield f"flow:{folder}"
    warm.clear()


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(forward, "LONG", 8)


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# --- the numbers ------------------------------------------------------------------------------------------------------


def test_alpha_bar_of_a_discrete_schedule_is_the_product_that_defines_it():
    betas = sampling.linear_betas()
    bars = [numbers.alpha_bar(level) for level in schedule.named("linear")]
    assert bars == pytest.approx((1 - betas).cumprod(0).tolist(), rel=1e-9)
    assert schedule.betas(schedule.named("linear")) == pytest.approx(betas.tolist(), rel=1e-6)


def test_levels_on_one_ray_of_the_plane_have_the_same_numbers():
    flow, preserving = sampling.Level(0.3, 0.6), sampling.Level(0.2**0.5, 0.8**0.5)
    assert numbers.alpha_bar(flow) == pytest.approx(numbers.alpha_bar(preserving)) == pytest.approx(0.2)
    assert numbers.decibels(flow) == pytest.approx(numbers.decibels(preserving)) == pytest.approx(20 * math.log10(0.5))


def test_the_ends_of_a_schedule_are_told_in_words():
    assert numbers.lines(sampling.CLEAN)[-1] == "no noise"
    assert numbers.lines(sampling.flow_level(1.0))[-1] == "no signal"
    assert numbers.lines(sampling.flow_level(0.5))[-1] == "SNR +0.0 dB"


@pytest.mark.parametrize("name", schedule.CURVES)
def test_every_curve_goes_from_hardly_any_noise_to_hardly_any_signal(name):
    levels = schedule.named(name)
    assert len(levels) == schedule.FINE
    assert numbers.decibels(levels[0]) > 20
    assert numbers.decibels(levels[-1]) < -20
    assert all(a.ratio < b.ratio for a, b in pairwise(levels))
    assert all(0 < beta <= 1 for beta in schedule.betas(levels))


def test_every_kind_of_schedule_there_is_has_a_curve():
    assert {curve.schedule for curve in schedule.CURVES.values()} == set(sampling.SCHEDULES)


def test_schedules_are_drawn_and_their_numbers_written(tmp_path):
    picture, table = explain("schedule", tmp_path)
    with Image.open(picture) as drawn:
        assert drawn.width > 1000
        assert len(drawn.convert("RGB").getcolors(2**20)) > 100
    rows = rows_of(table)
    assert len(rows) == len(schedule.CURVES) * schedule.FINE
    last = {row["schedule"]: row for row in rows}  # of each schedule, the noisiest
    assert float(last["scaled-linear"]["alpha_bar"]) == pytest.approx(0.00466, abs=1e-5)
    assert last["zero-terminal-snr"]["snr_db"] == "-inf"


# --- forward ----------------------------------------------------------------------------------------------------------


def test_a_clip_dissolves_frame_by_frame(tmp_path):
    sheet, clip = explain("forward", tmp_path, prompt=PROMPT)
    with Image.open(sheet) as drawn:
        assert drawn.height > (forward.ROWS + 1) * 128
    frames = media.read(clip).frames[:, :, : plates.SIDE].astype(int)
    assert len(frames) == 8
    rough = np.abs(np.diff(frames[:, ::4, ::4], axis=2)).mean((1, 2, 3))
    assert rough[0] < 20 < 60 < rough[-1]
    assert (np.diff(rough[:6]) > 0).all()  # then noise is all there is


def test_the_noise_that_is_shown_is_the_noise_of_the_equation():
    clip, level = torch.full((1, 3, 2, 8, 8), 0.5), sampling.flow_level(0.3)
    (shown,) = forward._dissolving(clip, [level], 5)
    x = 0.7 * 0.5 + 0.3 * noise(5, shape=(1, 3, 2, 8, 8))
    wanted = ((x / math.hypot(0.7, 0.3)).clamp(-1, 1) + 1) * 127.5
    assert np.abs(shown - wanted[0].permute(1, 2, 3, 0).numpy()).max() <= 0.5 + 1e-3


def test_a_mean_over_frames_shows_what_one_frame_hides():
    clip = torch.full((1, 3, 64, 32, 32), 1.0)
    clip[..., 8:24, 8:24] = -1.0
    one, *_, many = forward.means(clip, 0).astype(float)

    def seen(picture):
        inside, outside = picture[8:24, 8:24], np.delete(picture, np.s_[8:24], 0)
        return (outside.mean() - inside.mean()) / outside.std()

    assert seen(one) < 1 < 2 < seen(many)


def test_any_scene_of_a_world_can_dissolve_the_same_for_the_same_seed(tmp_path):
    pictures = [explain("forward", tmp_path / str(i), schedule="karras", seed=s)[0] for i, s in enumerate((4, 4, 5))]
    first, again, other = (picture.read_bytes() for picture in pictures)
    assert first == again != other


# --- reverse ----------------------------------------------------------------------------------------------------------


def test_what_is_seen_of_a_sampler_is_what_it_holds_and_what_is_made_of_it():
    clean, e = torch.rand(1, 3, 2, 8, 8) * 2 - 1, noise(0, shape=(1, 3, 2, 8, 8))
    levels = sampling.schedule("flow", 6)
    glimpses = reverse.Glimpses(levels, frozenset({1, 4, 6}))
    sampling.sample(lambda x, level: clean, e, levels, on_step=glimpses.on_step)
    assert sorted(glimpses.noisy) == sorted(glimpses.clean) == [1, 4, 6]
    for done in (1, 4, 6):
        wanted = forward.visible(sampling.noised(clean, e, levels[done]), levels[done])
        assert np.abs(glimpses.noisy[done].astype(int) - wanted).max() <= 1
        assert (glimpses.clean[done] == forward.visible(clean, sampling.CLEAN)).all()


def test_an_estimate_stands_beside_the_clip_that_it_was_made_of():
    levels = sampling.schedule("flow", 4)
    glimpses = reverse.Glimpses(levels, frozenset({1, 2, 3, 4}))
    looked_at = []

    def denoise(x, level):
        looked_at.append(forward.visible(x, level))
        return x / 2

    sampling.sample(denoise, noise(0, shape=(1, 3, 2, 8, 8)), levels, "ddim", on_step=glimpses.on_step)
    for done in (1, 2, 3):
        assert (glimpses.noisy[done] == looked_at[done]).all()


def test_the_levels_that_are_told_are_those_that_the_engine_goes_by(engine):
    told = []
    info = describe(engine)
    request = info.request("a red ball", seed=1, options={"steps": 4, "shift": 3.0, "sampler": "ddim"})
    levels = sampling.schedule("flow", 4, shift=3.0)
    loaded = warm.get(engine, "cpu", info.weights)
    assert [*reverse._watch(loaded, request, lambda p: None).levels] == [*levels]
    video = loaded.watch(
        request, lambda p: None, lambda index, count, x, clean: told.append((x.clone(), clean.clone()))
    )
    assert (video.frames == loaded.generate(request, lambda p: None).frames).all()
    start = (told[0][0] - levels[1].alpha * told[0][1]) / levels[1].sigma  # a move keeps the noise
    torch.testing.assert_close(start, noise(1, 0, shape=tuple(start.shape)), atol=1e-4, rtol=1e-4)
    for (x, _), (after, clean), now, to in zip(told, told[1:-1], levels[1:], levels[2:]):
        kept = [(one - level.alpha * clean) / level.sigma for one, level in ((x, now), (after, to))]
        torch.testing.assert_close(*kept, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 3, 12])
def test_noise_becomes_a_clip_in_a_sheet_and_a_film(engine, steps, tmp_path):
    told = []
    settings = {"engine": engine, "device": "cpu", "options": {"steps": steps}, "prompt": "a red ball"}
    sheet, clip = explain("reverse", tmp_path, on_progress=told.append, **settings)
    moments = min(steps, reverse.ROWS)
    film = Video.load(clip)
    assert len(film.frames) == 4 * moments
    assert film.provenance.to_dict()["ai_generated"] is True
    assert film.provenance.engine == f"explain:{engine}"
    with Image.open(sheet) as drawn:
        assert drawn.height > 128 * moments
    assert told[-1].step == steps


@pytest.mark.parametrize("what", ["reverse", "steps"])
def test_an_engine_that_is_no_diffusion_model_is_refused_and_leaves_no_folder(what, tmp_path):
    with pytest.raises(InvalidRequest, match="no diffusion model") as error:
        explain(what, tmp_path / "new", engine="render")
    assert "flow" in error.value.hint
    assert not (tmp_path / "new").exists()


def test_of_a_model_of_pictures_the_first_frame_is_seen_alone_and_then_all(picture_model, tmp_path):
    told, reference = [], f"zero:{picture_model('sd')}"
    info = describe(reference)
    request = info.request("a ball", seed=1, options={"steps": 6, "t": 500, "t_prime": 400}, frames=3)
    loaded = warm.get(reference, "cpu", info.weights)
    video = loaded.watch(request, lambda p: None, lambda index, count, x, clean: told.append((x, clean)))
    assert (video.frames == loaded.generate(request, lambda p: None).frames).all()
    assert len(told) == len(loaded.levels(request)) - 1 == 6
    counts = [x.shape[2] for x, _ in told]
    assert counts == sorted(counts)
    assert set(counts) == {1, 3}
    assert (forward.visible(told[-1][0], sampling.CLEAN) == video.frames).all()
    seen = reverse._watch(loaded, request, lambda p: None)
    assert all(seen.noisy[done].shape == seen.clean[done].shape for done in seen.noisy)
    warm.clear()


def test_noise_becomes_a_clip_in_the_model_of_the_package(tmp_path):
    sheet, clip = explain("reverse", tmp_path, device="cpu", options={"steps": 3})
    assert Video.load(clip).provenance.engine == "explain:zero"
    with Image.open(sheet) as drawn:
        assert drawn.height > 3 * 128


def test_an_edit_is_not_watched_from_noise(picture_model, tmp_path):
    source = Video(np.zeros((8, 64, 64, 3), np.uint8), 4).save(tmp_path / "clip.npz")
    settings = {
        "engine": f"zero:{picture_model('sd')}",
        "device": "cpu",
        "options": {"steps": 2, "source": str(source)},
    }
    with pytest.raises(InvalidRequest, match="does not begin as noise"):
        explain("reverse", tmp_path / "new", **settings)
    assert not (tmp_path / "new").exists()


# --- measured ---------------------------------------------------------------------------------------------------------


def test_steps_are_measured_with_intervals(engine, tmp_path):
    told = []
    settings = {"engine": engine, "device": "cpu", "values": [2.0, 1.0, 2.0], "count": 3, **CAPTIONS}
    figure, sheet, table, report = explain("steps", tmp_path, on_progress=told.append, **settings)
    rows = rows_of(table)
    assert [row["steps"] for row in rows if row["name"] == "seconds"] == ["1", "2"]
    assert {name for row in rows if (name := row["name"]) in PANELS} == PANELS
    assert all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in rows)
    said = json.loads(report.read_text())
    assert (said["option"], said["engine"], said["world"], said["count"]) == ("steps", engine, "circle", 3)
    assert said["weights"] == describe(engine).weights
    assert len(said["scores"]) == len(rows)
    assert [told[0].step, told[-1].step] == [1, told[-1].steps]
    assert [p.step for p in told] == sorted(p.step for p in told)
    for picture in (figure, sheet):
        with Image.open(picture) as drawn:
            drawn.verify()


def test_a_model_of_pictures_is_put_to_the_trial_of_motion(tmp_path):
    settings = {"device": "cpu", "values": [1.0, 2.0], "count": 2, "options": {"t": 0, "t_prime": 0}}
    _, sheet, table, report = explain("steps", tmp_path, **settings)
    rows = rows_of(table)
    assert {"obeys", "identity", "flicker", "seconds"} <= {row["name"] for row in rows}
    said = json.loads(report.read_text())
    assert (said["engine"], said["world"], said["count"]) == ("zero", "critters", 2)
    with Image.open(sheet) as drawn:
        drawn.verify()


def test_every_value_is_asked_the_same_from_the_same_noise(engine, tmp_path):
    settings = {"engine": engine, "device": "cpu", "values": [3.0], "count": 2, "options": {"steps": 2}, **CAPTIONS}
    one = rows_of(explain("guidance", tmp_path / "a", **settings)[2])
    both = rows_of(explain("guidance", tmp_path / "b", **settings | {"values": [0.0, 3.0]})[2])
    kept = [row for row in both if float(row["guidance"]) == 3.0]
    assert [r for r in one if r["name"] != "seconds"] == [r for r in kept if r["name"] != "seconds"]


def test_the_first_clip_of_a_value_is_not_timed_and_fewer_are_repeated(monkeypatch):
    exam = measured._exam("circle", 12, 0)
    assert (len(exam.questions), len(exam.repeats)) == (12, 12)
    times = iter([9.0, 9.0, *[0.5] * 23])
    make = lambda prompt, seed: (np.zeros((4, 16, 16, 3), np.uint8), next(times))  # noqa: E731
    monkeypatch.setattr(measured, "subject", lambda *_: Subject(name="slow start", make=make))
    point = measured._examined("slow start", exam, "a red ball", "cpu", 1, {}, lambda p: None)
    time = point.rows()[-1]
    assert (time.name, time.value, time.low, time.high, time.count) == ("seconds", 0.5, 0.5, 0.5, 23)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"values": [1.5]}, "steps"),
        ({"values": [0]}, "steps"),
        ({"values": [math.nan]}, "steps"),
        ({"values": []}, "no steps"),
        ({"values": [1], "count": 0}, "exam"),
        ({"values": [1], "prompt": "what a day"}, "nothing"),
        ({"values": [1], "options": {"magic": 1}}, "magic"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_a_clip_is_made(engine, settings, said, tmp_path, monkeypatch):
    monkeypatch.setattr(measured, "subject", lambda *_: pytest.fail("it was begun all the same"))
    with pytest.raises(InvalidRequest, match=said):
        explain("steps", tmp_path / "new", engine=engine, **CAPTIONS | settings)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ask": "riddles"}, "riddles"),
        ({"ask": "motion", "prompt": "a white cat"}, "prompts of its own"),
        ({"ask": "motion", "world": "circle"}, "circle"),
        ({"ask": "motion", "count": 0}, "without questions"),
    ],
)
def test_a_trial_that_cannot_be_is_refused_before_a_clip_is_made(settings, said, tmp_path, monkeypatch):
    monkeypatch.setattr(measured, "attempt", lambda *_, **__: pytest.fail("it was begun all the same"))
    with pytest.raises((InvalidRequest, UnknownName), match=said):
        explain("steps", tmp_path / "new", values=[1], **settings)
    assert not (tmp_path / "new").exists()


def test_giving_up_ends_it_and_leaves_nothing(engine, tmp_path):
    def give_up(progress):
        raise Cancelled

    with pytest.raises(Cancelled):
        explain(
            "steps", tmp_path / "new", engine=engine, device="cpu", values=[1], count=2, on_progress=give_up, **CAPTIONS
        )
    assert not (tmp_path / "new").exists()


# --- files and refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "settings", "kind"),
    [
        ("forwards", {}, UnknownName),
        ("forward", {"schedule": "cosin"}, UnknownName),
        ("forward", {"world": "circel"}, UnknownName),
        ("forward", {"engine": "flow"}, InvalidRequest),
        ("forward", {"prompt": "what a day"}, InvalidRequest),
        ("schedule", {"seed": 3}, InvalidRequest),
    ],
)
def test_what_is_unknown_is_refused_with_a_hint(what, settings, kind, tmp_path):
    with pytest.raises(kind) as error:
        explain(what, tmp_path / "new", **settings)
    assert error.value.hint
    assert not (tmp_path / "new").exists()


def test_what_is_there_is_replaced_only_when_told_and_strangers_are_left_alone(tmp_path):
    (tmp_path / "schedule.csv").write_text("mine")
    (tmp_path / "other").write_text("mine")
    with pytest.raises(OutputExists) as error:
        explain("schedule", tmp_path)
    assert "--force" in error.value.hint
    assert (tmp_path / "schedule.csv").read_text() == "mine"
    explain("schedule", tmp_path, overwrite=True)
    assert (tmp_path / "schedule.csv").read_text() != "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "schedule.csv", "schedule.png"]


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_is_a_clear_error(place, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match=r"schedule\.png"):
        explain("schedule", tmp_path / place)


def test_a_missing_matplotlib_is_told_with_the_way_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(CannotWrite, match="matplotlib") as error:
        explain("schedule", tmp_path / "new")
    assert "pip install matplotlib" in error.value.hint
    explain("forward", tmp_path / "without")
    assert not (tmp_path / "new").exists()


def test_a_figure_that_fails_leaves_no_file(tmp_path):
    with pytest.raises(ZeroDivisionError), figures.figure(tmp_path / "a.png", 2, 2):
        raise ZeroDivisionError
    assert not [*tmp_path.iterdir()]


def test_importing_it_imports_neither_torch_nor_matplotlib():
    code = "import sys, kinetograph.explaining; print({'torch', 'matplotlib'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


# --- the command ------------------------------------------------------------------------------------------------------


def command(*arguments, code=0):
    result = CliRunner().invoke(app, ["explain", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def test_the_command_prints_the_names_of_its_files(tmp_path):
    lines = command("forward", "--prompt", PROMPT, "--out", tmp_path).stdout.splitlines()
    assert lines == [str(tmp_path / name) for name in explaining.TOPICS["forward"].files]
    said = json.loads(command("forward", "--out", tmp_path, "--force", "--json").stdout)
    assert said == {"what": "forward", "folder": str(tmp_path), "files": lines, "warnings": []}
    assert all(map(os.path.isfile, lines))


def test_every_setting_reaches_the_function(monkeypatch, tmp_path):
    asked = {}

    def show(figure, sheet, table, report, **how):
        asked.update(how)

    signature = explaining.TOPICS["steps"].settings
    monkeypatch.setitem(explaining.TOPICS, "steps", explaining.Topic(explaining.TOPICS["steps"].files, show))
    monkeypatch.setattr(explaining.Topic, "settings", signature)
    given = {
        "prompt": "x",
        "engine": "flow:a",
        "ask": "captions",
        "world": "shapes",
        "values": "1,2.5",
        "count": 3,
        "seed": 4,
    }
    options = [part for name, value in given.items() for part in (f"--{name}", value)]
    command("steps", "--out", tmp_path, "--device", "cpu", "--set", "guidance=2", *options)
    del asked["on_progress"]
    assert asked == given | {"values": [1.0, 2.5], "device": "cpu", "options": {"guidance": 2}}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["forwrd"], "did you mean 'forward'?"),
        (["schedule", "--prompt", "x"], "has no setting 'prompt'"),
        (["steps", "--values", "1,two"], "write them as 1,2,4"),
        (["reverse", "--engine", "gan"], "no diffusion model"),
        (["forward", "--seed", "-1"], "nearest: 0"),
    ],
)
def test_a_wrong_command_leaves_exit_code_2(arguments, said, tmp_path):
    result = command(*arguments, "--out", tmp_path / "new", code=2)
    assert said in result.stderr
    assert not (tmp_path / "new").exists()
