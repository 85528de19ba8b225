"""What goes over the wire: videos, errors and lists, as JSON."""

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from fastapi.responses import JSONResponse

from kinetograph.errors import (
    CannotRead,
    CannotWrite,
    Conflict,
    Forbidden,
    InvalidRequest,
    KinetographError,
    QuotaExceeded,
    StoreFull,
    StoreUnavailable,
    UnknownJob,
    UnknownName,
    UnsupportedFormat,
)
from kinetograph.jobs import Job
from kinetograph.server.outlook import Outlook

STATUS = {"paused": "queued", "cancelled": "failed"}  # our states in the words of the contract, where they differ
LONGEST = 500  # characters of a message
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}


def video(job: Job, outlook: Outlook) -> dict[str, Any]:
    """A job as the video object of the contract, and what we tell beyond it."""
    asked = job.asked
    return {
        "id": job.id,
        "object": "video",
        "model": job.engine,
        "status": STATUS.get(job.state, job.state),
        "progress": job.progress,
        "created_at": int(job.created_at),
        "completed_at": _whole(job.finished_at) if job.state == "completed" else None,
        "expires_at": _whole(job.expires_at),
        "size": f"{asked.width}x{asked.height}",
        "seconds": seconds(asked.frames / asked.fps),
        "prompt": job.prompt,
        "remixed_from_video_id": job.source or None,
        "error": {"code": job.error_code, "message": job.error_message} if job.error_code else None,
        "state": job.state,
        "kind": job.kind,
        "step": job.step,
        "steps": job.steps,
        "eta_seconds": outlook.seconds_left(job, time.time()),
        "queue_position": outlook.position(job),
        "attempts": job.attempts,
        "priority": job.priority,
        "started_at": _whole(job.started_at),
        "seed": asked.seed,
        "request": asked.to_dict(),
        "warnings": list(job.warnings),
        "media": job.media,
    }


def _whole(moment: float | None) -> int | None:
    return None if moment is None else int(moment)


def seconds(length: Fraction) -> str:
    """A length as the contract has it, in text: "4", "1.6"."""
    return f"{float(length):.3f}".rstrip("0").rstrip(".")


def listed(videos: Sequence[Mapping[str, Any]], more: bool) -> dict[str, Any]:
    """A page of a list."""
    ends = (videos[0]["id"], videos[-1]["id"]) if videos else (None, None)
    return {"object": "list", "data": list(videos), "first_id": ends[0], "last_id": ends[1], "has_more": more}


def command(job: Job) -> str:
    """The command that makes the same video without a server."""
    asked = job.asked
    words = ["kinetograph", "generate", asked.prompt, "--engine", job.engine, "--seed", str(asked.seed)]
    words += ["--size", f"{asked.width}x{asked.height}", "--frames", str(asked.frames), "--fps", str(asked.fps)]
    for name, value in asked.to_dict()["options"].items():
        words += ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join(words)


# --- errors -------------------------------------------------------------------------------------------------


def error(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """An error in the shape of the contract."""
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    said = {"message": _sayable(message), "type": kind, "param": param and _sayable(param), "code": code}
    return JSONResponse({"error": said}, status, headers=dict(headers or {}))


def _sayable(text: str) -> str:
    """A text that may hold what a stranger sent, short, and without halves of surrogate pairs."""
    short = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return short.encode("utf-8", "replace").decode()


def refusal(problem: KinetographError) -> JSONResponse:
    """An error of ours: what was wrong with the request is told, what went wrong in the server is not."""
    hint = f" ({problem.hint})" if problem.hint else ""
    match problem:
        case InvalidRequest():
            code = {"model": "model_not_found"}.get(problem.field, "invalid_value")
            return error(400, f"{problem}{hint}", param=problem.field or None, code=code)
        case UnsupportedFormat():
            return error(400, "this size does not fit into an mp4", param="size", code="invalid_value")
        case UnknownName():
            return error(404, f"{problem}{hint}", param=problem.kind, code=f"{problem.kind}_not_found")
        case UnknownJob():
            return error(404, str(problem), param="video_id", code="video_not_found")
        case Forbidden():
            return error(403, str(problem), code="forbidden")
        case Conflict():
            # A client that repeats what a state forbids only waits: the state will not change by itself.
            return error(409, f"{problem}{hint}", code=problem.code, headers={"x-should-retry": "false"})
        case QuotaExceeded():
            retry = {"retry-after": str(problem.retry_after)}
            return error(429, f"{problem}{hint}", code="quota_exceeded", headers=retry)
        case StoreUnavailable():
            return error(503, "the queue does not answer just now", code="unavailable", headers={"retry-after": "5"})
        case CannotWrite(full=False):
            return error(503, "the server cannot write to its archive", code="cannot_write")
        case StoreFull() | CannotWrite():
            return error(507, "there is no room left on the server's disk", code="disk_full")
        case CannotRead():
            return error(404, "the file is no longer there", code="file_not_found")
    return error(500, "the server failed", code="internal_error")
