"""Many prompts, one clip each: a folder of clips and `manifest.jsonl`, one line for each that was tried.

The n-th prompt, from 0, becomes `0000.mp4`, `0001.mp4` ... under the seed `seed + n`. A line is written after its clip
stands under its name, so that what was interrupted goes on where it stopped: finished clips are compared with their
digests and left alone. Who makes them, this process or an executor, changes nothing in the folder.
"""

import json
import os
import re
import secrets
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from kinetograph import files, media
from kinetograph.engine import SEED_BITS, EngineInfo, describe, generate
from kinetograph.errors import (
    Cancelled,
    CannotRead,
    CannotWrite,
    Interrupted,
    InvalidRequest,
    KinetographError,
    OutputExists,
    UnsupportedFormat,
    did_you_mean,
)
from kinetograph.executors import Executor, Made, Order
from kinetograph.request import VideoRequest, check_fps, parse_fps, parse_size

MANIFEST = "manifest.jsonl"
MOST = 1_000_000  # prompts in one file: a file of another kind, taken for one, is refused early


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of what is asked: a prompt and, where they differ from the others', its settings and its seed."""

    prompt: str
    seed: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the manifest: a clip that was made, or (`error` says why) one that could not be."""

    index: int
    prompt: str
    seed: int
    engine: str
    request: Mapping[str, Any] = field(default_factory=dict)
    saving: Mapping[str, Any] = field(default_factory=dict)  # what else decides what is in the file
    file: str = ""
    sha256: str = ""
    seconds: float = 0.0
    error: str = ""
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a batch: how many clips were made now, how many were there already, and those that could not be
    made.
    """

    folder: Path
    seed: int
    made: int
    kept: int
    failed: tuple[Entry, ...]


OnEntry = Callable[[Entry], None]


def read_prompts(path: Path) -> list[str]:
    """The prompts in a UTF-8 file, one a line. Blank lines are skipped and count for nothing. Raises CannotRead,
    InvalidRequest.
    """
    return [line for _, line in _numbered(path)]


def read_lines(path: Path) -> list[Line]:
    """What a file asks: a JSON object a line in a .jsonl, with `prompt` and, if wanted, seed, width, height, size,
    frames, fps and options; otherwise a prompt a line. Raises CannotRead, InvalidRequest.
    """
    if path.suffix.lower() != ".jsonl":
        return [Line(prompt=prompt) for prompt in read_prompts(path)]
    return [_line(f"{path}, line {number}", text) for number, text in _numbered(path)]


def _numbered(path: Path) -> list[tuple[int, str]]:
    """The lines that are not blank, each with its number from 1."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # splitlines would cut at form feeds and the like
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise CannotRead(f"cannot read {path}: {why}", hint="it should be a text file in UTF-8") from error
    found = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found or len(found) > MOST:
        hint = "write one prompt a line" if not found else f"at most {MOST}: split the file"
        raise InvalidRequest(f"{path} holds {len(found)} prompts", field="prompts", hint=hint)
    return found


KEYS = ("prompt", "seed", "width", "height", "size", "frames", "fps", "options")


def _line(where: str, text: str) -> Line:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{where} is no JSON ({error})", field="prompts", hint='{"prompt": "..."}') from error
    if not isinstance(said, dict) or not isinstance(said.get("prompt"), str):
        raise InvalidRequest(f"{where} has no prompt", field="prompts", hint='{"prompt": "..."}')
    for name in said:
        if name not in KEYS:
            raise InvalidRequest(f"{where} has {name!r}", field=name, hint=did_you_mean(name, KEYS))
    if type(said.get("seed", 0)) is not int or not isinstance(said.get("options", {}), dict):
        hint = '{"prompt": "...", "seed": 7, "options": {}}'
        raise InvalidRequest(f"{where} has a seed that is no whole number, or options that are no object", hint=hint)
    settings = {name: value for name, value in said.items() if name not in ("prompt", "seed", "size")}
    try:
        if "size" in said:
            settings["width"], settings["height"] = parse_size(str(said["size"]))
        if "fps" in said:
            settings["fps"] = parse_fps(said["fps"]) if isinstance(said["fps"], str) else check_fps(said["fps"])
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}: {error}", field=error.field, hint=error.hint) from error
    return Line(prompt=said["prompt"], seed=said.get("seed"), settings=settings)


def run(
    reference: str,
    prompts: Sequence[str | Line],
    folder: Path,
    *,
    seed: int | None = None,
    format: str = "mp4",
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
    provenance: bool = True,
    enlarge: int | None = None,
    overwrite: bool = False,
    executor: Executor | None = None,
    on_entry: OnEntry = lambda entry: None,
) -> Outcome:
    """Make the clip of every prompt that has none yet in `folder`; `settings` are those of `EngineInfo.request`, to
    which those of a Line are added.

    Without a `seed`, the folder's own is taken, or else one is drawn. `overwrite` makes every clip anew, whatever the
    folder holds. A prompt that cannot be made is recorded, and the rest go on; the next call tries it again. `on_entry`
    is told of each line that is written. Raises UnknownName or InvalidRequest for settings that fit no prompt,
    OutputExists where the folder holds clips of other prompts or settings, CannotWrite.
    """
    lines = [Line(prompt=asked) if isinstance(asked, str) else asked for asked in prompts]
    first = _seed(folder, overwrite, lines) if seed is None else seed
    job = Job(reference, describe(reference), first, _suffix(format), dict(settings or {}), device, provenance, enlarge)
    job.check(folder)
    finished = _opened(folder, job, lines, overwrite)
    missing = [(index, line) for index, line in enumerate(lines) if index not in finished]
    entries = _here(job, missing, folder) if executor is None else _elsewhere(job, missing, folder, executor)
    failed = []
    for entry in entries:
        _append(folder, entry)
        failed += [entry] if entry.error else []
        on_entry(entry)
    made = len(missing) - len(failed)
    return Outcome(folder=folder, seed=first, made=made, kept=len(finished), failed=tuple(failed))


def _seed(folder: Path, overwrite: bool, lines: Sequence[Line]) -> int:
    """The seed that a folder was begun with, or a new one."""
    manifest = folder / MANIFEST
    entries = iter(()) if overwrite or not manifest.is_file() else _entries(manifest)
    own = {index for index, line in enumerate(lines) if line.seed is not None}
    begun = next((entry for entry in entries if entry.index not in own), None)
    return begun.seed - begun.index if begun else secrets.randbits(SEED_BITS)


def _suffix(format: str) -> str:
    suffix = f".{format.lower().removeprefix('.')}"
    if suffix not in media.FORMATS:
        known = " ".join(sorted(name.removeprefix(".") for name in media.FORMATS if name))
        raise UnsupportedFormat(f"no format is called {format!r}", hint=f"there are {known}")
    return suffix


@dataclass(frozen=True)
class Job:
    """What all clips of a batch have in common."""

    reference: str
    info: EngineInfo
    seed: int
    suffix: str
    settings: Mapping[str, Any]
    device: str
    provenance: bool
    enlarge: int | None

    def request(self, index: int, line: Line) -> VideoRequest:
        """The request of the n-th line."""
        options = {**(self.settings.get("options") or {}), **(line.settings.get("options") or {})}
        settings = {**self.settings, **line.settings, "options": options}
        return self.info.request(line.prompt, seed=self.seed_of(index, line), **settings)

    def seed_of(self, index: int, line: Line) -> int:
        """The line's own seed, or the one of its place."""
        return self.seed + index if line.seed is None else line.seed

    def file(self, index: int) -> str:
        """The name of the n-th clip."""
        return f"{index:04d}{self.suffix}"

    @property
    def saving(self) -> dict[str, Any]:
        """What decides what is in a file beside the request."""
        return {"weights": self.info.weights, "provenance": self.provenance, "enlarge": self.enlarge}

    def check(self, folder: Path) -> None:
        """Refuse what no prompt could mend: a setting, a size that the format cannot hold, a folder that cannot be
        written.
        """
        probe = self.request(0, Line(prompt="a prompt"))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotWrite.because(folder, error) from error
        usual = media.enlargement(probe.width, probe.height, self.suffix)
        scale = usual if self.enlarge is None else self.enlarge
        media.check_target(folder / f"probe{self.suffix}", probe.width, probe.height, enlarge=scale, overwrite=True)


Missing = Sequence[tuple[int, Line]]


def _here(job: Job, missing: Missing, folder: Path) -> Iterator[Entry]:
    for index, line in missing:
        try:
            request = job.request(index, line)
            video = generate(job.reference, request, device=job.device)
            path = folder / job.file(index)
            video.save(path, provenance=job.provenance, enlarge=job.enlarge, overwrite=True)
        except (Cancelled, Interrupted, CannotWrite):
            raise  # meant for all, or true of all
        except KinetographError as error:
            yield _failed(job, index, line, str(error), error.hint)
        else:
            yield _written(job, index, request, path, video.provenance.seconds if video.provenance else 0.0)


def _elsewhere(job: Job, missing: Missing, folder: Path, executor: Executor) -> Iterator[Entry]:
    """As `_here`, by others: they send files, which are written here."""
    lines, refused = dict(missing), []

    def orders() -> Iterator[Order]:
        for index, line in missing:
            try:
                request = job.request(index, line)
            except KinetographError as error:
                refused.append(_failed(job, index, line, str(error), error.hint))
                continue
            how = {"suffix": job.suffix, "device": job.device, "provenance": job.provenance, "enlarge": job.enlarge}
            yield Order(index=index, engine=job.reference, request=request, **how)  # type: ignore[arg-type]

    for made in executor(orders()):
        yield from _drained(refused)
        yield _received(job, lines[made.index], made, folder)
    yield from _drained(refused)


def _drained(entries: list[Entry]) -> Iterable[Entry]:
    while entries:
        yield entries.pop(0)


def _received(job: Job, line: Line, made: Made, folder: Path) -> Entry:
    for said in made.warnings:
        warnings.warn(said, stacklevel=2)
    if made.error:
        return _failed(job, made.index, line, made.error, made.hint)
    path = folder / job.file(made.index)
    files.write(path, made.content)
    return _written(job, made.index, job.request(made.index, line), path, made.seconds)


def _failed(job: Job, index: int, line: Line, error: str, hint: str) -> Entry:
    seed = job.seed_of(index, line)
    return Entry(index=index, prompt=line.prompt, seed=seed, engine=job.reference, error=error, hint=hint)


def _written(job: Job, index: int, request: VideoRequest, path: Path, seconds: float) -> Entry:
    return Entry(
        index=index,
        prompt=request.prompt,
        seed=request.seed,
        engine=job.reference,
        request=request.to_dict(),
        saving=job.saving,
        file=path.name,
        sha256=files.sha256(path),
        seconds=seconds,
    )


# --- the manifest -----------------------------------------------------------------------------------------------------


def _opened(folder: Path, job: Job, prompts: Sequence[Line], overwrite: bool) -> dict[int, Entry]:
    """The clips of these prompts that are finished. Raises OutputExists where the folder holds anything that
    contradicts them.
    """
    manifest = folder / MANIFEST
    try:
        if overwrite:
            _forget(folder, manifest)
        elif not manifest.exists():
            _refuse_strangers(folder, [job.file(index) for index in range(len(prompts))])
            manifest.touch()
        # a later line about the same clip replaces the earlier
        entries = {entry.index: entry for entry in _entries(manifest)}
        made = {index: entry for index, entry in entries.items() if not entry.error and (folder / entry.file).is_file()}
        for entry in made.values():
            _check_same(manifest, entry, job, prompts)
        for path in folder.iterdir():
            if re.fullmatch(r"\.([0-9a-f]{12}|[0-9]{4,}\.\w+)\.part", path.name):  # what is left when it is killed
                path.unlink()
    except OSError as error:
        raise CannotWrite.because(manifest, error) from error
    return made


def _forget(folder: Path, manifest: Path) -> None:
    """Remove the clips that a manifest speaks of, unchanged since, and what it says of them: what is made anew never
    stands beside them.
    """
    with suppress(OutputExists):  # a damaged one speaks of nothing
        for entry in _entries(manifest) if manifest.exists() else ():
            clip = folder / Path(entry.file).name
            if entry.file and clip.is_file() and files.sha256(clip) == entry.sha256:
                clip.unlink()
    manifest.write_bytes(b"")


def _refuse_strangers(folder: Path, names: Sequence[str]) -> None:
    taken = {path.name for path in folder.iterdir()}
    for name in names:
        if name in taken:
            raise OutputExists(
                f"{folder / name} is already there, and no {MANIFEST} says what it is", hint="choose another folder"
            )


def _entries(manifest: Path) -> Iterator[Entry]:
    """The lines of a manifest. One that a crash cut short can only be the last, and is taken off the file."""
    written = manifest.read_bytes()
    whole = written[: written.rfind(b"\n") + 1]
    if whole != written:
        os.truncate(manifest, len(whole))
    known = [f.name for f in fields(Entry)]
    for line in whole.splitlines():  # of bytes: only at ends of lines, not at what Unicode takes for one
        try:
            said = json.loads(line)
            yield Entry(**{name: said[name] for name in known})
        except (ValueError, LookupError, TypeError) as error:
            raise OutputExists(f"{manifest} is damaged ({error})", hint="choose another folder") from error


def _check_same(manifest: Path, entry: Entry, job: Job, prompts: Sequence[Line]) -> None:
    """Raise OutputExists unless a finished clip is what this batch would make, and unchanged since."""
    clip = manifest.parent / entry.file
    if entry.index >= len(prompts) or prompts[entry.index].prompt != entry.prompt:
        now = repr(prompts[entry.index].prompt) if entry.index < len(prompts) else "nothing"
        fact, hint = (
            f"was made from {entry.prompt!r}, and the prompts now say {now}",
            "restore the prompts, or choose another folder",
        )
    elif entry.engine != job.reference or entry.request != job.request(entry.index, prompts[entry.index]).to_dict():
        fact, hint = "was made with another engine, seed or settings", "repeat those, or choose another folder"
    elif entry.saving != job.saving:
        differing = ", ".join(name for name, value in job.saving.items() if entry.saving.get(name) != value)
        fact, hint = f"was made with other settings ({differing})", "repeat those, choose another folder, or --force"
    elif entry.file != job.file(entry.index):
        fact, hint = f"is no {job.suffix.removeprefix('.')}", "ask for the same format, or choose another folder"
    elif entry.sha256 != files.sha256(clip):
        fact, hint = "was changed since it was made", "remove it to have it made again, or choose another folder"
    else:
        return
    raise OutputExists(f"{clip} {fact}", hint=hint)


def _append(folder: Path, entry: Entry) -> None:
    try:
        with (folder / MANIFEST).open("ab") as file:
            file.write((json.dumps(asdict(entry)) + "\n").encode())
    except OSError as error:
        raise CannotWrite.because(folder / MANIFEST, error) from error
