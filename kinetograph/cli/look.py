"""Commands that only look: what there is, what a file says of itself, and whether it comes out the same again."""

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kinetograph.cli.output import Device, Json, listening, progress, say
from kinetograph.cli.output import table as aligned
from kinetograph.errors import KinetographError

if TYPE_CHECKING:
    from kinetograph.engine import EngineInfo

Reference = Annotated[str, typer.Argument(metavar="REF", help="An engine: `gan`, `gan:runs/mine`, `render:circle`.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="A video.")]


def engines(as_json: Json = False) -> None:
    """List the engines, and the pretrained models that are on this machine: whatever can make a video."""
    from kinetograph.shelf import ENGINES

    here = [reference for name in ENGINES for reference in getattr(ENGINES[name], "references", list)()]
    found = [_engine(name) for name in (*ENGINES, *here)]
    say(
        {"engines": found}, aligned([(row["name"], row.get("summary", row.get("error", ""))) for row in found]), as_json
    )


def _engine(name: str) -> dict[str, Any]:
    """What an engine says of itself; one whose weights are missing is listed all the same."""
    from kinetograph import engine

    try:
        info = engine.describe(name)
        said = {"name": name, "summary": info.summary, "licence": info.licence, "trained": info.trained}
        return said | {"options": _options(info)}
    except KinetographError as error:
        return {"name": name, "error": str(error), "hint": error.hint}


def worlds(as_json: Json = False) -> None:
    """List the worlds: small universes that training and test clips are drawn from."""
    from kinetograph.shelf import WORLDS

    found = [_world(name, WORLDS[name]) for name in WORLDS]
    say({"worlds": found}, [line for world in found for line in _world_lines(world)], as_json)


def _world(name: str, world: ModuleType) -> dict[str, Any]:
    size = {"frames": world.FRAMES, "fps": world.FPS, "width": world.WIDTH, "height": world.HEIGHT}
    attributes = {key: list(values) for key, values in world.ATTRIBUTES.items()}
    return {"name": name, "summary": (world.__doc__ or "").split("\n")[0], **size, "attributes": attributes}


def _world_lines(world: dict[str, Any]) -> list[str]:
    values = [(f"  {name}", ", ".join(values)) for name, values in world["attributes"].items()]
    return [f"{world['name']}  {world['summary']}", *aligned(values)]


def describe(reference: Reference, as_json: Json = False) -> None:
    """Say what one engine can do: sizes, frames, options, licence, weights."""
    from kinetograph import engine

    facts = _facts(engine.describe(reference))
    lines = [(name, _text(value)) for name, value in facts.items() if name != "options"]
    lines += [
        (f"--set {o['name']}=", f"{o['type']}, default {o['default']}. {o['help']}".strip()) for o in facts["options"]
    ]
    say(facts, aligned(lines), as_json)


def _facts(info: "EngineInfo") -> dict[str, Any]:
    names = ["reference", "summary", "licence", "trained", "weights", "width", "height", "frames"]
    names += ["begins", "continues", "edits"]
    sizes = {name: getattr(info.sizes, name) for name in ("minimum", "maximum", "multiple", "square")}
    limits = {"fps": str(info.fps), "sizes": sizes, "min_frames": info.min_frames, "max_frames": info.max_frames}
    limits["frame_step"] = info.frame_step
    return {name: getattr(info, name) for name in names} | limits | {"options": _options(info)}


def _options(info: "EngineInfo") -> list[dict[str, Any]]:
    properties = info.Options.model_json_schema().get("properties", {})
    return [
        {
            "name": name,
            "type": _type(said),
            "default": said.get("default"),
            "help": said.get("description", ""),
        }
        for name, said in properties.items()
    ]


def _type(said: dict[str, Any]) -> str:
    """What kind of value an option takes; one that may be left out says so by its default."""
    kinds = [kind.get("type", "value") for kind in said.get("anyOf", [said]) if kind.get("type") != "null"]
    return " or ".join(kinds)


def _text(value: object) -> str:
    return ", ".join(f"{name} {part}" for name, part in value.items()) if isinstance(value, dict) else str(value)


def info(file: File, as_json: Json = False) -> None:
    """Say what a file holds and, where it knows, how it was made."""
    from kinetograph.video import Video

    video = Video.load(file)
    size = {"frames": len(video.frames), "width": video.width, "height": video.height, "fps": str(video.fps)}
    made = video.provenance.to_dict() if video.provenance else None
    said = _made(made) if made else [("provenance", "none: it does not say how it was made")]
    lines = aligned([*((name, str(value)) for name, value in {"path": file, **size}.items()), *said])
    say({"path": str(file), **size, "duration": float(video.duration), "provenance": made}, lines, as_json)


def _made(said: dict[str, Any]) -> list[tuple[str, str]]:
    """The provenance as lines, without the fingerprint of every single frame."""
    request = [(name, str(value)) for name, value in said["request"].items() if name in ("prompt", "seed", "options")]
    names = (
        "engine",
        "weights",
        "device",
        "seconds",
        "created",
        "ai_generated",
        "enlarged",
        "versions",
        "frames_sha256",
    )
    return [*request, *((name, _text(said[name])) for name in names)]


def reproduce(file: File, device: Device = "auto", as_json: Json = False) -> None:
    """Make a video again from what its file says, and compare the frames; exit 1 where they differ."""
    from kinetograph import engine

    with listening(as_json) as heard, progress("again") as advance:
        outcome = engine.reproduce(file, lambda p: advance(p.step, p.steps, ""), device=device)
    verdict = "the same, frame by frame" if outcome.same else "not the same"
    lines = [f"{file}: {verdict} (mean distance of the pixels: {outcome.distance:.3g} of 255)", *outcome.differences]
    distance = (
        outcome.distance if outcome.distance < 256 else None
    )  # infinite where the sizes differ, which JSON cannot say
    facts = {"path": str(file), "same": outcome.same, "differences": list(outcome.differences), "distance": distance}
    say(facts | {"warnings": heard}, lines, as_json)
    raise typer.Exit(0 if outcome.same else 1)
