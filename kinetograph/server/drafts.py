"""Drafts: the fields of a request become a job, or an error that names the field."""

import hashlib
import json
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from kinetograph import archive
from kinetograph.engine import EngineInfo, closed
from kinetograph.errors import InvalidRequest
from kinetograph.jobs import Draft
from kinetograph.request import VideoRequest, parse_fps, parse_size
from kinetograph.server.forms import Fields
from kinetograph.server.uploads import Upload

RENAMED = {  # what the fields are called elsewhere
    "num_frames": "frames",
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
}
UPLOADS = ("input_reference", "video")
MOST_PRIORITY = 100


def of(
    fields: Fields,
    info: EngineInfo,
    *,
    owner: str,
    kind: str = "create",
    like: VideoRequest | None = None,
    source: str = "",
    start: Upload | None = None,
    into: str = "",
    adding: bool = False,
    most_pixels: int,
    key: str | None = None,
) -> Draft:
    """A draft of what the fields ask for; what they leave open is as in `like`, or as the engine has it.

    `into` is the option that takes `start`. With `adding`, `seconds` and `frames` are what comes behind it. Raises
    InvalidRequest, which names the field.
    """
    said = {RENAMED.get(name, name): value for name, value in fields.items() if name not in UPLOADS}
    if len(said) != len([name for name in fields if name not in UPLOADS]):
        raise InvalidRequest("a field comes under two names", field=next(n for n in fields if n in RENAMED))
    said.pop("model", None), said.pop("user", None)
    _check_count(said)
    priority = _integer(said.pop("priority", 0), "priority")
    if not -MOST_PRIORITY <= priority <= MOST_PRIORITY:
        raise InvalidRequest(
            f"priority is {priority}", field="priority", hint=f"from {-MOST_PRIORITY} to {MOST_PRIORITY}"
        )
    changed = start is not None and into == info.edits
    shown = None if changed and said.get("fit") else start  # what is resampled says nothing of sizes and rates
    settings = _settings(said, info, like, shown, adding, changed)
    options = {**(_options_of(like, info) if like else {}), **_options(said, info)}
    if start:
        options[into] = start.name
    request = info.request(**settings, options=options)
    _check_cost(request, most_pixels)
    digest = _digest(owner, kind, source, info.reference, fields, start)
    return Draft(
        engine=info.reference,
        request=request,
        owner=owner,
        kind=kind,
        source=source,
        start=start.name if start else "",
        priority=priority,
        idempotency_key=key,
        digest=digest,
    )


def _settings(
    said: Fields, info: EngineInfo, like: VideoRequest | None, start: Upload | None, adding: bool, changed: bool
) -> dict[str, Any]:
    """Prompt, seed, size, rate and length, taken out of the fields. What is `changed` stays as long as it is."""
    if "prompt" not in said and like is None:
        raise InvalidRequest("the request lacks its prompt", field="prompt")
    settings: dict[str, Any] = {"prompt": said.pop("prompt", like.prompt if like else None)}
    settings["seed"] = _integer(said.pop("seed"), "seed") if _given(said, "seed") else (like.seed if like else None)
    settings["width"], settings["height"] = _size(said, like, start)
    rate = _fps(said.pop("fps")) if _given(said, "fps") else None
    settings["fps"] = rate or (start.fps if start and start.fps else None) or (like.fps if like else info.fps)
    length = _length(said, settings["fps"])
    if adding and start:
        more = info.frames if length is None else length
        if more < 1:
            raise InvalidRequest(f"frames is {more}: nothing is added", field="frames", hint="nearest: 1")
        settings["frames"] = start.frames + more
    elif length is not None:
        settings["frames"] = length
    else:
        own = start if start and changed else like
        settings["frames"] = own.frames if own else info.frames
    return settings


def _given(said: Fields, name: str) -> bool:
    if name in said and (said[name] is None or said[name] == ""):
        del said[name]
    return name in said


def _size(said: Fields, like: VideoRequest | None, start: Upload | None) -> tuple[int | None, int | None]:
    size = said.pop("size") if _given(said, "size") else None
    width = _integer(said.pop("width"), "width") if _given(said, "width") else None
    height = _integer(said.pop("height"), "height") if _given(said, "height") else None
    if size is not None:
        if not isinstance(size, str):
            raise InvalidRequest("size is no text", field="size", hint="write it as 64x48")
        both = parse_size(size)
        if (width or both[0], height or both[1]) != both:
            raise InvalidRequest(f"size is {size}, width and height say something else", field="size")
        return both
    others = (start.width, start.height) if start else (like.width, like.height) if like else (None, None)
    return others[0] if width is None else width, others[1] if height is None else height


def _length(said: Fields, fps: Fraction) -> int | None:
    """How many frames are asked for, by `seconds` or by `frames`."""
    frames = _integer(said.pop("frames"), "frames") if _given(said, "frames") else None
    if not _given(said, "seconds"):
        return frames
    seconds = _seconds(said.pop("seconds"))
    asked = max(1, round(seconds * fps))
    if frames is not None and frames != asked:
        hint = f"{float(seconds):g} seconds at {fps} frames per second are {asked} frames"
        raise InvalidRequest(f"frames is {frames}, and seconds says something else", field="seconds", hint=hint)
    return asked


def _seconds(value: object) -> Fraction:
    text = str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text) or not Fraction(text):
        hint = 'a number of seconds above zero, as text: "4"'
        raise InvalidRequest(f"seconds is {str(value)[:40]!r}", field="seconds", hint=hint)
    return Fraction(text)


def _fps(value: object) -> Fraction:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidRequest("fps is no rate", field="fps", hint="write it as 10, 29.97 or 30000/1001")
    return parse_fps(str(value))


def _integer(value: object, name: str) -> Any:
    """A whole number, which a form has as text; the request itself refuses what is none."""
    if isinstance(value, str):
        if not re.fullmatch(r"\s*[+-]?[0-9]{1,30}\s*", value):
            raise InvalidRequest(f"{name} is {value[:40]!r}, not a whole number", field=name)
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequest(f"{name} is {str(value)[:40]}, not a whole number", field=name)
    return value


def _check_count(said: Fields) -> None:
    """One request is one video here, and nothing else is made of it in silence."""
    for name in ("n", "num_outputs_per_prompt"):
        if _given(said, name) and _integer(said.pop(name), name) != 1:
            raise InvalidRequest(f"{name} is not 1", field=name, hint="send one request for each video")


def _options(said: Mapping[str, Any], info: EngineInfo) -> dict[str, Any]:
    hidden = closed(info.Options)
    for name, value in said.items():
        if name in hidden:
            frames = name in info.frame_options
            hint = "send it as input_reference" if frames else "the operator's files are not for clients"
            raise InvalidRequest(f"the option {name} may name a file of the server", field=name, hint=hint)
        if not _plain(value):
            raise InvalidRequest(f"the option {name} is no text, number, truth value or list", field=name)
    return dict(said)


def _plain(value: object) -> bool:
    if isinstance(value, list):
        return all(_plain(item) and not isinstance(item, list) for item in value)
    if isinstance(value, str):  # NUL and halves of surrogate pairs cannot be stored everywhere
        return "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)
    return isinstance(value, int | float)


def _options_of(like: VideoRequest, info: EngineInfo) -> dict[str, Any]:
    """The options of an earlier request that this engine has too."""
    own = set(info.Options.model_fields) - closed(info.Options)
    return {name: value for name, value in like.options.items() if name in own}


def _check_cost(request: VideoRequest, most_pixels: int) -> None:
    archive.check_size(request.width, request.height)
    pixels = request.width * request.height
    if pixels * request.frames > most_pixels:
        message = f"{request.width}x{request.height}x{request.frames} is more than a video may have on this server"
        raise InvalidRequest(message, field="frames", hint=f"nearest: {max(1, most_pixels // pixels)}")


def _digest(owner: str, kind: str, source: str, engine: str, fields: Fields, start: Upload | None) -> str:
    """What was asked, in one line: two requests that ask for the same have the same."""
    plain = {name: value for name, value in fields.items() if name not in UPLOADS}
    said = [owner, kind, source, engine, plain, start.digest if start else ""]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()
