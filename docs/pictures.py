"""Draws the pictures of the documentation that trained weights made, by the commands that stand beside them.

    python docs/pictures.py                 all of them, in twenty minutes of one core
    python docs/pictures.py pocket readme   those of docs/pocket.md and the films of the readme

A picture of docs/pocket.md has a row for every file that the commands above it write. `train` is left out: the picture
of DreamBooth is the run's own.
"""

import html
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from typer.testing import CliRunner

from kinetograph import media
from kinetograph.cli.commands import app

DOCS = Path(__file__).parent
IMAGES = DOCS / "images"
SHOWN = re.compile(r"```console\n([^`]*)```\n\n!\[[^\]]*\]\(images/([\w-]+\.png)\)")
SWITCHES = (
    "t=200 t_prime=200",
    "t=450 t_prime=450",
    "t=941 t_prime=881",
    "t=881 t_prime=881",
    "motion=0,0",
    "dynamics=false",
    "attention=false",
    "dynamics=false attention=false",
)
EXPLAINED = ("reverse.png", "steps.png", "steps-sheet.png", "guidance.png")


def main(wanted: Sequence[str]) -> None:
    """Draw what is wanted, else everything."""
    pages = {"readme": readme, "pocket": pocket, "switches": switches, "diffusion": diffusion, "flow": flow}
    for name in wanted or pages:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            pages[name]()


def readme() -> None:
    """The films of the readme."""
    text = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    for command in re.findall(r"<code>(kinetograph generate [^<]+)</code>", text):
        made = run(html.unescape(command))
        (IMAGES / made).write_bytes(Path(made).read_bytes())


def pocket() -> None:
    """A sheet for every mode."""
    for commands, picture in SHOWN.findall((DOCS / "pocket.md").read_text(encoding="utf-8")):
        if "kinetograph train" not in commands:
            sheet(picture, ((label(line), run(line)) for line in commands.splitlines()))


def switches() -> None:
    """One clip with parts of the zero-shot method off."""
    text = (DOCS / "zero-shot.md").read_text(encoding="utf-8")
    found = re.search(r"zero-shot-switches\.png.*?```console\n(.*?)\n```", text, re.S)
    assert found, "docs/zero-shot.md shows no command under its switches"
    rows = []
    for settings in SWITCHES:
        more = " ".join(f"--set {setting}" for setting in settings.split())
        rows.append((settings, run(f"{found[1]} --force {more}", f"{settings}.gif")))
    sheet("zero-shot-switches.png", rows)


def diffusion() -> None:
    """The pictures and curves of docs/diffusion.md that trained models made."""
    text = (DOCS / "diffusion.md").read_text(encoding="utf-8")
    for command in re.findall(r"^kinetograph explain (?:reverse|steps|guidance) .+$", text, re.M):
        run(command)
    for name in EXPLAINED:
        (IMAGES / f"diffusion-{name}").write_bytes((Path("pictures") / name).read_bytes())
    (IMAGES / "diffusion-steps-flow.png").write_bytes((Path("courses") / "steps.png").read_bytes())


def flow() -> None:
    """Every second frame of the clips of docs/flow.md."""
    text = (DOCS / "flow.md").read_text(encoding="utf-8")
    for commands, picture in SHOWN.findall(text):
        sheet(picture, ((label(line), run(line)) for line in commands.splitlines()), every=2)


def run(command: str, kept: str = "") -> str:
    """Run a command line, and return the file that it wrote, under another name if one is given."""
    words = shlex.split(command)[1:]
    result = CliRunner().invoke(app, words)
    if result.exit_code:
        raise SystemExit(f"{command}\n{result.output}")
    out = words[words.index("--out") + 1]
    if kept:
        Path(out).rename(kept)
    return kept or out


def label(command: str) -> str:
    """What a command is told, in short: its sentence, or what it makes of a file; and its settings."""
    words = shlex.split(command)[1:]
    settings = [word for before, word in pairwise(words) if before == "--set"]
    said = {"edit": words[2], "control": f"its {words[1]}s"}.get(words[0], words[1])
    return ", ".join([said, *settings])


def sheet(picture: str, rows: Iterable[tuple[str, str]], every: int = 1) -> None:
    """A row for each of these labels and files, of all frames or some."""
    labels, clips = zip(*((label, media.read_frames(file)[::every]) for label, file in rows), strict=True)
    media.write_contact_sheet(IMAGES / picture, clips, labels, scale=1)


if __name__ == "__main__":
    main(sys.argv[1:])
