"""What a setting of a diffusion model trades for what, measured: what is asked, steadiness and time; and of a model of
clips how unlike its clips are, of a model of pictures set in motion whether one thing stays the same thing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from kinetograph import media
from kinetograph.engine import OnProgress, Progress, describe, ignore
from kinetograph.errors import InvalidRequest, UnknownName
from kinetograph.evaluation import (
    REPEATED,
    SEEDS,
    Exam,
    Report,
    Row,
    attempt,
    check_trial,
    examine,
    prepare,
    subject,
    verdict,
)
from kinetograph.explaining import figures, tables
from kinetograph.explaining.forward import spread
from kinetograph.explaining.reverse import diffusion
from kinetograph.media import Frames
from kinetograph.metrics import bootstrap
from kinetograph.shelf import WORLDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METRICS = ("obeys", "diversity", "flicker")
CAPTIONS, MOTION = "captions", "motion"  # what may be asked: captions of clips, or stills and how they are to move
PANELS = {CAPTIONS: (*METRICS, "seconds"), MOTION: ("obeys", "identity", "flicker", "seconds")}
COLUMNS = 8  # frames of a clip on the sheet
STEPS = (1, 2, 4, 8, 16, 32)
GUIDANCE = (0, 1, 2, 3, 5, 8)
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Point:
    """An engine under one value of a setting: its report, and one clip to look at with what is said of it."""

    value: float
    report: Report
    shown: Frames
    said: str

    def rows(self) -> list[Row]:
        """Every score, and the median time of a clip with its interval."""
        times = np.array(self.report.times)
        value, low, high = bootstrap(lambda places: float(np.median(times[places])), len(times))
        time = Row("seconds", value, max(0.0, low), high, "seconds per clip", "lower", len(times))
        return [*self.report.rows(), time]


def show(
    option: str,
    figure: Path,
    sheet: Path,
    table: Path,
    report: Path,
    *,
    values: Sequence[float],
    engine: str = "zero",
    ask: str = MOTION,
    world: str = "critters",
    prompt: str | None = None,
    count: int = 24,
    options: Mapping[str, Any] = NOTHING,
    seed: int = 0,
    device: str = "auto",
    on_progress: OnProgress = ignore,
) -> None:
    """Examine an engine under each value of one of its options, always with the same prompts and the same noise.

    Asked are `count` held-out prompts of the world: by "captions" once, and about a sixth as many under six seeds for
    the diversity; by "motion" as the trial of that name does. The first is on the sheet, of captions `prompt` where one
    is given. Raises InvalidRequest for an engine without this option and for values that it does not take.
    """
    figures.check()
    chosen = _checked(engine, option, values, options)
    measure = _measurer(engine, ask, world, prompt, count, seed, device)
    points = []
    for place, value in enumerate(chosen):

        def tell(p: Progress, before: int = place) -> None:
            on_progress(replace(p, step=before * p.steps + p.step, steps=len(chosen) * p.steps))

        points.append(measure(value, {**options, option: value}, tell))
    _write_numbers(table, report, option, points)
    _write_sheet(sheet, option, points)
    _draw(figure, option, PANELS[ask], points)


Measure = Callable[[float, Mapping[str, Any], OnProgress], Point]


def _checked(engine: str, option: str, values: Sequence[float], options: Mapping[str, Any]) -> list[float]:
    """The values in their order. Raises InvalidRequest for one that the engine does not take."""
    info = diffusion(engine, option)
    if not values:
        raise InvalidRequest(f"no {option} to measure", field="values", hint="give one or more")
    return sorted({info.settled({**options, option: value})[option] for value in values})


def _measurer(engine: str, ask: str, world: str, prompt: str | None, count: int, seed: int, device: str) -> Measure:
    """What measures the engine under one value. Raises UnknownName and InvalidRequest for what cannot be asked."""
    if ask not in PANELS:
        raise UnknownName("kind of question", ask, PANELS)
    if ask == MOTION:
        if prompt is not None:
            raise InvalidRequest("a trial has prompts of its own", field="prompt", hint="--ask captions takes one")
        if "motion" not in describe(engine).Options.model_fields:
            raise InvalidRequest(f"the engine {engine} sets no stills in motion", field="ask", hint="--ask captions")
        check_trial(MOTION, world, count, seed)
        return partial(_tried, partial(attempt, engine, MOTION, world, count=count, seed=seed, device=device))
    exam = _exam(world, count, seed)
    said = exam.questions[0].prompt if prompt is None else prompt
    WORLDS[world].parse(said)  # refuses what the world does not understand
    return partial(_examined, engine, exam, said, device)


def _exam(world: str, count: int, seed: int) -> Exam:
    """Held-out prompts, of which fewer are repeated than in a full exam: it is sat many times."""
    exam = prepare(world, "heldout", count, metrics=METRICS, seed=seed)
    return replace(exam, repeats=exam.repeats[: SEEDS * min(max(2, round(count / SEEDS)), REPEATED)])


def _examined(
    engine: str, exam: Exam, prompt: str, device: str, value: float, options: Mapping[str, Any], on_progress: OnProgress
) -> Point:
    who = subject(engine, device, options)
    shown, _ = who.make(prompt, exam.seed)
    report = examine(who, exam, on_progress=on_progress)
    return Point(value=value, report=report, shown=shown, said=verdict(shown, prompt, WORLDS[exam.world]))


def _tried(
    attempted: Callable[..., Report], value: float, options: Mapping[str, Any], on_progress: OnProgress
) -> Point:
    report = attempted(options=options, on_progress=on_progress)
    return Point(value=value, report=report, shown=report.clips[0], said=report.captions[0])


def _write_numbers(table: Path, report: Path, option: str, points: Sequence[Point]) -> None:
    """Every score under every value: as a table, and with what it rests on as JSON."""
    rows = [{option: point.value, **asdict(row)} for point in points for row in point.rows()]
    tables.write_csv(table, rows)
    first = points[0].report
    names = ("engine", "weights", "device", "world", "split", "count", "seed")
    facts = {name: getattr(first, name) for name in names} | {"versions": dict(first.versions)}
    tables.write_json(report, {"option": option, **facts, "scores": rows})


def _write_sheet(path: Path, option: str, points: Sequence[Point]) -> None:
    """The same prompt and the same noise under every value."""
    clips = [np.stack(spread(point.shown, min(COLUMNS, len(point.shown)))) for point in points]
    labels = [f"{option} {point.value:g}: {point.said}" for point in points]
    media.write_contact_sheet(path, clips, labels, scale=max(1, 128 // clips[0].shape[1]))


def _draw(path: Path, option: str, panels: Sequence[str], points: Sequence[Point]) -> None:
    with figures.figure(path, 9.6, 6.4) as drawn:
        for name, axes in zip(panels, drawn.subplots(2, 2).flat, strict=True):
            rows = [next(row for row in point.rows() if row.name == name) for point in points]
            _draw_panel(axes, option, [point.value for point in points], rows)
        first = points[0].report
        drawn.suptitle(f"{first.engine} on {first.count} held-out prompts of {first.world}; bars: 95 % intervals")


def _draw_panel(axes: "Axes", option: str, values: Sequence[float], rows: Sequence[Row]) -> None:
    middle = [row.value for row in rows]
    bars = [[row.value - row.low for row in rows], [row.high - row.value for row in rows]]
    axes.errorbar(values, middle, bars, marker="o", markersize=4, color="#3182bd", ecolor="#9ecae1", capsize=3)
    if option == "steps":
        axes.set_xscale("log", base=2)
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()
    axes.set(title=f"{rows[0].name} ({rows[0].unit}, {rows[0].better} is better)", xlabel=option)
    axes.set_ylim(0, 1.05 if rows[0].better == "higher" else None)  # these are shares
