"""The command line: what it prints, what it leaves behind, and with which exit code."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
import types
import warnings
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import save_file
from typer.main import get_command
from typer.testing import CliRunner

import kinetograph
from kinetograph import engine, evaluation, media, weights
from kinetograph.cli import output
from kinetograph.cli.commands import app
from kinetograph.cli.generate import _name
from kinetograph.errors import Interrupted
from kinetograph.neural.training.recipes import get as recipe
from kinetograph.video import Video

ROOT = Path(kinetograph.__file__).parent.parent
PROMPT = "a red circle moving up-right"


def kinetograph_(*arguments, code=0):
    """Run a command in this process; it must leave this exit code."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def render(*arguments, code=0):
    """Generate with the engine that needs no network."""
    return kinetograph_("generate", "--engine", "render", *arguments, code=code)


def shell(*arguments, **options):
    """The command as a process of its own."""
    command = [sys.executable, "-m", "kinetograph", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(command, text=True, env=environment, **streams)


def hearing_ctrl_c():
    """What a shell runs in the background is started deaf to it, and so would be whatever this starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- generate -----------------------------------------------------------------------------------------------


def test_a_sentence_becomes_a_file_named_after_it(here):
    result = render(PROMPT, "--seed", 7)
    assert result.stdout.splitlines()[0] == "a-red-circle-moving-up-right-7.mp4"
    assert re.search(r"seed 7, 10 frames of 64x64 at 10 fps, made by render in [\d.]+ s", result.stdout)
    assert Video.load(here / "a-red-circle-moving-up-right-7.mp4").provenance.request.prompt == PROMPT


def test_a_seed_that_nobody_gave_is_drawn_and_printed(here):
    seed = re.search(r"seed (\d+)", render(PROMPT).stdout)[1]
    assert Path(f"a-red-circle-moving-up-right-{seed}.mp4").is_file()


@pytest.mark.parametrize(
    ("prompt", "name"),
    [("../../etc: a red ball!", "etc-a-red-ball-1.mp4"), ("ein KÖNIG, red", "ein-könig-red-1.mp4")],
)
def test_a_file_name_is_made_of_words_only(prompt, name):
    assert render(prompt, "--seed", 1).stdout.splitlines()[0] == name


@pytest.mark.parametrize(("prompt", "length"), [("!!!", 10), ("é" * 2000, 54)])
def test_any_prompt_makes_a_file_name(prompt, length):
    name = _name(engine.describe("render").request(prompt, seed=1))
    assert len(name) == length


def test_every_setting_reaches_the_video(here):
    render(PROMPT, "--out", "a.npz", "--frames", 4, "--fps", "30000/1001", "--size", "96x48")
    video = Video.load(here / "a.npz")
    assert (video.frames.shape, str(video.fps)) == ((4, 48, 96, 3), "30000/1001")


def test_the_json_of_a_video_keeps_its_shape():
    said = json.loads(render(PROMPT, "--out", "a.npz", "--seed", 3, "--json").stdout)
    names = "path engine prompt seed width height frames fps options seconds device weights frames_sha256 ai_generated"
    assert list(said) == [*names.split(), "warnings"]
    assert (said["path"], said["seed"], said["fps"], said["warnings"]) == ("a.npz", 3, "10", [])


def test_the_default_engine_is_the_library_s():
    assert output.DEFAULT_ENGINE == engine.DEFAULT_ENGINE


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([""], "prompt is empty"),
        (["x" * 10_000], "at most 2000 characters"),
        ([PROMPT, "--engine", "rendr"], "did you mean 'render'?"),
        ([PROMPT, "--size", "129x129", "--out", "a.mp4"], "nearest: 128x128"),
        ([PROMPT, "--size", "65x65", "--no-enlarge"], "even sizes"),
        ([PROMPT, "--size", "9000x9000"], "nearest: 8192"),
        ([PROMPT, "--size", "4000x4000"], "nearest: 1024x1024"),
        ([PROMPT, "--size", "big"], "write it as 64x48"),
        ([PROMPT, "--fps", "fast"], "write it as 10, 29.97"),
        ([PROMPT, "--fps", "0"], "nearest: 1/1000"),
        ([PROMPT, "--frames", "100000"], "nearest: 1000"),
        ([PROMPT, "--seed", "-1"], "nearest: 0"),
        ([PROMPT, "--set", "steps=3"], "no option 'steps'"),
        ([PROMPT, "--set", "steps"], "key=value"),
        ([PROMPT, "--out", "a.avi"], "no format is called '.avi'"),
        ([PROMPT, "--prompts", "a.txt"], "either a PROMPT"),
        ([PROMPT, "--format", "gif"], "either a PROMPT"),
        ([], "either a PROMPT"),
    ],
)
def test_a_request_that_is_wrong_is_refused_with_a_hint(arguments, said, here):
    result = render(*arguments, code=2)
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert not [*here.iterdir()]


def test_an_error_is_json_on_stdout_when_json_was_asked_for():
    said = json.loads(kinetograph_("generate", PROMPT, "--engine", "rendr", "--json", code=2).stdout)["error"]
    assert list(said) == ["type", "message", "hint", "exit_code"]
    assert (said["type"], said["exit_code"]) == ("UnknownName", 2)


def test_a_folder_that_is_missing_is_a_failure_before_anything_is_made(monkeypatch):
    monkeypatch.setattr(engine, "generate", lambda *_, **__: pytest.fail("it was made all the same"))
    assert "mkdir -p" in render(PROMPT, "--out", "missing/a.mp4", code=1).stderr


def test_a_picture_is_set_in_motion_and_a_clip_goes_on_from_where_it_ended(here):
    kinetograph_("generate", "an orange cat in the snow", "--frames", 1, "--seed", 3, "--out", "cat.npz")
    kinetograph_(
        "generate", "an orange cat runs to the right", "--from-image", "cat.npz", "--seed", 1, "--out", "a.npz"
    )
    told = json.loads(kinetograph_("extend", "a.npz", "--frames", 5, "--seed", 2, "--out", "b.npz", "--json").stdout)
    still, first, longer = (Video.load(name) for name in ("cat.npz", "a.npz", "b.npz"))
    assert (first.frames[0] == still.frames[0]).all()
    assert (longer.frames[:16] == first.frames).all()
    assert told["frames"] == len(longer.frames) == 21
    assert longer.provenance.request.prompt == "an orange cat runs to the right"  # what nobody says stays as it was
    result = kinetograph_("generate", "a cat", "--from-image", "a.npz", "--out", "c.npz", code=2)
    assert "a.npz has 16 frames, a picture has one" in result.stderr
    assert "kinetograph extend" in result.stderr
    assert not (here / "c.npz").exists()


def test_an_existing_file_is_replaced_only_by_force(here):
    (here / "a.npz").write_text("mine")
    assert "--force" in render(PROMPT, "--out", "a.npz", code=2).stderr
    assert (here / "a.npz").read_text() == "mine"
    render(PROMPT, "--out", "a.npz", "--force")
    assert Video.load(here / "a.npz").width == 64


def test_pixels_are_enlarged_in_lossy_files_unless_told_not_to(here):
    for flags, size in (((), 256), (("--no-enlarge",), 64)):
        render(PROMPT, "--out", "a.mp4", "--force", *flags)
        stored = media.read(here / "a.mp4")
        assert stored.frames.shape[1:3] == (size, size)
        assert Video.load(here / "a.mp4").provenance.enlarged == size // 64


def test_what_is_to_be_made_must_be_clear_and_json_says_so_too(here):
    said = json.loads(kinetograph_("generate", "--json", code=2).stdout)
    assert said["error"]["type"] == "InvalidRequest"
    assert "--prompts" in said["error"]["hint"]


def test_a_file_that_is_not_there_names_its_neighbour(here):
    render(PROMPT, "--out", "apple.npz")
    assert "apple.npz" in kinetograph_("info", "aple.npz", code=1).stderr


def test_a_file_can_be_told_to_keep_quiet(here):
    render("a secret red circle", "--out", "a.mp4", "--no-provenance")
    assert b"secret" not in (here / "a.mp4").read_bytes()
    assert "it does not say how it was made" in kinetograph_("info", "a.mp4").stdout
    assert "does not say how it was made" in kinetograph_("reproduce", "a.mp4", code=1).stderr


def test_a_secret_prompt_is_not_in_a_name_that_is_not_given_either(here):
    render("a secret red circle", "--no-provenance", "--seed", "987654")
    (path,) = here.glob("*.mp4")
    assert "secret" not in path.name
    assert "987654" not in path.name


def test_what_the_engine_warns_of_is_shown(monkeypatch):
    generate = engine.generate

    def warning(*arguments, **how):
        warnings.warn("the model does not know 'zebra'", stacklevel=2)
        warnings.warn("for developers", DeprecationWarning, stacklevel=2)
        return generate(*arguments, **how)

    monkeypatch.setattr(engine, "generate", warning)
    assert render(PROMPT, "--out", "a.npz").stderr == "warning: the model does not know 'zebra'\n"
    result = render(PROMPT, "--out", "b.npz", "--json")
    assert json.loads(result.stdout)["warnings"] == ["the model does not know 'zebra'"]
    assert result.stderr == ""


# --- many prompts -------------------------------------------------------------------------------------------


def prompts(here, *lines):
    (here / "prompts.txt").write_text("\n".join(lines) + "\n")
    return ("--prompts", "prompts.txt", "--out-dir", "clips", "--format", "npz")


def test_a_file_of_prompts_becomes_a_folder(here):
    arguments = prompts(here, PROMPT, "", "a blue ball")
    said = json.loads(render(*arguments, "--seed", 4, "--json").stdout)
    assert (said["made"], said["kept"], said["failed"], said["seed"]) == (2, 0, [], 4)
    assert sorted(path.name for path in (here / "clips").iterdir()) == ["0000.npz", "0001.npz", "manifest.jsonl"]
    assert "0 made, 2 there already" in render(*arguments).stdout
    assert "2 made, 0 there already" in render(*arguments, "--force").stdout


def test_a_line_that_fails_leaves_exit_code_1_and_the_others(here):
    result = render(*prompts(here, PROMPT, "a white circle on a white background"), code=1)
    assert "error: prompt 1: " in result.stderr
    assert "1 made, 0 there already, 1 failed" in result.stdout


def test_other_prompts_for_the_same_folder_are_refused(here):
    render(*prompts(here, PROMPT))
    assert "restore the prompts" in render(*prompts(here, "a blue ball"), code=2).stderr


def test_an_exam_that_cannot_begin_leaves_no_folder(here):
    assert "gam" in kinetograph_("evaluate", "--engine", "gam", "--count", 300, code=2).stderr
    assert not (here / "reports").exists()


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_stops_a_batch_cleanly_and_the_next_call_finishes_it(here, presses):
    arguments = ["generate", "--engine", "render", *prompts(here, *[PROMPT] * 40), "--size", "512x512", "--seed", "1"]
    process = shell(*arguments, cwd=here, preexec_fn=hearing_ctrl_c)
    while not (here / "clips" / "0002.npz").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    for _ in range(presses):
        process.send_signal(signal.SIGINT)
        time.sleep(0.002)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    done = {path.name: path.stat().st_mtime_ns for path in (here / "clips").glob("*.npz")}
    assert 2 < len(done) < 40
    assert not [*(here / "clips").glob(".*")]
    (here / "prompts.txt").write_text(f"{PROMPT}\n" * (len(done) + 1))
    assert render(*arguments[3:]).stdout.endswith("there already, 0 failed\n")
    assert not {name for name, stamp in done.items() if (here / "clips" / name).stat().st_mtime_ns != stamp} - {
        max(done)
    }


@pytest.mark.parametrize(
    "command",
    [
        ("generate", PROMPT, "--engine", "render", "--out", "a.npz"),
        ("dataset", "circle", "--count", "20", "--out", "circles"),
        ("train", "gan-tiny", "--device", "cpu", "--steps", "2", "--out", "run"),
    ],
    ids=lambda command: command[0],
)
def test_on_a_terminal_a_bar_shows_how_far_it_is(here, command):
    ours, theirs = pty.openpty()
    process = shell(*command, cwd=here, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # how a terminal says that nobody is left at its other end
            break
        shown += part
    os.close(ours)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert "\u2501" in shown.decode()  # what the bar is made of


# --- weights that are no good -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "run"
    recipe("gan-tiny").train(folder, device="cpu", steps=2)
    return folder


def cut(model):
    model.write_bytes(model.read_bytes()[:-100])


def alter(model):
    data = bytearray(model.read_bytes())
    data[-8] ^= 1
    model.write_bytes(data)


def spoil(model):
    """NaN among the weights, and a sum that fits them."""
    with safe_open(model, "pt") as file:
        header, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    next(iter(tensors.values())).view(-1)[0] = float("nan")
    save_file(tensors, model, header)
    weights.seal(model.parent)


def remove(model):
    model.unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [(cut, "altered or cut short"), (alter, "altered"), (spoil, "finite"), (remove, "no checkpoint")],
)
def test_damaged_weights_are_a_named_error_with_a_hint_and_nothing_is_written(here, small_run, damage, said):
    shutil.copytree(small_run, here / "run")
    damage(here / "run" / weights.MODEL)
    failed = kinetograph_("generate", "a red ball", "--engine", "gan:run", "--out", "a.npz", code=1)
    assert said in failed.stderr
    assert "hint: " in failed.stderr
    assert not [*here.glob("*.npz"), *here.glob(".*")]


# --- looking ------------------------------------------------------------------------------------------------


def test_engines_are_listed():
    assert re.search(r"^render +draws what", kinetograph_("engines").stdout, re.MULTILINE)
    found = {row["name"]: row for row in json.loads(kinetograph_("engines", "--json").stdout)["engines"]}
    assert found["render"]["trained"] is False
    assert {"gan", "render"} <= set(found)


def test_worlds_are_listed_with_their_words():
    assert "zigzagging vertically" in kinetograph_("worlds").stdout
    world = json.loads(kinetograph_("worlds", "--json").stdout)["worlds"][0]
    assert list(world) == ["name", "summary", "frames", "fps", "width", "height", "attributes"]


def test_an_engine_describes_itself():
    assert re.search(r"^max_frames +1000$", kinetograph_("describe", "render").stdout, re.MULTILINE)
    said = json.loads(kinetograph_("describe", "render:circle", "--json").stdout)
    assert (said["reference"], said["fps"]) == ("render:circle", "10")
    assert [option["name"] for option in said["options"]] == ["shown"]
    assert "did you mean 'circle'?" in kinetograph_("describe", "render:circel", code=2).stderr


def test_the_options_of_an_engine_are_described(monkeypatch):
    class Options(engine.Options):
        """One option."""

        steps: int = 8

    info = engine.describe("render")
    monkeypatch.setattr(engine, "describe", lambda reference: engine.EngineInfo(**{**vars(info), "Options": Options}))
    assert re.search(r"--set steps= +integer, default 8", kinetograph_("describe", "render").stdout)


def test_a_file_says_how_it_was_made_and_comes_out_the_same_again():
    render(PROMPT, "--out", "a.mp4", "--seed", 9)
    assert re.search(rf"^prompt +{PROMPT}$", kinetograph_("info", "a.mp4").stdout, re.MULTILINE)
    said = json.loads(kinetograph_("info", "a.mp4", "--json").stdout)
    assert (said["frames"], said["duration"], said["provenance"]["request"]["seed"]) == (10, 1.0, 9)
    assert "the same, frame by frame" in kinetograph_("reproduce", "a.mp4").stdout
    again = json.loads(kinetograph_("reproduce", "a.mp4", "--json").stdout)
    assert list(again) == ["path", "same", "differences", "distance", "warnings"]
    assert again["same"] is True


def test_a_file_that_comes_out_different_leaves_exit_code_1(monkeypatch):
    render(PROMPT, "--out", "a.npz", "--seed", 9)
    outcome = engine.reproduce("a.npz")
    other = engine.Reproduction(False, ("frames: 3 of 10 differ",), float("inf"), outcome.video)
    monkeypatch.setattr(engine, "reproduce", lambda *_, **__: other)
    assert "frames: 3 of 10 differ" in kinetograph_("reproduce", "a.npz", code=1).stdout
    assert json.loads(kinetograph_("reproduce", "a.npz", "--json", code=1).stdout)["distance"] is None


@pytest.mark.parametrize("command", ["info", "reproduce"])
def test_a_file_that_is_missing_or_damaged_is_a_failure(command, here):
    (here / "noise.mp4").write_bytes(b"noise")
    assert "no such file" in kinetograph_(command, "missing.mp4", code=1).stderr
    assert "cannot read" in kinetograph_(command, "noise.mp4", code=1).stderr


# --- data sets, training, evaluation ------------------------------------------------------------------------


def test_a_data_set_is_written_and_continued(here):
    arguments = ("dataset", "circle", "--count", 5, "--out", "circles", "--shard", 2, "--split", "heldout")
    assert "5 clips in 3 shards" in kinetograph_(*arguments).stdout
    said = json.loads(kinetograph_(*arguments, "--json").stdout)
    assert list(said) == ["folder", "world", "clips", "splits", "bytes", "shards"]
    assert said["splits"] == {"train": 0, "heldout": 5}
    assert "count 5 there" in kinetograph_("dataset", "circle", "--count", 6, "--out", "circles", code=1).stderr


def fake(name, monkeypatch, **content):
    module = types.ModuleType(name)
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)
    package, _, attribute = name.rpartition(".")
    monkeypatch.setattr(sys.modules[package], attribute, module, raising=False)


class Recipe:
    """A recipe that takes two steps and remembers how it was asked."""

    asked = settings = None

    def __init__(self, settings):
        Recipe.settings = settings

    def train(self, folder, *, device, resume, steps, on_step):
        Recipe.asked = (folder, device, resume, steps)
        for step in (1, 2):
            on_step(types.SimpleNamespace(step=step, steps=2, figures={"loss": 0.5 / step}))


@pytest.fixture
def recipes(monkeypatch):
    import kinetograph.neural.training  # noqa: F401

    content = {"names": lambda: ["tiny"], "describe": lambda name: "Tiny.\n\nkinetograph train tiny"}
    fake("kinetograph.neural.training.recipes", monkeypatch, get=lambda name, settings: Recipe(settings), **content)


def test_recipes_are_listed(recipes):
    assert kinetograph_("recipes").stdout == "tiny\n  Tiny.\n\n  kinetograph train tiny\n"
    assert json.loads(kinetograph_("recipes", "--json").stdout)["recipes"][0]["name"] == "tiny"


def test_training_runs_a_recipe_in_a_folder(recipes):
    assert kinetograph_("train", "tiny").stdout == "runs/tiny\nloss 0.25  step 2\n"
    assert Recipe.asked == (Path("runs/tiny"), "auto", False, None)
    said = json.loads(
        kinetograph_("train", "tiny", "--out", "r", "--resume", "--steps", 9, "--device", "cpu", "--json").stdout
    )
    assert said == {"recipe": "tiny", "folder": "r", "figures": {"loss": 0.25, "step": 2}}
    assert Recipe.asked == (Path("r"), "cpu", True, 9)


def test_settings_of_a_recipe_are_given_like_those_of_an_engine(recipes):
    kinetograph_("train", "tiny", "--set", "prompt=a photo of sks dog", "--set", "batch=2")
    assert Recipe.settings == {"prompt": "a photo of sks dog", "batch": 2}


def test_only_the_first_of_many_processes_speaks(recipes, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert kinetograph_("train", "tiny").output == ""


def test_a_training_run_that_was_stopped_leaves_130(recipes, monkeypatch):
    def stopped(self, folder, **how):
        raise Interrupted("stopped at step 3", hint="--resume goes on")

    monkeypatch.setattr(Recipe, "train", stopped)
    assert kinetograph_("train", "tiny", code=130).stderr == "error: stopped at step 3\nhint: --resume goes on\n"


class Report:
    """A report with one score."""

    def rows(self):
        """One row."""
        return (evaluation.Row("obeys", 0.9123, 0.9, 0.92, "fraction", "higher", 20),)

    def to_dict(self):
        """As JSON would have it."""
        return {"engine": "render"}


def test_an_evaluation_is_a_table(here, monkeypatch):
    asked = {}

    def evaluate(*arguments, **how):
        asked.update(how, arguments=arguments)
        return Report()

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    (here / "prompts.txt").write_text("a red ball\n")
    out = kinetograph_(
        "evaluate", "--engine", "render", "--count", 20, "--metrics", "obeys, motion", "--prompts", "prompts.txt"
    ).stdout
    assert re.search(r"^obeys +0\.9123 +0\.9 \.\.\. 0\.92 +higher +20 +fraction$", out, re.MULTILINE)
    assert asked["arguments"] == ("render", "circle", "heldout", 20)
    assert (asked["metrics"], asked["prompts"]) == (["obeys", "motion"], ["a red ball"])
    assert asked["out"] == Path("reports/render-circle-prompts")
    assert asked["settings"] == {}
    kinetograph_("evaluate", "--size", "96x64", "--frames", 12)
    assert asked["settings"] == {"width": 96, "height": 64, "frames": 12}
    said = json.loads(kinetograph_("evaluate", "--json").stdout)
    assert said == {"engine": "render", "out": str(Path("reports/flow-circle-heldout")), "warnings": []}


def test_a_report_that_is_not_told_where_to_go_goes_where_none_is(here, monkeypatch):
    folders = []

    def evaluate(*arguments, **how):
        how["out"].mkdir(parents=True)
        (how["out"] / "report.json").write_text("{}")
        folders.append(how["out"])
        return Report()

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    for _ in range(3):
        kinetograph_("evaluate", "--engine", "gan:runs/my gan")
    names = [folder.as_posix() for folder in folders]
    assert names == [f"reports/gan_runs_my_gan-circle-heldout{end}" for end in ("", "-2", "-3")]


# --- the process --------------------------------------------------------------------------------------------


def test_exit_codes_reach_the_shell(here):
    assert shell("--version").communicate()[0] == f"kinetograph {kinetograph.__version__}\n"
    wrong = shell("generate", "", "--engine", "render", cwd=here)
    assert wrong.communicate()[1].startswith("error: prompt is empty\nhint: ")
    assert wrong.returncode == 2
    unknown = shell("generate", PROMPT, "--colour", "red")
    assert "--colour" in unknown.communicate()[1]
    assert unknown.returncode == 2


def test_output_into_a_closed_pipe_is_no_crash():
    process = shell("worlds", "--json")
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() in (0, 1)


def test_nothing_but_text_is_written_where_nobody_watches(here):
    out, errors = shell("generate", PROMPT, "--engine", "render", "--out", "a.npz", cwd=here).communicate()
    assert out.startswith("a.npz\n")
    assert errors == ""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["generate", "--help"], ["engines"], ["--version"], ["info", "a.npz"]]
)
def test_looking_imports_no_torch(arguments, here):
    render(PROMPT, "--out", "a.npz")
    light = arguments[-1].startswith("--")
    code = (
        "import sys\nfrom kinetograph.cli import main\ntry:\n    main()\nfinally:\n"
        "    print(sorted({'torch', 'numpy', 'av', 'rich'} & set(sys.modules)), file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=here, env=environment)
    assert "torch" not in result.stderr
    assert "rich" not in result.stderr
    assert not light or result.stderr == "[]\n"


# --- the page -----------------------------------------------------------------------------------------------


def named():
    """Every command, and every option of each."""
    for name, command in get_command(app).commands.items():
        yield name
        yield from (option for parameter in command.params for option in parameter.opts if option.startswith("--"))


@pytest.mark.parametrize("name", sorted({*named()}))
def test_the_page_about_the_command_line_names_everything(name):
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", page)


@pytest.mark.parametrize("name", sorted(get_command(app).commands))
def test_every_command_has_an_example_on_the_page(name):
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert re.search(rf"^kinetograph {name}\b", page, re.MULTILINE)


# --- controls and edits -----------------------------------------------------------------------------------------------


def test_a_control_clip_is_made_from_a_video():
    render(PROMPT, "--out", "a.npz")
    said = json.loads(kinetograph_("control", "edge", "a.npz", "--out", "e.npz", "--low", 50, "--json").stdout)
    clip, edges = Video.load("a.npz"), Video.load("e.npz")
    assert (said["frames"], said["fps"]) == (len(clip.frames), str(clip.fps))
    assert set(edges.frames.flat) == {0, 255}
    assert kinetograph_("control", "depth", "a.npz", "--out", "d.npz", "--smooth", 2).stdout.startswith(
        "d.npz\ndepth: 10"
    )
    assert "is already there" in kinetograph_("control", "edge", "a.npz", "--out", "e.npz", code=2).stderr


def test_an_estimator_is_the_users_own_code(monkeypatch, tmp_path):
    render(PROMPT, "--out", "a.npz")
    (tmp_path / "inverter.py").write_text("def pose(frames): return 255 - frames\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    kinetograph_("control", "pose", "a.npz", "--out", "p.npz", "--estimator", "inverter:pose")
    assert (Video.load("p.npz").frames == 255 - Video.load("a.npz").frames).all()
    assert (
        "nobody" in kinetograph_("control", "pose", "a.npz", "--out", "q.npz", "--estimator", "nobody:f", code=2).stderr
    )
    assert not Path("q.npz").exists()


def test_engines_that_cannot_say_who_can():
    render(PROMPT, "--out", "a.npz")
    for command in (("edit", "a.npz", "make it blue"), ("generate", PROMPT, "--control", "edge=a.npz")):
        refused = kinetograph_(*command, "--engine", "render", code=2).stderr
        assert "--engine zero" in refused


def test_a_control_that_is_none_is_refused():
    assert "edge=clip.mp4" in kinetograph_("generate", PROMPT, "--control", "clip.mp4", code=2).stderr
    assert "did you mean 'edge'" in kinetograph_("generate", PROMPT, "--control", "edges=a.mp4", code=2).stderr
    assert "no such file" in kinetograph_("edit", "a.mp4", "make it blue", code=1).stderr
    assert "squash" in kinetograph_("edit", "a.mp4", "make it blue", "--fit", "squash", code=2).stderr


def test_an_edit_is_asked_for_by_the_clip_and_its_sum(monkeypatch):
    render(PROMPT, "--out", "a.npz")
    asked = []

    def noting(reference, prompt, out, settings, *rest):
        asked.append(settings)

    monkeypatch.setattr("kinetograph.cli.generate._one", noting)
    line = f"edge={Path('a.npz').resolve()},weights=canny"
    kinetograph_("edit", "a.npz", "make it blue", "--strength", 0.5, "--control", line, "--set", "steps=4")
    clip = Video.load("a.npz")
    assert (asked[0]["width"], asked[0]["frames"], asked[0]["fps"]) == (clip.width, len(clip.frames), clip.fps)
    options = asked[0]["options"]
    assert options["source_sha256"] == clip.provenance.frames_sha256
    assert (options["strength"], options["steps"]) == (0.5, 4)
    assert options["control"] == [f"{line},sha256={clip.provenance.frames_sha256}"]
