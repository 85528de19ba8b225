"""Engines x prompts x metrics -> a report.

An **exam** is a fixed list of questions (a prompt, a seed, and another scene of the same description, from
which the reference is drawn) and the metrics to answer them by; it depends on the world and the seed, never on
who sits it. A **subject** is whatever sits it: an engine, or a peer that is none.

    report = evaluate("gan", count=200)
    report.write(Path("out/gan"))
    print(compare(report, evaluate("render", count=200)))
"""

import json
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np

from kinetograph import __version__, files, media
from kinetograph.engine import EngineInfo, OnProgress, Progress, describe, generate, ignore, warm
from kinetograph.errors import CannotWrite, InvalidRequest, UnknownName
from kinetograph.media import Frames
from kinetograph.metrics import Score
from kinetograph.metrics.obeys import missed, with_pairs
from kinetograph.request import FrozenMapping, VideoRequest
from kinetograph.shelf import METRICS, TRIALS, WORLDS
from kinetograph.trials import Asked, Shape

REPORT, SHEET, COMPARISON = "report.json", "contact_sheet.png", "comparison.md"
SHOWN = 24  # clips on the contact sheet
REPEATED, SEEDS = 16, 6  # prompts and seeds of each, for the metrics that compare clips of one prompt
GIVEN = "given"  # the name of the split where the prompts are the caller's
KINDS = ("captions", "paraphrases", "pairs")


# --- the exam -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """One clip to be made: its prompt, its seed, and the scene that its reference shows."""

    prompt: str
    seed: int
    scene: Any


@dataclass(frozen=True, kw_only=True)
class Exam:
    """What is asked and how it is scored. `questions` ask each prompt in turn, `repeats` a few prompts often."""

    world: str
    split: str
    kind: str
    seed: int
    metrics: tuple[str, ...]
    questions: tuple[Question, ...]
    repeats: tuple[Question, ...]


def prepare(
    world: str = "circle",
    split: str = "heldout",
    count: int = 1000,
    *,
    kind: str = "captions",
    prompts: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
) -> Exam:
    """Set an exam of `count` questions, the same for ever for the same arguments; without making a clip.

    Its prompts are captions of scenes of the split that say everything (silence means the default); of the kind
    "paraphrases", wordings that training never saw; of the kind "pairs", captions of scenes in turn with those of their
    near misses, which differ in one attribute. Where `prompts` are given, it is those in turn, each under as many seeds
    as the count allows. `metrics` are names, by default every one on the shelf. Raises UnknownName or InvalidRequest
    for what cannot be asked.
    """
    if kind not in KINDS:
        raise UnknownName("kind of exam", kind, (*KINDS, *TRIALS.names()))
    if count < 1 or (prompts is not None and not prompts):
        raise InvalidRequest("an exam without questions", field="count", hint="ask for one video at least")
    _check_seed(seed)
    chosen = METRICS.names() if metrics is None else tuple(metrics)
    _check_enough(count, kind, chosen)
    module = WORLDS[world]
    given = prompts or _prompts(module, split, kind, seed, "prompt", count)
    often = prompts[:REPEATED] if prompts else _prompts(module, split, kind, seed, "repeated prompt", REPEATED)
    repeats = SEEDS * len(often) if any(_repeats(METRICS[name]) for name in chosen) else 0
    return Exam(
        world=world,
        split=GIVEN if prompts else split,
        kind=GIVEN if prompts else kind,
        seed=seed,
        metrics=chosen,
        questions=_questions(module, seed, "question", [given[i % len(given)] for i in range(count)]),
        repeats=_questions(module, seed, "repeat", [often[i // SEEDS] for i in range(repeats)]),
    )


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise InvalidRequest(f"seed is {seed}, less than nothing", field="seed", hint="nearest: 0")


def _check_enough(count: int, kind: str, metrics: Sequence[str]) -> None:
    """Refuse now what a metric would refuse after all clips are made."""
    least = {name: getattr(METRICS[name], "LEAST", 1) for name in metrics} | ({"pairs": 2} if kind == "pairs" else {})
    for name, needed in least.items():
        if count < needed:
            hint = f"nearest: {needed}, or other metrics"
            raise InvalidRequest(f"{name} needs {needed} videos, not {count}", field="count", hint=hint)


def _repeats(metric: ModuleType) -> bool:
    return bool(getattr(metric, "REPEATS", False))


def _prompts(world: ModuleType, split: str, kind: str, seed: int, stream: str, count: int) -> list[str]:
    sources = [_source(seed, stream, place) for place in range(count)]
    if kind == "pairs":
        return [prompt for rng in sources[: -(-count // 2)] for prompt in _pair(world, split, rng)][:count]
    say = world.paraphrase if kind == "paraphrases" else lambda scene, rng: world.caption(scene, rng, {})
    return [say(world.sample(rng, split=split), rng) for rng in sources]


def _pair(world: ModuleType, split: str, rng: np.random.Generator) -> list[str]:
    """Two captions that differ in one attribute: of a scene, and of one of its near misses."""
    scene = world.sample(rng, split=split)
    misses = world.near_misses(scene, rng)
    return [world.caption(one, rng, {}) for one in (scene, misses[int(rng.integers(len(misses)))])]


def _questions(world: ModuleType, seed: int, stream: str, prompts: Sequence[str]) -> tuple[Question, ...]:
    """The reference is another scene of which the prompt is true: what a perfect engine might have made."""
    sources = [_source(seed, stream, place) for place in range(len(prompts))]
    return tuple(
        Question(prompt, int(rng.integers(2**32)), world.sample(rng, world.parse(prompt)))
        for prompt, rng in zip(prompts, sources, strict=True)
    )


STREAMS = ("prompt", "repeated prompt", "question", "repeat", "trial")
EXAMS = 0  # the first number of their keys


def _source(seed: int, stream: str, place: int) -> np.random.Generator:
    # By spawn key of three numbers: training draws its clips by keys of two, (step, place), data sets by one, (place,).
    key = (EXAMS, STREAMS.index(stream), place)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))


# --- who sits it --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Whatever makes clips: `make` turns a prompt and a seed into frames and the seconds that took.

    `weights` is the sha256 of the checkpoint or "", `device` what it runs on, `versions` what is installed, `settings`
    the sizes and lengths that are not its own.
    """

    name: str
    make: Callable[[str, int], tuple[Frames, float]]
    weights: str = ""
    device: str = "cpu"
    versions: Mapping[str, str] = field(default_factory=FrozenMapping)
    settings: Mapping[str, int] = field(default_factory=FrozenMapping)


def subject(
    reference: str,
    device: str = "auto",
    options: Mapping[str, Any] | None = None,
    settings: Mapping[str, int] | None = None,
) -> Subject:
    """An engine, loaded, at its own size and length, with its own options, where no others are given: `settings` are
    width, height and frames.

    Raises what `describe`, loading, and options, sizes and lengths that it does not have raise.
    """
    info = describe(reference)
    how: dict[str, Any] = {"options": options, **(settings or {})}
    _check_able(info, options, settings)
    engine = warm.get(reference, device, info.weights)

    def make(prompt: str, seed: int) -> tuple[Frames, float]:
        video = generate(reference, info.request(prompt, seed=seed, **how), device=device)
        return video.frames, video.provenance.seconds if video.provenance else 0.0

    return Subject(
        name=reference,
        make=make,
        weights=engine.weights_digest,
        device=engine.device,
        versions=engine.versions,
        settings=settings or {},
    )


def _check_able(info: EngineInfo, options: Mapping[str, Any] | None, settings: Mapping[str, int] | None) -> None:
    """Refuse now the options, the size and the length that an engine would refuse when asked."""
    how: dict[str, Any] = {"options": options, **(settings or {})}
    info.request("anything", seed=0, **how)


# --- the report ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One line of a report: a metric, or a part of one as "metric/part"."""

    name: str
    value: float
    low: float
    high: float
    unit: str
    better: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """What an evaluation found: who was examined on what, every score, and the first clips to look at.

    `settings` are the width, the height and the frames that were asked for and are not the engine's own.
    `count` is the number of questions, `seconds` the median time of a clip with the engine warm, out of `times`: those
    of all clips but the first, which warms the engine up. `times` are not in the file of numbers, nor are `clips` and
    `captions`, which go onto the contact sheet.
    """

    engine: str
    weights: str
    device: str
    world: str
    split: str
    kind: str
    count: int
    seed: int
    scores: Mapping[str, Score]
    seconds: float
    versions: Mapping[str, str]
    settings: Mapping[str, int] = field(default_factory=FrozenMapping)
    times: tuple[float, ...] = field(default=(), repr=False, compare=False)
    clips: tuple[Frames, ...] = field(default=(), repr=False, compare=False)
    captions: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", FrozenMapping(self.scores))
        object.__setattr__(self, "versions", FrozenMapping(self.versions))
        object.__setattr__(self, "settings", FrozenMapping(self.settings))

    def rows(self) -> tuple[Row, ...]:
        """Every score and every part of one, in order of name."""
        return tuple(row for name, score in self.scores.items() for row in _rows(name, score))

    def to_dict(self) -> dict[str, Any]:
        """As JSON would have it, without the clips."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.compare}
        scores = {name: score.to_dict() for name, score in self.scores.items()}
        return plain | {"scores": scores, "versions": dict(self.versions), "settings": dict(self.settings)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Report":
        """The opposite of `to_dict`; what is not in the file is not in it."""
        scores = {name: Score.from_dict(score) for name, score in data["scores"].items()}
        return cls(**{**data, "scores": scores})

    def write(self, out: Path) -> None:
        """Write report.json and, where there are clips, contact_sheet.png into a folder; old ones are replaced.

        Raises CannotWrite.
        """
        prepare_folder(out)
        files.write(out / REPORT, json.dumps(self.to_dict(), indent=2) + "\n")
        if self.clips:
            media.write_contact_sheet(out / SHEET, self.clips, self.captions)


def prepare_folder(out: Path) -> None:
    """Make the folder of a report, and refuse now what could not be written later. Raises CannotWrite."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite.because(out / REPORT, error) from error
    media.check_target(out / SHEET, 1, 1, overwrite=True)


def _rows(name: str, score: Score) -> list[Row]:
    own = Row(name, score.value, score.low, score.high, score.unit, score.better, score.count)
    return [own, *(row for part, inner in score.parts.items() for row in _rows(f"{name}/{part}", inner))]


def compare(*reports: Report) -> str:
    """A table in markdown: a row for each score, a column for each report."""
    lines = [["score", "better", *(report.engine for report in reports)], ["---"] * (2 + len(reports))]
    tables = [{row.name: row for row in report.rows()} for report in reports]
    for name in dict.fromkeys(name for table in tables for name in table):
        found = [table.get(name) for table in tables]
        first = next(row for row in found if row)
        title = f"{name} ({first.unit}, n = {first.count})"
        lines.append([title, first.better, *(_cell(row) for row in found)])
    lines.append(["seconds per clip, warm", "lower", *(f"{report.seconds:.3g}" for report in reports)])
    escaped = ([cell.replace("|", r"\|") for cell in line] for line in lines)  # a unit may contain the bar of the table
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def write_beside(reports: Sequence[Report], out: Path, shown: int = 4) -> None:
    """Write comparison.md and contact_sheet.png into a folder: the scores side by side, and for each of the first
    questions the clip of every report, one under the other. Raises CannotWrite."""
    prepare_folder(out)
    files.write(out / COMPARISON, compare(*reports) + "\n")
    asked = range(min(shown, *(len(report.clips) for report in reports)))
    rows = [(report.clips[n], f"{report.engine}: {report.captions[n]}") for n in asked for report in reports]
    if rows:
        media.write_contact_sheet(out / SHEET, [clip for clip, _ in rows], [label for _, label in rows], scale=1)


def _cell(row: Row | None) -> str:
    return f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]" if row else "not measured"


# --- evaluating ---------------------------------------------------------------------------------------------


def evaluate(
    engine: str,
    world: str = "circle",
    split: str = "heldout",
    count: int = 1000,
    *,
    kind: str = "captions",
    prompts: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    settings: Mapping[str, int] | None = None,
    out: Path | None = None,
    device: str = "auto",
    on_progress: OnProgress = ignore,
) -> Report:
    """Examine an engine; the arguments are those of `prepare`, `subject` and `examine`.

    A `kind` may be a trial's name, too: see `attempt`. What is wrong with the questions, with what the engine is told
    or with the folder is refused before the engine is loaded; where it is, no folder is left behind.
    """
    if kind in TRIALS:
        if prompts is not None or metrics is not None:
            raise InvalidRequest("a trial has prompts and scores of its own", field="kind", hint="leave both out")
        how: dict[str, Any] = {"seed": seed, "options": options, "settings": settings, "out": out, "device": device}
        how["on_progress"] = on_progress
        return attempt(engine, kind, world, split, count, **how)
    exam = prepare(world, split, count, kind=kind, prompts=prompts, metrics=metrics, seed=seed)
    _check_able(describe(engine), options, settings)
    if out is not None:
        prepare_folder(out)
    return examine(subject(engine, device, options, settings), exam, out=out, on_progress=on_progress)


def attempt(
    engine: str,
    trial: str,
    world: str = "critters",
    split: str = "heldout",
    count: int = 100,
    *,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    settings: Mapping[str, int] | None = None,
    out: Path | None = None,
    device: str = "auto",
    on_progress: OnProgress = ignore,
) -> Report:
    """Put an engine to a trial: something that it can be told beside a sentence, `count` times, judged by the world.

    The questions depend on the trial, the world, the split, the seed and the engine's own size, length and rate, or
    those of `settings`; its options are added to each. Raises UnknownName, and InvalidRequest for a world that does not
    know what is asked.
    """
    check_trial(trial, world, count, seed)
    module, universe, info = TRIALS[trial], WORLDS[world], describe(engine)
    wished = {"frames": info.frames, "height": info.height, "width": info.width, **(settings or {})}
    _check_able(info, options, settings)
    shape = Shape(**wished, fps=info.fps)
    with TemporaryDirectory() as folder:
        sources = [_source(seed, "trial", place) for place in range(count)]
        asked = [module.ask(universe, rng, shape, Path(folder), split) for rng in sources]
        seeds = [int(rng.integers(2**32)) for rng in sources]
        requests = [
            _request(info, one, number, wished, options or {}) for one, number in zip(asked, seeds, strict=True)
        ]
        if out is not None:
            prepare_folder(out)
        clips, seconds = _attempted(engine, requests, device, on_progress)
    loaded = warm.get(engine, device, info.weights)
    report = Report(
        engine=engine,
        weights=loaded.weights_digest,
        device=loaded.device,
        world=world,
        split=split,
        kind=trial,
        count=count,
        seed=seed,
        scores={n: _labelled(s, s.unit, s.better) for n, s in module.score(clips, asked, universe).items()},
        **_timed(seconds),
        versions={**_here(), **loaded.versions},
        settings=settings or {},
        clips=tuple(clips[:SHOWN]),
        captions=tuple(one.prompt for one in asked[:SHOWN]),
    )
    if out is not None:
        report.write(out)
    return report


def check_trial(trial: str, world: str, count: int, seed: int) -> None:
    """Refuse now the questions that `attempt` would refuse. Raises UnknownName and InvalidRequest."""
    module = TRIALS[trial]
    if count < 1:
        raise InvalidRequest("a trial without questions", field="count", hint="ask for one video at least")
    _check_seed(seed)
    lacking = [name for name in module.NEEDS if not hasattr(WORLDS[world], name)]
    if lacking:
        able = [name for name in WORLDS if all(hasattr(WORLDS[name], need) for need in module.NEEDS)]
        hint = f"these can: {', '.join(able)}"
        raise InvalidRequest(f"the world {world} knows nothing of {trial}: it lacks {lacking[0]}", hint=hint)


def _request(
    info: EngineInfo, asked: Asked, seed: int, wished: Mapping[str, int], options: Mapping[str, Any]
) -> VideoRequest:
    settings = {**wished, **asked.settings, "options": {**asked.settings.get("options", {}), **options}}
    return info.request(asked.prompt, seed=seed, **settings)


def _attempted(
    engine: str, requests: Sequence[VideoRequest], device: str, on_progress: OnProgress
) -> tuple[list[Frames], list[float]]:
    clips, seconds = [], []
    for step, request in enumerate(requests, 1):
        video = generate(engine, request, device=device)
        clips.append(video.frames)
        seconds.append(video.provenance.seconds if video.provenance else 0.0)
        on_progress(Progress(step=step, steps=len(requests), preview=video.frames[-1]))
    return clips, seconds


ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "all": {},
    "without cross-frame attention": {"attention": False},
    "without motion": {"dynamics": False},
    "without both": {"attention": False, "dynamics": False},
    "smoothed": {"smooth": 0.6},
    "latents moved": {"moved": "latents"},
    "pixels moved": {"moved": "pixels"},
}  # the parts of the method, each switched off, what is off by default switched on, and both ways to move a picture


def ablation(
    engine: str, world: str = "critters", count: int = 100, *, out: Path | None = None, **how: Any
) -> tuple[Report, ...]:
    """The paper's ablation: the trial of motion with each part of the method switched, the same questions every time.

    `how` is as for `attempt`; options hold in every row, and rows that tell an engine the same are made once. `compare`
    prints the reports side by side, and `out` is where that is kept, with the clips.
    """
    if out is not None:
        prepare_folder(out)
    options, info = how.pop("options", None) or {}, describe(engine)
    made: dict[str, Report] = {}  # by all that an engine is told

    def row(told: dict[str, Any]) -> Report:
        settled = json.dumps(info.settled(told), sort_keys=True)
        if settled not in made:
            made[settled] = attempt(engine, "motion", world, count=count, options=told, **how)
        return made[settled]

    reports = tuple(replace(row({**options, **switched}), engine=name) for name, switched in ABLATIONS.items())
    if out is not None:
        write_beside(reports, out)
    return reports


def examine(who: Subject, exam: Exam, *, out: Path | None = None, on_progress: OnProgress = ignore) -> Report:
    """Have every question answered, score the answers and, with `out`, write the report into that folder.

    All clips are kept in memory until they are scored. `on_progress` is told after each and may raise
    Cancelled.
    """
    asked = [*exam.questions, *exam.repeats]
    clips, seconds = _answers(who, asked, on_progress)
    count = len(exam.questions)
    report = Report(
        engine=who.name,
        weights=who.weights,
        device=who.device,
        world=exam.world,
        split=exam.split,
        kind=exam.kind,
        count=count,
        seed=exam.seed,
        scores=_scores(exam, clips[:count], clips[count:]),
        **_timed(seconds),
        versions={**_here(), **who.versions},
        settings=who.settings,
        clips=tuple(clips[: min(count, SHOWN)]),
        captions=tuple(verdict(clip, q.prompt, WORLDS[exam.world]) for q, clip in zip(exam.questions[:SHOWN], clips)),
    )
    if out is not None:
        report.write(out)
    return report


def _answers(who: Subject, questions: Sequence[Question], on_progress: OnProgress) -> tuple[list[Frames], list[float]]:
    clips, seconds = [], []
    for step, question in enumerate(questions, 1):
        frames, took = who.make(question.prompt, question.seed)
        clips.append(frames)
        seconds.append(took)
        on_progress(Progress(step=step, steps=len(questions), preview=frames[-1]))
    return clips, seconds


def _timed(seconds: Sequence[float]) -> dict[str, Any]:
    """What a report says of the times of clips; the first one warms the engine up."""
    times = tuple(seconds[1:] or seconds)
    return {"seconds": round(statistics.median(times), 6), "times": times}


def _scores(exam: Exam, clips: Sequence[Frames], repeated: Sequence[Frames]) -> dict[str, Score]:
    """Every metric on the answers that are meant for it."""
    often = [name for name in exam.metrics if _repeats(METRICS[name])]
    once = [name for name in exam.metrics if name not in often]
    world = WORLDS[exam.world]
    scores = _score_answers(clips, exam.questions, world, once) if once else {}
    if exam.kind == "pairs" and "obeys" in scores:
        scores["obeys"] = with_pairs(scores["obeys"])
    return scores | (_score_answers(repeated, exam.repeats, world, often) if often else {})


def _score_answers(
    clips: Sequence[Frames], questions: Sequence[Question], world: ModuleType, metrics: Sequence[str]
) -> dict[str, Score]:
    frames, height, width, _ = clips[0].shape
    references = [world.draw([question.scene], frames, height, width)[0] for question in questions]
    return score_videos(clips, [question.prompt for question in questions], references, world, metrics)


def score_videos(
    videos: Sequence[Frames],
    prompts: Sequence[str],
    references: Sequence[Frames],
    world: ModuleType,
    metrics: Sequence[str],
) -> dict[str, Score]:
    """Score clips that are at hand, wherever they come from; each score says its unit and its direction."""
    scores = {}
    for name in metrics:
        metric = METRICS[name]
        scores[name] = _labelled(metric.score(videos, prompts, references, world), metric.UNIT, metric.BETTER)
    return scores


def _labelled(score: Score, unit: str, better: str) -> Score:
    """A score with its unit and its direction filled in, and its parts' likewise."""
    unit, better = score.unit or unit, score.better or better
    parts = {name: _labelled(part, unit, better) for name, part in score.parts.items()}
    return replace(score, unit=unit, better=better, parts=parts)


def verdict(clip: Frames, prompt: str, world: ModuleType) -> str:
    """The prompt and whether a clip obeys it, or what it lacks: the label of a clip on a contact sheet."""
    lacking = missed(clip, prompt, world)
    return f"{prompt} - {'missed: ' + ', '.join(lacking) if lacking else 'obeys'}"


def _here() -> dict[str, str]:
    return {"kinetograph": __version__, "python": platform.python_version(), "numpy": np.__version__}
