"""The documentation runs: its python and sh blocks, its links, its commands."""

import html
import importlib.util
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from kinetograph import describe, reproduce
from kinetograph.cli.commands import app
from kinetograph.engine import DEFAULT_ENGINE
from kinetograph.video import Video

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "kinetograph" / "weights").glob("*/*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


def blocks(page):
    return [(language, code) for language, code in BLOCK.findall(page.read_text()) if language in ("python", "sh")]


README = ROOT / "README.md"
RUNNABLE = [page for page in PAGES if blocks(page)]


def name(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", RUNNABLE, ids=name)
def test_the_blocks_of_a_page_run_in_their_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for language, code in blocks(page):
        if page == README and language == "sh":
            continue  # CI runs these, each in an environment of its own
        if language == "python":
            exec(compile(code, str(page), "exec"), names)
        else:
            for line in filter(None, code.splitlines()):
                program, *arguments = shlex.split(line, comments=True)
                assert program == "kinetograph", f"{page.name}: mark it console, or let it be a kinetograph command"
                result = CliRunner().invoke(app, arguments)
                assert result.exit_code == 0, f"{line}\n{result.output}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_point_to_files_that_exist(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)#]+)\)", text) + re.findall(r'src="([^"]+)"', text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} -> {target}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_that_are_only_shown_are_commands_too(page):
    """A console block may take hours or a GPU; its commands and options must exist all the same."""
    shown = "".join(code for language, code in BLOCK.findall(page.read_text()) if language == "console")
    for line in shown.splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if words[:1] == ["kinetograph"]:
            command = get_command(app).commands[words[1]]
            known = {option for parameter in command.params for option in parameter.opts}
            assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known | {"--help"}, line


def test_the_readme_begins_with_the_two_commands_that_ci_runs():
    first, second = [code for language, code in blocks(README) if language == "sh"][:2]
    assert "kinetograph generate" in first
    assert "pytest" in second
    assert "README.md" in (ROOT / ".ci" / "run").read_text()


PICTURES = re.findall(r"<code>(kinetograph generate [^<]+)</code>", README.read_text(encoding="utf-8"))


@pytest.mark.parametrize("command", PICTURES)
def test_every_gif_of_the_readme_is_what_the_command_under_it_makes_with_the_bundled_weights(command):
    _, _, prompt, *options = shlex.split(html.unescape(command))
    said = dict(zip(options[::2], options[1::2], strict=True))
    engine = describe(said.get("--engine", DEFAULT_ENGINE))
    picture = README.parent / "docs" / "images" / said["--out"]
    assert f'src="docs/images/{picture.name}"' in README.read_text(encoding="utf-8")
    shown = Video.load(picture)
    made = shown.provenance
    assert (made.request.prompt, str(made.request.seed)) == (prompt, said["--seed"])
    assert f"{made.request.width}x{made.request.height}" == said.get("--size", f"{engine.width}x{engine.height}")
    assert (made.engine, made.weights) == (engine.reference, engine.weights)
    again = reproduce(picture, device="cpu")
    assert np.abs(again.video.frames.astype(int) - shown.frames).mean() < 2  # gif has 256 colours


def test_every_picture_of_trained_weights_can_be_drawn_again_by_its_commands():
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    sheets = {picture for _, picture in pictures.SHOWN.findall((ROOT / "docs" / "pocket.md").read_text())}
    others = {"pocket-autoencoder.png"}  # drawn by its training
    assert sheets | others == {file.name for file in (ROOT / "docs" / "images").glob("pocket-*.png")}
    clips = pictures.SHOWN.findall((ROOT / "docs" / "flow.md").read_text())
    assert [picture for _, picture in clips] == ["flow.png"]
    shown = (ROOT / "docs" / "diffusion.md").read_text()
    assert all(f"images/diffusion-{name}" in shown for name in pictures.EXPLAINED)
    assert all(f"kinetograph explain {Path(name).stem.split('-')[0]} " in shown for name in pictures.EXPLAINED)
    assert pictures.label('kinetograph edit dog.npz "make it night" --seed 1 --out night.gif') == "make it night"


def test_the_readme_shows_pictures():
    assert len(PICTURES) >= 6
