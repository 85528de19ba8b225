"""Many prompts: each gets its clip, once, whatever interrupts the work."""

import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kinetograph import batch, executors
from kinetograph.cli.commands import app
from kinetograph.errors import (
    CannotRead,
    InvalidRequest,
    InvalidVideo,
    KinetographError,
    MissingExtra,
    OutputExists,
    UnknownName,
    Unreachable,
    UnsupportedFormat,
)
from kinetograph.video import Video

PROMPTS = ["a red circle moving left", "a blue ball at rest", "a green disc rising quickly"]


def run(folder, prompts=PROMPTS, **how):
    return batch.run("render", prompts, folder, **({"seed": 5, "format": "npz"} | how))


def lines(folder):
    return [json.loads(line) for line in (folder / batch.MANIFEST).read_text().splitlines()]


def stamps(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npz")}


def test_every_prompt_becomes_a_clip_under_its_own_seed(tmp_path):
    outcome = run(tmp_path / "new")
    assert (outcome.made, outcome.kept, outcome.failed, outcome.seed) == (3, 0, (), 5)
    clips = [Video.load(tmp_path / "new" / f"000{n}.npz") for n in range(3)]
    assert [clip.provenance.request.prompt for clip in clips] == PROMPTS
    assert [clip.provenance.request.seed for clip in clips] == [5, 6, 7]
    assert [line["file"] for line in lines(tmp_path / "new")] == ["0000.npz", "0001.npz", "0002.npz"]


def test_what_is_finished_is_not_made_again(tmp_path):
    run(tmp_path)
    before = stamps(tmp_path)
    outcome = run(tmp_path)
    assert (outcome.made, outcome.kept) == (0, 3)
    assert stamps(tmp_path) == before
    assert len(lines(tmp_path)) == 3


def test_a_batch_goes_on_after_it_was_killed(tmp_path):
    def stop(entry):
        if entry.index == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, on_entry=stop)
    (tmp_path / ".0123456789ab.part").write_bytes(b"half")  # what a kill in the middle of writing leaves
    (tmp_path / "0002.npz").write_bytes(b"written, but not yet in the manifest")
    with (tmp_path / batch.MANIFEST).open("a") as file:
        file.write('{"index": 2, "pro')
    before = stamps(tmp_path)
    outcome = run(tmp_path)
    assert (outcome.made, outcome.kept) == (1, 2)
    assert [name for name, stamp in stamps(tmp_path).items() if before[name] != stamp] == ["0002.npz"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0000.npz", "0001.npz", "0002.npz", "manifest.jsonl"]
    assert [line["index"] for line in lines(tmp_path)] == [0, 1, 2]


def test_prompts_may_be_added_at_the_end(tmp_path):
    run(tmp_path, PROMPTS[:2])
    assert run(tmp_path).made == 1


def test_a_clip_that_is_gone_is_made_again(tmp_path):
    run(tmp_path)
    (tmp_path / "0001.npz").unlink()
    outcome = run(tmp_path)
    assert (outcome.made, outcome.kept) == (1, 2)
    assert Video.load(tmp_path / "0001.npz").provenance.request.seed == 6


def test_a_prompt_that_cannot_be_made_is_recorded_and_the_rest_go_on(tmp_path):
    prompts = [PROMPTS[0], "a white circle on a white background", PROMPTS[2]]
    outcome = run(tmp_path, prompts)
    assert outcome.made == 2
    assert [entry.index for entry in outcome.failed] == [1]
    assert "no visible clip" in lines(tmp_path)[1]["error"]
    again = run(tmp_path, prompts)  # it may not fail the next time
    assert (again.made, again.kept, len(again.failed)) == (0, 2, 1)


def test_the_seed_of_a_folder_is_remembered(tmp_path):
    first = run(tmp_path, PROMPTS[:2], seed=None)
    second = run(tmp_path, seed=None)
    assert (second.seed, second.made) == (first.seed, 1)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"prompts": ["something else", *PROMPTS[1:]]}, "something else"),
        ({"prompts": PROMPTS[:2]}, "nothing"),
        ({"seed": 6}, "seed"),
        ({"settings": {"frames": 4}}, "settings"),
        ({"format": "gif"}, "gif"),
    ],
)
def test_a_folder_of_other_clips_is_left_alone(changed, said, tmp_path):
    run(tmp_path)
    before = stamps(tmp_path)
    with pytest.raises(OutputExists, match=said) as caught:
        run(tmp_path, **changed)
    assert caught.value.hint
    assert stamps(tmp_path) == before
    assert len(lines(tmp_path)) == 3


def test_a_clip_that_was_changed_is_noticed_and_kept(tmp_path):
    run(tmp_path)
    (tmp_path / "0001.npz").write_bytes(b"mine now")
    with pytest.raises(OutputExists, match="changed"):
        run(tmp_path)
    assert (tmp_path / "0001.npz").read_bytes() == b"mine now"


def test_files_of_somebody_else_are_not_replaced(tmp_path):
    (tmp_path / "0001.npz").write_bytes(b"mine")
    with pytest.raises(OutputExists, match=r"0001\.npz"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["0001.npz"]


def test_everything_is_made_anew_when_asked(tmp_path):
    run(tmp_path)
    assert run(tmp_path, seed=9, overwrite=True).made == 3
    assert [line["seed"] for line in lines(tmp_path)] == [9, 10, 11]


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"format": "avi"}, UnsupportedFormat),
        ({"settings": {"frames": 1}}, InvalidRequest),
        ({"settings": {"options": {"steps": 3}}}, InvalidRequest),
        ({"settings": {"width": 65, "height": 65}, "format": "mp4", "enlarge": 1}, UnsupportedFormat),
    ],
)
def test_settings_that_fit_no_prompt_are_refused_before_the_first(how, error, tmp_path):
    with pytest.raises(error):
        run(tmp_path, **how)
    assert not [*tmp_path.iterdir()]


def test_an_unknown_engine_is_refused(tmp_path):
    with pytest.raises(UnknownName):
        batch.run("rendr", PROMPTS, tmp_path, seed=1)


def test_a_file_of_prompts_is_one_a_line_without_the_blank_ones(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffa red ball\r\n\r\n  ein grüner Kreis \n".encode())
    assert batch.read_prompts(path) == ["a red ball", "ein grüner Kreis"]


def test_a_file_without_prompts_is_refused(tmp_path):
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidRequest):
        batch.read_prompts(tmp_path / "blank.txt")
    for unreadable in (tmp_path / "binary.txt", Path(tmp_path / "missing.txt"), tmp_path):
        with pytest.raises(CannotRead):
            batch.read_prompts(unreadable)


def test_a_crash_inside_a_letter_and_strange_line_ends_do_not_damage_the_manifest(tmp_path):
    prompts = ["a red ball rising, s'il vous plaît", "a blue dot\u2028moving left"]
    run(tmp_path, prompts)
    manifest = tmp_path / batch.MANIFEST
    manifest.write_bytes(manifest.read_bytes() + '{"prompt": "é'.encode()[:-1])
    assert run(tmp_path, prompts).kept == 2
    assert len(lines(tmp_path)) == 2


@pytest.mark.parametrize(("how", "said"), [({"provenance": False}, "provenance"), ({"enlarge": 2}, "enlarge")])
def test_what_else_decides_what_is_in_a_file_must_be_the_same(tmp_path, how, said):
    run(tmp_path)
    with pytest.raises(OutputExists, match=said):
        run(tmp_path, **how)


def test_what_is_made_anew_does_not_stand_beside_what_was_there(tmp_path):
    run(tmp_path)
    run(tmp_path, PROMPTS[:1], overwrite=True)
    assert set(stamps(tmp_path)) == {"0000.npz"}


def test_a_factor_of_nothing_is_refused_before_the_first(tmp_path):
    with pytest.raises(InvalidVideo, match="enlarge is 0"):
        run(tmp_path, enlarge=0)
    assert not stamps(tmp_path)


# --- lines with settings of their own, and others who make them -------------------------------------------------------


def jsonl(path, *lines):
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def test_a_line_of_json_may_have_its_own_settings_and_seed(tmp_path):
    path = jsonl(
        tmp_path / "asked.jsonl",
        {"prompt": PROMPTS[0]},
        {"prompt": PROMPTS[1], "seed": 77, "size": "32x48", "fps": "30000/1001", "frames": 4},
        "\n",
        {"prompt": PROMPTS[2], "width": 96, "height": 96},
    )
    run(tmp_path / "new", batch.read_lines(path), settings={"frames": 6})
    made = [Video.load(tmp_path / "new" / f"000{n}.npz") for n in range(3)]
    assert [clip.provenance.request.seed for clip in made] == [5, 77, 7]
    assert [clip.frames.shape[:3] for clip in made] == [(6, 64, 64), (4, 48, 32), (6, 96, 96)]
    assert str(made[1].fps) == "30000/1001"
    assert run(tmp_path / "new", batch.read_lines(path), settings={"frames": 6}, seed=None).kept == 3


def test_the_seed_of_a_folder_is_remembered_where_lines_have_their_own(tmp_path):
    lines = [batch.Line(prompt=PROMPTS[0], seed=9), batch.Line(prompt=PROMPTS[1])]
    first = run(tmp_path, lines, seed=None)
    again = run(tmp_path, [*lines, batch.Line(prompt=PROMPTS[2])], seed=None)
    assert (again.seed, again.kept, again.made) == (first.seed, 2, 1)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{\n", "line 2 is no JSON"),
        ({"seed": 3}, "line 2 has no prompt"),
        ({"prompt": "a", "promt": "b"}, "line 2 has 'promt'"),
        ({"prompt": "a", "size": "big"}, "line 2: size is 'big'"),
        ({"prompt": "a", "fps": 2.5}, "line 2: fps is 2.5"),
        ({"prompt": "a", "seed": "x"}, "line 2 has a seed"),
        ([1], "line 2 has no prompt"),
    ],
)
def test_a_line_that_cannot_be_understood_is_named(line, said, tmp_path):
    path = jsonl(tmp_path / "asked.jsonl", {"prompt": "a red ball"}, line)
    with pytest.raises(InvalidRequest, match=said):
        batch.read_lines(path)


def reversing(orders):
    """An executor whose order of work is its own."""
    return (executors.make(order) for order in reversed([*orders]))


def test_whoever_makes_them_the_folder_is_the_same(tmp_path):
    prompts = [PROMPTS[0], "a white circle on a white background", *PROMPTS[1:], "\x07 unprintable"]
    here, there = (run(tmp_path / name, prompts, executor=who) for name, who in (("a", None), ("b", reversing)))
    assert (here.made, len(here.failed)) == (there.made, len(there.failed)) == (3, 2)
    timeless = lambda line: {key: value for key, value in line.items() if key not in ("seconds", "sha256")}  # noqa: E731
    assert [*map(timeless, lines(tmp_path / "a"))] == sorted(
        map(timeless, lines(tmp_path / "b")), key=lambda line: line["index"]
    )
    prints = [
        [Video.load(tmp_path / name / f"000{n}.npz").provenance.frames_sha256 for n in (0, 2, 3)] for name in "ab"
    ]
    assert prints[0] == prints[1]
    assert run(tmp_path / "b", prompts).kept == 3


def test_what_an_executor_had_not_brought_is_made_the_next_time(tmp_path):
    def dying(orders):
        yield executors.make(next(orders))
        raise KinetographError("a process died")

    with pytest.raises(KinetographError, match="died"):
        run(tmp_path, executor=dying)
    assert len(stamps(tmp_path)) == len(lines(tmp_path)) == 1
    (tmp_path / ".0002.npz.part").write_bytes(b"half")
    outcome = run(tmp_path, executor=reversing)
    assert (outcome.made, outcome.kept) == (2, 1)
    assert not [*tmp_path.glob("*.part")]


def test_what_an_engine_warns_of_is_heard_from_elsewhere(tmp_path):
    with pytest.warns(UserWarning, match="unicorn"):
        batch.run("gan", ["a red unicorn ball"], tmp_path, seed=1, format="npz", device="cpu", executor=reversing)


@pytest.mark.slow
def test_several_processes_make_a_batch(tmp_path):
    assert run(tmp_path, executor=executors.processes(2)).made == 3
    assert run(tmp_path, executor=executors.processes(2)).kept == 3
    with pytest.raises(InvalidRequest):
        executors.processes(0)


@pytest.mark.slow
def test_a_process_that_is_killed_is_named_and_the_rest_can_go_on(tmp_path):
    prompts = PROMPTS * 8

    def kill(entry):
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(KinetographError, match="died"):
        run(tmp_path, prompts, executor=executors.processes(1), on_entry=kill)
    kept = len(stamps(tmp_path))
    assert 1 <= kept < len(prompts)
    outcome = run(tmp_path, prompts)
    assert (outcome.made, outcome.kept) == (len(prompts) - kept, kept)


@pytest.mark.slow
def test_a_ray_cluster_makes_a_batch_and_goes_on_with_it(tmp_path):
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    prompts = [PROMPTS[0], "a white circle on a white background", *PROMPTS[1:]]
    outcome = run(tmp_path, prompts, executor=executors.cluster("local", "cpu"))
    assert (outcome.made, [entry.index for entry in outcome.failed]) == (3, [1])
    again = run(tmp_path, [*prompts, "a gold ball at rest"], executor=executors.cluster("local", "cpu"))
    assert (again.made, again.kept) == (1, 3)
    assert Video.load(tmp_path / "0004.npz").provenance.request.prompt == "a gold ball at rest"


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_named(monkeypatch):
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(Unreachable, match="no Ray cluster at auto"):
        next(executors.cluster("auto")(iter(())))


def test_without_ray_the_hint_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra) as caught:
        executors.cluster("auto")
    assert "kinetograph[ray]" in caught.value.hint


def test_the_command_makes_the_lines_of_a_file_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jsonl(tmp_path / "asked.jsonl", {"prompt": PROMPTS[0], "seed": 3}, {"prompt": "a white circle on white"})
    command = ["batch", "asked.jsonl", "--out-dir", "clips", "--engine", "render", "--format", "gif", "--frames", "4"]
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 1
    assert "1 made, 0 there already, 1 failed" in first.stdout
    said = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert (said["made"], said["kept"], [one["index"] for one in said["failed"]]) == (0, 1, [1])
    assert Video.load(tmp_path / "clips" / "0000.gif").provenance.request.seed == 3
    assert CliRunner().invoke(app, [*command, "--workers", "2", "--ray", "auto"]).exit_code == 2
