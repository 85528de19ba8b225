"""`kinetograph generate`: one prompt to one file, or a file of prompts to a folder."""

import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from kinetograph.cli.output import (
    DEFAULT_CONTINUER,
    DEFAULT_EDITOR,
    DEFAULT_ENGINE,
    Device,
    Json,
    listening,
    progress,
    say,
    speaks,
)
from kinetograph.errors import InvalidRequest
from kinetograph.language import tokens
from kinetograph.request import VideoRequest, parse_fps, parse_size

if TYPE_CHECKING:
    from kinetograph.batch import Entry, Outcome
    from kinetograph.credentials import Certificate
    from kinetograph.video import Provenance, Video

LONGEST_NAME = 48  # characters of the prompt in a file name: four bytes each at most, file systems take 255

Prompt = Annotated[str | None, typer.Argument(help="What should be seen, in quotes.", show_default=False)]
Engine = Annotated[str, typer.Option("--engine", metavar="REF", help="Who makes it: `kinetograph engines` lists them.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="The file; its suffix is the format. By default the prompt's words and the seed, mp4."),
]
Prompts = Annotated[Path | None, typer.Option("--prompts", help="A file with one prompt a line, instead of PROMPT.")]
OutDir = Annotated[
    Path | None, typer.Option("--out-dir", help="With --prompts: the folder; what was interrupted goes on.")
]
Format = Annotated[
    str | None, typer.Option("--format", help="With --prompts: mp4 (the default), webm, gif, webp, apng, png or npz.")
]
FromImage = Annotated[
    Path | None,
    typer.Option("--from-image", help="A picture that comes first and is set in motion; its size is taken."),
]
Clip = Annotated[Path, typer.Argument(help="The clip to go on from.", show_default=False)]
Next = Annotated[
    str | None,
    typer.Argument(help="What should happen next; by default what the clip was made from.", show_default=False),
]
More = Annotated[int | None, typer.Option("--frames", min=1, help="How many frames to add; by default as many again.")]
Controls = Annotated[
    list[str] | None,
    typer.Option("--control", metavar="KIND=FILE", help="A clip to obey: KIND is edge, depth, pose or plain."),
]
Source = Annotated[Path, typer.Argument(metavar="CLIP", help="The clip to edit.", show_default=False)]
Instruction = Annotated[str | None, typer.Argument(help="What to make of it, in quotes.", show_default=False)]
Strength = Annotated[
    float | None,
    typer.Option("--strength", help="How far it may go from the clip, 0 to 1; not for models that take instructions."),
]
Fitting = Annotated[str, typer.Option("--fit", help="Resample the clip to --size and --fps: crop or stretch.")]
Begin = Annotated[float, typer.Option("--begin", min=0, help="With --fit: the second of the clip to begin at.")]
Seed = Annotated[
    int | None,
    typer.Option("--seed", help="By default one is drawn and printed. With --prompts, line n gets seed + n."),
]
Count = Annotated[int | None, typer.Option("--frames", help="How many frames.")]
Fps = Annotated[str | None, typer.Option("--fps", help="Frames per second: 10, 29.97 or 30000/1001.")]
Size = Annotated[str | None, typer.Option("--size", help="Width and height in pixels: 64x64.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option of the engine; may be repeated.")
]
Budget = Annotated[
    str | None,
    typer.Option("--memory-budget", metavar="SIZE", help="8GB: a pretrained model chooses what fits, and says what."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")]
NoProvenance = Annotated[
    bool, typer.Option("--no-provenance", help="Leave prompt, engine and seed out of the file and its name.")
]
Cert = Annotated[
    Path | None,
    typer.Option("--c2pa-cert", metavar="PEM", help="Sign the file (C2PA): the chain of certificates, and the key."),
]
Key = Annotated[Path | None, typer.Option("--c2pa-key", metavar="PEM", help="The key, where it is in another file.")]
NoEnlarge = Annotated[
    bool, typer.Option("--no-enlarge", help="One pixel for one: small mp4 and webm clips are else enlarged by 4.")
]


def generate(
    prompt: Prompt = None,
    engine: Engine = DEFAULT_ENGINE,
    out: Out = None,
    prompts: Prompts = None,
    out_dir: OutDir = None,
    format: Format = None,
    seed: Seed = None,
    frames: Count = None,
    fps: Fps = None,
    size: Size = None,
    options: Set = None,
    memory_budget: Budget = None,
    from_image: FromImage = None,
    control: Controls = None,
    device: Device = "auto",
    force: Force = False,
    no_provenance: NoProvenance = False,
    no_enlarge: NoEnlarge = False,
    c2pa_cert: Cert = None,
    c2pa_key: Key = None,
    as_json: Json = False,
) -> None:
    """Make a video from a sentence, or with --prompts one from every line of a file."""
    settings = settings_of(frames, fps, size, options or (), memory_budget)
    if from_image is not None:
        from kinetograph import continuation

        settings = continuation.from_picture(from_image).settings(**settings)
    if control:
        from kinetograph import controls

        settings = controls.settings([*map(controls.Control.parse, control)], **settings)
    saving = {"provenance": not no_provenance, "enlarge": 1 if no_enlarge else None, "overwrite": force}
    signature = (c2pa_cert, c2pa_key)
    asked = {"seed": seed, **settings}
    _produce(engine, prompt, out, prompts, out_dir, format, asked, saving, device, as_json, signature)


def extend(
    clip: Clip,
    prompt: Next = None,
    engine: Engine = DEFAULT_CONTINUER,
    out: Out = None,
    seed: Seed = None,
    frames: More = None,
    options: Set = None,
    memory_budget: Budget = None,
    device: Device = "auto",
    force: Force = False,
    no_provenance: NoProvenance = False,
    no_enlarge: NoEnlarge = False,
    c2pa_cert: Cert = None,
    c2pa_key: Key = None,
    as_json: Json = False,
) -> None:
    """Go on from a clip: the result is the clip and what comes after it."""
    from kinetograph import continuation

    start = continuation.from_clip(clip)
    settings = start.settings(
        **settings_of(len(start.frames) + (frames or len(start.frames)), None, None, options or (), memory_budget)
    )
    saving = {"provenance": not no_provenance, "enlarge": 1 if no_enlarge else None, "overwrite": force}
    with listening(as_json) as heard:
        asked = {"seed": seed, **settings}
        signing = _signer(c2pa_cert, c2pa_key)
        _one(engine, prompt or start.prompt, out, asked, saving, device, as_json, heard, signing)


def edit(
    clip: Source,
    prompt: Instruction = None,
    engine: Engine = DEFAULT_EDITOR,
    out: Out = None,
    prompts: Prompts = None,
    out_dir: OutDir = None,
    format: Format = None,
    strength: Strength = None,
    seed: Seed = None,
    frames: Count = None,
    fps: Fps = None,
    size: Size = None,
    fit: Fitting = "",
    begin: Begin = 0.0,
    control: Controls = None,
    options: Set = None,
    memory_budget: Budget = None,
    device: Device = "auto",
    force: Force = False,
    no_provenance: NoProvenance = False,
    no_enlarge: NoEnlarge = False,
    c2pa_cert: Cert = None,
    c2pa_key: Key = None,
    as_json: Json = False,
) -> None:
    """Edit a clip: by an instruction ("make it Van Gogh") for a model that takes those, else by what should be seen.

    With --prompts, every line of a file makes a clip of its own.
    """
    from kinetograph import controls, footage

    settings = settings_of(frames, fps, size, options or (), memory_budget)
    settings["options"] |= {} if strength is None else {"strength": strength}
    settings = footage.from_source(clip, footage.fit(fit), begin, **settings)
    settings = controls.settings([*map(controls.Control.parse, control or ())], **settings)
    saving = {"provenance": not no_provenance, "enlarge": 1 if no_enlarge else None, "overwrite": force}
    signature = (c2pa_cert, c2pa_key)
    asked = {"seed": seed, **settings}
    _produce(engine, prompt, out, prompts, out_dir, format, asked, saving, device, as_json, signature)


def _produce(
    engine: str,
    prompt: str | None,
    out: Path | None,
    prompts: Path | None,
    out_dir: Path | None,
    format: str | None,
    settings: dict[str, Any],
    saving: dict[str, Any],
    device: str,
    as_json: bool,
    signature: tuple[Path | None, Path | None],
) -> None:
    """One prompt to one file, or a file of prompts to a folder; which, is said by what is given."""
    one, many = prompt is not None, prompts is not None and out_dir is not None
    if one == many or (one and (prompts or out_dir or format)) or (many and out):
        hint = "give either a PROMPT (and --out), or --prompts FILE and --out-dir DIR (and --format)"
        raise InvalidRequest("what is to be made is not clear", field="prompt", hint=hint)
    if many and signature[0] is not None:
        hint = "sign the finished clips: kinetograph sign CLIPS --c2pa-cert PEM"
        raise InvalidRequest("--c2pa-cert signs one clip", field="c2pa-cert", hint=hint)
    with listening(as_json) as heard:
        if prompt is not None:
            _one(engine, prompt, out, settings, saving, device, as_json, heard, _signer(*signature))
        elif prompts is not None and out_dir is not None:
            seed = settings.pop("seed")
            how = {"seed": seed, "format": format or "mp4", "settings": settings, "device": device, **saving}
            _many(engine, prompts, out_dir, how, as_json, heard)


def _signer(cert: Path | None, key: Path | None) -> "Certificate | None":
    """The certificate that signs, read before anything is made."""
    if cert is None:
        if key is not None:
            raise InvalidRequest("--c2pa-key goes with --c2pa-cert", field="c2pa-key")
        return None
    from kinetograph import credentials

    return credentials.certificate(cert, key)


def settings_of(
    frames: int | None, fps: str | None, size: str | None, options: Sequence[str], memory_budget: str | None = None
) -> dict[str, Any]:
    """What a request may be told, from how the command line says it; None is left to the engine."""
    width, height = (None, None) if size is None else parse_size(size)
    rate = None if fps is None else parse_fps(fps)
    said = dict(map(option, options)) | ({} if memory_budget is None else {"memory_budget": memory_budget})
    return {"frames": frames, "fps": rate, "width": width, "height": height, "options": said}


def option(text: str) -> tuple[str, Any]:
    """A KEY=VALUE of the command line, the value as JSON where it is some."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise InvalidRequest(f"--set {text!r} is no setting", field="options", hint="write it as key=value")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value  # a word needs no quotes


# --- one --------------------------------------------------------------------------------------------------------------


def _one(
    reference: str,
    prompt: str,
    out: Path | None,
    settings: Mapping[str, Any],
    saving: dict[str, Any],
    device: str,
    as_json: bool,
    heard: list[str],
    signing: "Certificate | None",
) -> None:
    from kinetograph import engine as engines

    request = engines.describe(reference).request(prompt, **settings)
    path = out or Path(_name(request, secret=not saving["provenance"]))
    _check(path, request, saving, signing is not None)
    with progress(reference) as advance:
        video = engines.generate(reference, request, lambda p: advance(p.step, p.steps, ""), device=device)
    if request.options.get("context_parallel", 1) != 1 and not speaks():  # the clip is one that all of them made
        return
    if signing is None:
        video.save(path, **saving)
    else:
        from kinetograph import credentials

        credentials.save(video, path, signing, **saving)
    _say_video(path, video, as_json, heard)


def _name(request: VideoRequest, secret: bool = False) -> str:
    """The file's name where none is given; of a secret request it says neither the prompt nor the seed."""
    if secret:
        return f"clip-{secrets.token_hex(4)}.mp4"
    words = "-".join(tokens(request.prompt))[:LONGEST_NAME].strip("-") or "clip"
    return f"{words}-{request.seed}.mp4"


def _check(path: Path, request: VideoRequest, saving: Mapping[str, Any], signed: bool) -> None:
    """Refuse now what could not be saved later."""
    from kinetograph import media

    if signed:
        from kinetograph import credentials

        credentials.check(path)
    usual = media.enlargement(request.width, request.height, path.suffix)
    scale = usual if saving["enlarge"] is None else saving["enlarge"]
    media.check_target(path, request.width, request.height, enlarge=scale, overwrite=saving["overwrite"])


def _say_video(path: Path, video: "Video", as_json: bool, heard: list[str]) -> None:
    made = cast("Provenance", video.provenance)  # engine.generate stamps every video
    lines = [str(path), f"seed {made.request.seed}, {_measures(video)}, made by {made.engine} in {made.seconds:.2f} s"]
    say(_facts(path, video, made) | {"warnings": heard}, lines, as_json)


def _measures(video: "Video") -> str:
    return f"{len(video.frames)} frames of {video.width}x{video.height} at {video.fps} fps"


def _facts(path: Path, video: "Video", made: "Provenance") -> dict[str, Any]:
    return {
        "path": str(path),
        "engine": made.engine,
        **made.request.to_dict(),
        "seconds": made.seconds,
        "device": made.device,
        "weights": made.weights,
        "frames_sha256": made.frames_sha256,
        "ai_generated": made.trained,
    }


# --- many -------------------------------------------------------------------------------------------------------------


def _many(
    reference: str, prompts: Path, out_dir: Path, how: Mapping[str, Any], as_json: bool, heard: list[str]
) -> None:
    from kinetograph import batch

    asked = batch.read_prompts(prompts)
    with progress(reference) as advance:

        def tell(entry: batch.Entry) -> None:
            advance(entry.index + 1, len(asked), "")
            if entry.error and not as_json:
                say_failure(entry)

        outcome = batch.run(reference, asked, out_dir, on_entry=tell, **how)
    say_outcome(reference, outcome, as_json, heard)


def say_failure(entry: "Entry") -> None:
    """Tell at once of a prompt that could not be made."""
    hint = f"\nhint: {entry.hint}" if entry.hint else ""
    typer.echo(f"error: prompt {entry.index}: {entry.error}{hint}", err=True)


def say_outcome(reference: str, outcome: "Outcome", as_json: bool, heard: list[str]) -> None:
    """Print what came of a batch; exit 1 where a prompt could not be made."""
    from kinetograph import batch

    folder = outcome.folder
    failed = [{"index": e.index, "prompt": e.prompt, "error": e.error, "hint": e.hint} for e in outcome.failed]
    lines = [
        str(folder),
        f"seed {outcome.seed}: {outcome.made} made, {outcome.kept} there already, {len(failed)} failed",
    ]
    facts = {
        "folder": str(folder),
        "manifest": str(folder / batch.MANIFEST),
        "engine": reference,
        "seed": outcome.seed,
    }
    say({**facts, "made": outcome.made, "kept": outcome.kept, "failed": failed, "warnings": heard}, lines, as_json)
    if failed:
        raise typer.Exit(1)
