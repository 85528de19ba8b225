"""What a setting of a diffusion model trades for what: obedience, diversity, steadiness and time, measured."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from kinetograph import media
from kinetograph.engine import OnProgress, Progress, ignore
from kinetograph.errors import InvalidRequest
from kinetograph.evaluation import REPEATED, SEEDS, Exam, Report, Row, Subject, examine, prepare, subject, verdict
from kinetograph.explaining import figures, tables
from kinetograph.explaining.forward import spread
from kinetograph.explaining.reverse import diffusion
from kinetograph.media import Frames
from kinetograph.metrics import bootstrap
from kinetograph.shelf import WORLDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METRICS = ("obeys", "diversity", "flicker")
PANELS = (*METRICS, "seconds")
COLUMNS = 8  # frames of a clip on the sheet
STEPS = (1, 2, 4, 8, 16, 32)
GUIDANCE = (0, 1, 2, 3, 5, 8)
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Point:
    """An engine under one value of a setting: its report, the seconds of each clip, and one clip to look at."""

    value: float
    report: Report
    seconds: tuple[float, ...]
    shown: Frames

    def rows(self) -> list[Row]:
        """Every score, and the median time of a clip with its interval."""
        times = np.array(self.seconds)
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
    engine: str = "flow",
    world: str = "circle",
    prompt: str | None = None,
    count: int = 24,
    options: Mapping[str, Any] = NOTHING,
    seed: int = 0,
    device: str = "auto",
    on_progress: OnProgress = ignore,
) -> None:
    """Examine an engine under each value of one of its options, always with the same prompts and the same noise.

    `count` held-out prompts of the world are asked once, and about a sixth as many under six seeds for the diversity;
    `prompt`, or the first of them, is the one on the sheet. Raises InvalidRequest for an engine without this option and
    for values that it does not take.
    """
    figures.check()
    chosen = _checked(engine, option, values, options)
    exam = _exam(world, count, seed)
    said = exam.questions[0].prompt if prompt is None else prompt
    WORLDS[world].parse(said)  # refuses what the world does not understand
    points = []
    for place, value in enumerate(chosen):

        def tell(p: Progress, before: int = place) -> None:
            on_progress(replace(p, step=before * p.steps + p.step, steps=len(chosen) * p.steps))

        who = subject(engine, device, {**options, option: value})
        points.append(_measure(who, value, exam, said, tell))
    _write_numbers(table, report, option, points)
    _write_sheet(sheet, option, points, said)
    _draw(figure, option, points)


def _checked(engine: str, option: str, values: Sequence[float], options: Mapping[str, Any]) -> list[float]:
    """The values in their order. Raises InvalidRequest for one that the engine does not take."""
    info = diffusion(engine, option)
    if not values:
        raise InvalidRequest(f"no {option} to measure", field="values", hint="give one or more")
    return sorted({info.settled({**options, option: value})[option] for value in values})


def _exam(world: str, count: int, seed: int) -> Exam:
    """Held-out prompts, of which fewer are repeated than in a full exam: it is sat many times."""
    exam = prepare(world, "heldout", count, metrics=METRICS, seed=seed)
    return replace(exam, repeats=exam.repeats[: SEEDS * min(max(2, round(count / SEEDS)), REPEATED)])


def _measure(who: Subject, value: float, exam: Exam, prompt: str, on_progress: OnProgress) -> Point:
    shown, _ = who.make(prompt, exam.seed)  # the first clip warms the engine up and is not timed
    times = []

    def timed(asked: str, seed: int) -> tuple[Frames, float]:
        frames, took = who.make(asked, seed)
        times.append(took)
        return frames, took

    report = examine(replace(who, make=timed), exam, on_progress=on_progress)
    return Point(value=value, report=report, seconds=tuple(times), shown=shown)


def _write_numbers(table: Path, report: Path, option: str, points: Sequence[Point]) -> None:
    """Every score under every value: as a table, and with what it rests on as JSON."""
    rows = [{option: point.value, **asdict(row)} for point in points for row in point.rows()]
    tables.write_csv(table, rows)
    first = points[0].report
    names = ("engine", "weights", "device", "world", "split", "count", "seed")
    facts = {name: getattr(first, name) for name in names} | {"versions": dict(first.versions)}
    tables.write_json(report, {"option": option, **facts, "scores": rows})


def _write_sheet(path: Path, option: str, points: Sequence[Point], prompt: str) -> None:
    """The same prompt and the same noise under every value."""
    world = WORLDS[points[0].report.world]
    clips, labels = [], []
    for point in points:
        clips.append(np.stack(spread(point.shown, min(COLUMNS, len(point.shown)))))
        labels.append(f"{option} {point.value:g}: {verdict(point.shown, prompt, world)}")
    media.write_contact_sheet(path, clips, labels, scale=max(1, 128 // clips[0].shape[1]))


def _draw(path: Path, option: str, points: Sequence[Point]) -> None:
    with figures.figure(path, 9.6, 6.4) as drawn:
        for name, axes in zip(PANELS, drawn.subplots(2, 2).flat, strict=True):
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
