"""Pickled weights made into safetensors, by an explicit command: nothing else here ever opens a pickle.

The pickle is opened in a process of its own (`kinetograph.neural.unpickling`), without the secrets of this one.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinetograph import files, gate
from kinetograph.errors import CannotRead, CannotWrite, UnsafeModel, WeightsError

SETTINGS = frozenset({".json", ".txt", ".model", ".jinja", ".md", ".spm"})
PART = re.compile(r"(?P<stem>diffusion_pytorch_model|pytorch_model|pytorch_lora_weights|model)(?P<rest>[\w.-]*)\.\w+")
INDEX = re.compile(r"(?P<stem>diffusion_pytorch_model|pytorch_model)\.bin\.index(?P<rest>[\w.]*)\.json")
KEPT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR", "SYSTEMROOT")  # of the environment
MORE = 3  # how the process leaves where a file asks for more than tensors


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What came of it: the new file or folder, the files of weights in it, and what was left behind."""

    path: Path
    weights: tuple[str, ...]
    tensors: int
    left: tuple[str, ...]


def convert(source: Path, target: Path | None = None, *, overwrite: bool = False) -> Converted:
    """Make safetensors of a file of pickled weights, or of all in a model's folder, which is copied without them.

    A folder's code stays behind, and what comes out has passed the gate. Raises CannotRead, CannotWrite, UnsafeModel
    for a file that asks for more than tensors or a link that leads out, WeightsError for one that is damaged or holds
    none.
    """
    if not source.exists():
        raise CannotRead(f"there is no {source}", hint="name a file of weights, or a model's folder")
    to = target or (source.with_suffix(".safetensors") if source.is_file() else source.with_name(f"{source.name}-safe"))
    if to.exists() and not (overwrite and source.is_file() and to.is_file()):
        raise CannotWrite(f"{to} is there already", hint="name another with --out, or remove it")
    return _file(source, to) if source.is_file() else _folder(source, to)


def _file(source: Path, to: Path) -> Converted:
    if source.suffix.lower() not in gate.PICKLES:
        raise CannotRead(f"{source} is no pickle", hint=f"one of {', '.join(sorted(gate.PICKLES))}")
    said = _converted(source, to)
    return Converted(path=to, weights=(to.name,), tensors=said["tensors"], left=tuple(said["dropped"]))


def _folder(source: Path, to: Path) -> Converted:
    part = to.with_name(f".{to.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    made: list[str] = []
    left: list[str] = []
    count = 0
    try:
        for path in [file for file in gate.walk(source) if file.is_file()]:
            gate.check_place(source, path)
            name = path.relative_to(source)
            new, kind = (part / name).with_name(renamed(name.name)), path.suffix.lower()
            new.parent.mkdir(parents=True, exist_ok=True)
            if INDEX.fullmatch(name.name):
                new.write_text(_index(path), encoding="utf-8")
            elif kind in SETTINGS | gate.WEIGHTS or name.name.startswith("LICENSE"):
                shutil.copyfile(path, new)
            elif kind in gate.PICKLES and PART.fullmatch(name.name) and not _twin(path):
                count += _converted(path, new)["tensors"]
                made.append(new.relative_to(part).as_posix())
            else:
                left.append(name.as_posix())
        if not made:
            some = ", ".join(name for name in left if Path(name).suffix.lower() in gate.PICKLES) or "no pickle at all"
            raise WeightsError(
                f"{source} holds no pickled weights that a pipeline would read",
                hint=f"it holds {some}; a single file can be converted by itself",
            )
        gate.check(part)
        part.rename(to)
    except OSError as error:
        raise CannotWrite.because(to, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Converted(path=to, weights=tuple(made), tensors=count, left=tuple(left))


def _twin(path: Path) -> bool:
    """Whether the same weights lie beside it as safetensors."""
    return path.with_name(renamed(path.name)).exists()


def renamed(name: str) -> str:
    """What the libraries call the safetensors of a file: transformers drops `pytorch_` from `pytorch_model`."""
    stems = {"pytorch_model": "model"}
    if match := INDEX.fullmatch(name):
        return f"{stems.get(match['stem'], match['stem'])}.safetensors.index{match['rest']}.json"
    match = PART.fullmatch(name)
    if match is None or Path(name).suffix.lower() not in gate.PICKLES:
        return name
    return f"{stems.get(match['stem'], match['stem'])}{match['rest']}.safetensors"


def _index(path: Path) -> str:
    said = gate.settings(path)
    shards = said.get("weight_map", {}) if isinstance(said, dict) else {}
    return json.dumps(said | {"weight_map": {key: renamed(str(name)) for key, name in shards.items()}}, indent=2)


def _converted(source: Path, to: Path) -> dict[str, Any]:
    """One file, in a process of its own; what it said."""
    said: dict[str, Any] = {}

    def work(temporary: Path) -> None:
        command = [sys.executable, "-I", "-m", "kinetograph.neural.unpickling", str(source), str(temporary)]
        environment = {name: os.environ[name] for name in KEPT if name in os.environ}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        said.update(_understood(source, done.returncode, done.stdout, done.stderr))
        if (held := len(gate.header(temporary))) != said["tensors"]:
            raise WeightsError(f"{source} could not be converted", hint=f"{held} tensors of {said['tensors']} came out")

    files.fill(to, work)
    return said


def _understood(source: Path, code: int, out: str, err: str) -> dict[str, Any]:
    words = out.strip().splitlines()
    facts: dict[str, Any] = json.loads(words[-1]) if words and words[-1].startswith("{") else {}
    if code == 0 and "tensors" in facts:
        return facts
    why = str(facts.get("error") or (err.strip().splitlines() or ["it was killed"])[-1])
    if code == MORE:
        raise UnsafeModel(f"{source} asks for more than tensors, and was not read", hint=why)
    raise WeightsError(f"{source} could not be read as weights", hint=why)
