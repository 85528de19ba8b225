"""Schemas: what OpenAPI says about bodies and answers, with examples. The answers themselves are made in `wire`."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

PROMPT = "a red ball moving left"
ID = "video_0f1e2d3c4b5a69788796a5b4c3d2e1f0"


class Fault(BaseModel):
    """Why a request was refused."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class Refusal(BaseModel):
    """The body of every error."""

    error: Fault

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "error": {
                    "message": "gan cannot make 640x360 (nearest: 256x256)",
                    "type": "invalid_request_error",
                    "param": "width",
                    "code": "invalid_value",
                }
            }
        }
    )


class Failure(BaseModel):
    """Why a video could not be made."""

    code: str
    message: str


class Media(BaseModel):
    """What is known of a finished file."""

    bytes: int
    sha256: str
    frames_sha256: str
    generation_seconds: float
    device: str
    weights: str


class Asked(BaseModel):
    """The request, complete: with it the video can be made again."""

    prompt: str
    seed: int
    width: int
    height: int
    frames: int
    fps: str
    options: dict[str, Any]


class Video(BaseModel):
    """A video: waiting, in the making, finished or failed. What stands behind `error` goes beyond the Videos API."""

    id: str
    object: Literal["video"]
    model: str
    status: Literal["queued", "in_progress", "completed", "failed"]
    progress: int = Field(ge=0, le=100)
    created_at: int
    completed_at: int | None
    expires_at: int | None
    size: str
    seconds: str
    prompt: str
    remixed_from_video_id: str | None
    error: Failure | None
    state: Literal["queued", "paused", "in_progress", "completed", "failed", "cancelled"]
    kind: Literal["create", "remix", "edit", "extend"]
    step: int
    steps: int
    eta_seconds: float | None
    queue_position: int | None
    attempts: int
    priority: int
    started_at: int | None
    seed: int
    request: Asked
    warnings: list[str]
    media: Media | None

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": ID,
                "object": "video",
                "model": "gan",
                "status": "queued",
                "progress": 0,
                "created_at": 1_795_000_000,
                "completed_at": None,
                "expires_at": None,
                "size": "64x64",
                "seconds": "1",
                "prompt": PROMPT,
                "remixed_from_video_id": None,
                "error": None,
                "state": "queued",
                "kind": "create",
                "step": 0,
                "steps": 0,
                "eta_seconds": 1.5,
                "queue_position": 1,
                "attempts": 0,
                "priority": 0,
                "started_at": None,
                "seed": 7,
                "request": {
                    "prompt": PROMPT,
                    "seed": 7,
                    "width": 64,
                    "height": 64,
                    "frames": 10,
                    "fps": "10",
                    "options": {},
                },
                "warnings": [],
                "media": None,
            }
        }
    )


class VideoList(BaseModel):
    """A page of videos; the next one begins after `last_id`."""

    object: Literal["list"]
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(BaseModel):
    """A video is gone."""

    id: str
    object: Literal["video.deleted"]
    deleted: Literal[True]


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": text}
    for status, text in {
        400: "A value is wrong: `param` names it, the message says what is possible.",
        401: "No key, or a wrong one.",
        403: "A page of another origin, or a key that may not do this.",
        404: "There is no such thing, or it is somebody else's.",
        405: "Not this method.",
        408: "The body took too long.",
        409: "The state of the video does not allow it.",
        413: "The body is too large.",
        429: "Too many requests: `Retry-After` says when again.",
        503: "The queue does not answer just now: `Retry-After` says when again. Or the archive cannot be written to.",
        507: "The server's disk is full.",
    }.items()
}

CONTENT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file.",
        "content": {kind: {} for kind in ("video/mp4", "image/webp", "image/jpeg", "image/gif")},
    },
    206: {"description": "A part of the file.", "content": {"video/mp4": {}}},
    416: {"model": Refusal, "description": "A range behind the end."},
}


def _links(id: str) -> dict[str, Any]:
    """From one call to the next: the id that comes back is the id that others want."""
    calls = ("retrieve", "content", "recipe", "remix", "cancel", "pause", "resume", "retry", "move", "delete")
    links: dict[str, Any] = {name: {"operationId": name, "parameters": {"video_id": id}} for name in calls}
    said = {"prompt": PROMPT, "video": {"id": id}}
    return links | {name: {"operationId": name, "requestBody": said} for name in ("edit", "extend")}


VIDEO: dict[int | str, dict[str, Any]] = {200: {"description": "The video.", "links": _links("$response.body#/id")}}
ENGINES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The engines.",
        "links": {"engine": {"operationId": "engine", "parameters": {"engine_id": "$response.body#/data/0/id"}}},
    }
}

_NUMBER = {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": "^-?[0-9]+$"}]}
_FIELDS: dict[str, Any] = {
    "prompt": {"type": "string", "minLength": 1, "maxLength": 2000, "description": "What should be seen."},
    "model": {"type": "string", "description": "An engine: /v1/engines lists them."},
    "seconds": {
        "anyOf": [{"type": "string"}, {"type": "number", "exclusiveMinimum": 0}],
        "description": "How long; by default what the engine was made for.",
    },
    "size": {"type": "string", "pattern": "^[0-9]{1,9}x[0-9]{1,9}$", "description": "Width and height in pixels."},
    "seed": {**_NUMBER, "description": "The same seed, the same video; by default one is drawn."},
    "frames": {**_NUMBER, "description": "How many frames, instead of `seconds`."},
    "fps": {"anyOf": [{"type": "number"}, {"type": "string"}], "description": "10, 29.97 or 30000/1001."},
    "priority": {**_NUMBER, "description": "Among your own videos: higher ones come first."},
}
_REFERENCE = {"image_url": {"type": "string", "description": "A data URL; addresses are not fetched."}}
_JSON_REFERENCE = {"type": "object", "properties": _REFERENCE}
_FILE = {"type": "string", "format": "binary", "description": "PNG, JPEG, WebP, mp4 or webm."}
_BY_ID = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}


def _body(required: list[str], form: dict[str, Any], plain: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    """A body that comes as a form or as JSON. Options of the engine stand beside the other fields."""

    def schema(more: dict[str, Any]) -> dict[str, Any]:
        said = {"type": "object", "properties": {**_FIELDS, **more}, "required": required}
        return {"schema": {**said, "additionalProperties": True}, "example": example}

    content = {"application/json": schema(plain), "multipart/form-data": schema(form)}
    return {"requestBody": {"required": True, "content": content}}


CREATE = _body(
    ["prompt"],
    {"input_reference": _FILE},
    {"input_reference": _JSON_REFERENCE},
    {"prompt": PROMPT, "model": "gan", "seconds": "1", "size": "64x64", "seed": 7},
)
REMIX = _body(["prompt"], {}, {}, {"prompt": "a blue ball moving left"})
EDIT = _body(
    ["prompt", "video"], {"video": _FILE}, {"video": _BY_ID}, {"prompt": "a blue ball moving left", "video": {"id": ID}}
)
EXTEND = _body(
    ["video"], {"video": _FILE}, {"video": _BY_ID}, {"prompt": "it goes on", "seconds": "1", "video": {"id": ID}}
)
MOVE = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "to": {"type": "string", "enum": ["front", "back"]},
                        "before": {"type": "string"},
                        "after": {"type": "string"},
                    },
                    "additionalProperties": False,
                    "minProperties": 1,
                    "maxProperties": 1,
                },
                "example": {"to": "front"},
            }
        },
    }
}
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Server-sent events: video, preview, deleted.", "content": {"text/event-stream": {}}}
}
METRICS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The figures.", "content": {"text/plain": {}}},
    **{status: ERRORS[status] for status in (401, 429, 503)},
}
