"""/v1/videos: the Videos API, whole. What goes beyond it is in `native`."""

import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from kinetograph.archive import Entry
from kinetograph.engine import EngineInfo
from kinetograph.errors import CannotRead, Conflict, InvalidRequest, UnknownJob
from kinetograph.jobs import Job
from kinetograph.request import VideoRequest
from kinetograph.server import drafts, forms, schemas, uploads, wire
from kinetograph.server.catalogue import continues
from kinetograph.server.desk import Desk, checked, of
from kinetograph.server.forms import Fields
from kinetograph.server.security import Caller
from kinetograph.server.uploads import Upload

router = APIRouter(prefix="/v1/videos", tags=["videos"], responses=schemas.ERRORS)

Variant = Literal["video", "thumbnail", "spritesheet", "gif"]
RANGE = re.compile(r"bytes=(?:([0-9]{1,15})-([0-9]{0,15})|-([0-9]{1,15}))")
KEY = re.compile(r"[\x21-\x7e]{1,255}")
STATES = {  # states of the contract in ours
    "queued": ("queued", "paused"),
    "in_progress": ("in_progress",),
    "completed": ("completed",),
    "failed": ("failed", "cancelled"),
    "paused": ("paused",),
    "cancelled": ("cancelled",),
}


async def answered(request: Request, work: Callable[[Request, Fields], JSONResponse]) -> JSONResponse:
    """Read the body, let a thread do the work, and close the files that came."""
    try:
        fields = await forms.read(request)
        return await run_in_threadpool(work, request, fields)
    finally:
        await request.close()


@router.post("", openapi_extra=schemas.CREATE, response_model=schemas.Video, responses=schemas.VIDEO)
async def create(request: Request) -> JSONResponse:
    """Ask for a video. It is made when its turn comes: ask again by its id, or listen to its events."""
    return await answered(request, _create)


def _create(request: Request, fields: Fields) -> JSONResponse:
    desk, caller = of(request)
    reference = fields.pop("input_reference", None)
    if reference is None or reference == "":
        return _submit(request, desk, caller, fields, desk.catalogue.chosen(fields.get("model")))
    info = _continuing(desk, fields, "input_reference")
    start = uploads.accept(desk.archive, reference, "input_reference")
    return _submit(request, desk, caller, fields, info, start=start)


CONTINUING = "/v1/engines says which engines can: those where continues is true"


@router.post("/edits", openapi_extra=schemas.EDIT, response_model=schemas.Video, responses=schemas.VIDEO)
async def edit(request: Request) -> JSONResponse:
    """Make a video again with another prompt: the same seed and settings, where the video says how it was made.

    One that does not say lends its first frames, to an engine that goes on from frames.
    """
    return await answered(request, _edit)


def _edit(request: Request, fields: Fields) -> JSONResponse:
    desk, caller = of(request)
    job, given = _video(desk, caller, fields)
    if job is not None:
        return _again(request, desk, caller, fields, job, "edit")
    upload = uploads.accept(desk.archive, given, "video")
    made = upload.provenance
    if made is not None and made.engine in desk.catalogue.references and "start" not in made.request.options:
        info = desk.catalogue.chosen(fields.get("model") or made.engine)
        _drop_unused(desk, upload)
        return _submit(request, desk, caller, fields, info, kind="edit", like=made.request)
    info = _continuing(desk, fields, "video")
    return _submit(request, desk, caller, fields, info, kind="edit", start=upload)


@router.post("/extensions", openapi_extra=schemas.EXTEND, response_model=schemas.Video, responses=schemas.VIDEO)
async def extend(request: Request) -> JSONResponse:
    """Go on from a video: the new one holds it and, behind it, `seconds` more."""
    return await answered(request, _extend)


def _extend(request: Request, fields: Fields) -> JSONResponse:
    desk, caller = of(request)
    job, given = _video(desk, caller, fields)
    wanted = {**fields, "model": fields.get("model") or _own(desk, job)}
    info = _continuing(desk, wanted, "video")
    upload = None if job else uploads.accept(desk.archive, given, "video")
    if job is not None:
        upload = uploads.of_clip(desk.archive, _entry(desk, job).video, f"{job.id} {job.token}")
    made = upload.provenance if upload else None
    prompt = made.request.prompt if made and "prompt" not in fields else fields.get("prompt")
    fields = {**fields, "prompt": prompt}
    source = job.id if job else ""
    return _submit(request, desk, caller, fields, info, kind="extend", source=source, start=upload, adding=True)


def _own(desk: Desk, job: Job | None) -> str | None:
    """The engine that made a video, where it can go on from it."""
    info = desk.catalogue.info(job.engine) if job is not None and job.engine in desk.catalogue.references else None
    return info.reference if info is not None and continues(info) else None


def _continuing(desk: Desk, fields: Fields, param: str) -> EngineInfo:
    info = desk.catalogue.chosen(fields.get("model"), continuing=True)
    if not continues(info):
        raise InvalidRequest(f"{info.reference} cannot go on from frames", field=param, hint=CONTINUING)
    return info


def _video(desk: Desk, caller: Caller, fields: Fields) -> tuple[Job | None, Any]:
    """The video that a request speaks of: one of the caller's own, by its id, or else what should be a file."""
    given: Any = fields.pop("video", None)
    id = given.get("id") if isinstance(given, dict) else given
    if isinstance(id, str) and re.fullmatch(r'\s*(\{\s*"id"\s*:\s*)?"?video_[0-9a-f]{32}"?\s*\}?\s*', id):
        job = desk.job(id[id.index("video_") :][:38], caller)
        _check_finished(job)
        return job, None
    if isinstance(given, dict) and "id" in given:
        raise UnknownJob("no video has this id")
    if given in (None, ""):
        raise InvalidRequest("the request lacks its video", field="video", hint="send a file, or the id of a video")
    return None, given


@router.post("/characters", include_in_schema=False)
@router.get("/characters/{character_id}", include_in_schema=False)
def characters() -> JSONResponse:
    """The one part of the contract that no engine here can do: said in its shape."""
    return wire.error(404, "the engines of this server know no characters", code="not_supported")


@router.post("/{video_id}/remix", openapi_extra=schemas.REMIX, response_model=schemas.Video, responses=schemas.VIDEO)
async def remix(request: Request, video_id: str) -> JSONResponse:
    """Make a finished video again with another prompt: same seed, same engine, and the settings that are not given."""
    return await answered(request, partial(_remix, video_id))


def _remix(video_id: str, request: Request, fields: Fields) -> JSONResponse:
    desk, caller = of(request)
    job = desk.job(video_id, caller)
    _check_finished(job)
    if "prompt" not in fields:
        raise InvalidRequest("the request lacks its prompt", field="prompt")
    return _again(request, desk, caller, fields, job, "remix")


def _again(request: Request, desk: Desk, caller: Caller, fields: Fields, job: Job, kind: str) -> JSONResponse:
    info = desk.catalogue.chosen(fields.get("model") or job.engine)
    start = None
    if job.start and continues(info):
        start = _start_again(desk, job)
    return _submit(request, desk, caller, fields, info, kind=kind, like=job.asked, source=job.id, start=start)


def _start_again(desk: Desk, job: Job) -> Upload:
    """What an earlier video went on from, once more."""
    asked = job.asked
    return Upload(job.start, job.start, 1, asked.width, asked.height, asked.fps)


def _submit(
    request: Request,
    desk: Desk,
    caller: Caller,
    fields: Fields,
    info: EngineInfo,
    *,
    kind: str = "create",
    like: VideoRequest | None = None,
    source: str = "",
    start: Upload | None = None,
    adding: bool = False,
) -> JSONResponse:
    key = request.headers.get("idempotency-key")
    if key is not None and not KEY.fullmatch(key):
        raise InvalidRequest("the idempotency key is no short word", field="idempotency-key", hint="a UUID is one")
    try:
        draft = drafts.of(
            fields,
            info,
            owner=caller.owner,
            kind=kind,
            like=like,
            source=source,
            start=start,
            adding=adding,
            most_pixels=desk.settings.most_pixels,
            key=key,
        )
        job = desk.store.submit(
            draft,
            most_queued=caller.most_queued or desk.settings.most_queued,
            most_daily=caller.most_daily,
            repeated=request.headers.get("x-stainless-retry-count", "0") not in ("0", ""),
        )
    finally:
        _drop_unused(desk, start)
    return shown(desk, job)


def _drop_unused(desk: Desk, start: Upload | None) -> None:
    """An upload whose job was refused, or was there already, belongs to nobody."""
    if start is not None and not desk.store.used([start.name]):
        desk.archive.forget("", start.name)


def shown(desk: Desk, job: Job) -> JSONResponse:
    """A job as an answer, with the time after which it is worth asking again."""
    headers = {"openai-poll-after-ms": str(desk.outlook.poll_after(job))}
    return JSONResponse(wire.video(job, desk.outlook), headers=headers)


@router.get("", response_model=schemas.VideoList)
def list_videos(
    request: Request,
    after: Annotated[str | None, Query(description="The last id of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
    status: Annotated[
        Literal["queued", "in_progress", "completed", "failed", "paused", "cancelled"] | None, Query()
    ] = None,
    model: Annotated[str | None, Query(max_length=500)] = None,
    q: Annotated[str, Query(max_length=200, description="Words that must be in the prompt.")] = "",
) -> JSONResponse:
    """Your videos, the newest first unless told otherwise."""
    desk, caller = of(request)
    if "\0" in f"{model or ''}{q}":
        raise InvalidRequest("a text with the character NUL is in no prompt", field="q")
    page = desk.store.jobs(
        caller.owner,
        after=None if after is None else checked(after),
        limit=limit,
        newest_first=order == "desc",
        states=STATES[status] if status else (),
        engine=model,
        words=q,
    )
    return JSONResponse(wire.listed([wire.video(job, desk.outlook) for job in page.jobs], page.more))


@router.get("/{video_id}", response_model=schemas.Video, responses=schemas.VIDEO)
def retrieve(request: Request, video_id: str) -> JSONResponse:
    """One video: where it stands, and how it was asked for. A video that failed is an answer like any other."""
    desk, caller = of(request)
    return shown(desk, desk.job(video_id, caller))


@router.delete("/{video_id}", response_model=schemas.Deleted)
def delete(request: Request, video_id: str) -> JSONResponse:
    """Delete a video; one in the making is given up within a step."""
    desk, caller = of(request)
    job = desk.store.delete(checked(video_id), caller.owner)
    shared = job.start and desk.store.used([job.start])  # by a remix
    desk.archive.forget(job.token if job.state == "completed" else "", "" if shared else job.start)
    return JSONResponse({"id": job.id, "object": "video.deleted", "deleted": True})


@router.get("/{video_id}/content", response_class=FileResponse, responses=schemas.CONTENT)
def content(request: Request, video_id: str, variant: Variant = "video") -> Response:
    """The file: the clip as mp4, or one of its pictures. Ranges are answered."""
    desk, caller = of(request)
    job = desk.job(video_id, caller)
    _check_finished(job)
    entry = _entry(desk, job)
    path, kind = {
        "video": (entry.video, "video/mp4"),
        "thumbnail": (entry.thumbnail, "image/webp"),
        "spritesheet": (entry.spritesheet, "image/jpeg"),
        "gif": (entry.gif, "image/gif"),
    }[variant]
    if variant == "gif":
        _make_gif(entry)
    if not path.is_file():
        raise CannotRead(f"there is no {path}")
    _check_range(request, path.stat().st_size)
    name = f"{job.id}{path.suffix}" if variant in ("video", "gif") else f"{job.id}-{path.name}"
    headers = {"cache-control": "private, max-age=31536000, immutable"}
    return FileResponse(path, media_type=kind, filename=name, content_disposition_type="inline", headers=headers)


def _check_range(request: Request, size: int) -> None:
    """One range is answered; whatever else the header says is as if it were not there, as RFC 9110 has it."""
    said = request.headers.get("range", "")
    match = RANGE.fullmatch(said)
    first, last, end = match.groups() if match else (None, None, None)
    if match is None or (first and last and int(last) < int(first)):
        request.scope["headers"] = [(name, value) for name, value in request.scope["headers"] if name != b"range"]
    elif (first and int(first) >= size) or (end and not int(end)):
        raise HTTPException(416, f"the file has {size} bytes", headers={"content-range": f"bytes */{size}"})


def _check_finished(job: Job) -> None:
    if job.state == "completed":
        return
    code = "video_failed" if job.final else "video_not_ready"
    raise Conflict(f"{job.id} is {job.state}: there is no video of it", code=code)


def _entry(desk: Desk, job: Job) -> Entry:
    return desk.archive.entry(job.token)


def _make_gif(entry: Entry) -> None:
    """Write the gif that somebody asks for, once; in a process of its own, for it takes a processor a while."""
    if not entry.gif.exists():
        command = [sys.executable, "-m", "kinetograph.server.gif", str(entry.video), str(entry.gif)]
        subprocess.run(command, check=False, timeout=120, stdin=subprocess.DEVNULL)
