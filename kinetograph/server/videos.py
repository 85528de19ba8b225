"""/v1/videos: the Videos API, whole. What goes beyond it is in `native`."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from kinetograph.archive import Entry
from kinetograph.engine import EngineInfo
from kinetograph.errors import CannotRead, Conflict, InvalidRequest, UnknownJob
from kinetograph.jobs import Job
from kinetograph.request import VideoRequest
from kinetograph.server import drafts, forms, schemas, uploads, wire
from kinetograph.server.catalogue import BEGINS, CONTINUES, EDITS, Ability
from kinetograph.server.desk import Desk, checked, of
from kinetograph.server.forms import Fields
from kinetograph.server.routing import Router
from kinetograph.server.security import Caller
from kinetograph.server.uploads import Upload
from kinetograph.video import Provenance

router = Router(prefix="/v1/videos", tags=["videos"], responses=schemas.ERRORS)

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
    info = _able(desk, fields, BEGINS, "input_reference")
    with _held(desk, uploads.accept(desk.archive, reference, "input_reference")) as start:
        return _submit(request, desk, caller, fields, info, start=start, into=_option(info, start, "input_reference"))


def _option(info: EngineInfo, start: Upload, field: str) -> str:
    """The option of an engine that takes what somebody sent. Raises InvalidRequest for a clip where it takes none."""
    option = (info.begins if start.frames == 1 else info.continues) or info.edits
    if not option:
        hint = f"it has {start.frames} frames"
        raise InvalidRequest(f"{info.reference} takes a picture, not a clip", field=field, hint=hint)
    return option


@router.post("/edits", openapi_extra=schemas.EDIT, response_model=schemas.Video, responses=schemas.VIDEO)
async def edit(request: Request) -> JSONResponse:
    """Change a video: an engine that can makes another one out of its frames, as far from them as `strength` says.

    The engine is the one that is named, or else the one that made the video. Where that cannot, the video is made again
    with another prompt, the same seed and settings. A foreign file is for the first engine that changes clips; where
    there is none it lends its frames to one that goes on from frames.
    """
    return await answered(request, _edit)


def _edit(request: Request, fields: Fields) -> JSONResponse:
    desk, caller = of(request)
    job, given = _video(desk, caller, fields)
    if job is None:
        with _held(desk, uploads.accept(desk.archive, given, "video")) as file:
            return _edit_file(request, desk, caller, fields, file)
    info = desk.catalogue.chosen(fields.get("model") or job.engine)
    if not info.edits:
        return _again(request, desk, caller, fields, job, "edit")
    how: dict[str, Any] = {"kind": "edit", "like": job.asked, "source": job.id}
    with _held(desk, _copy(desk, job)) as clip:
        return _submit(request, desk, caller, fields, info, start=clip, into=info.edits, **how)


def _edit_file(request: Request, desk: Desk, caller: Caller, fields: Fields, file: Upload) -> JSONResponse:
    made = file.provenance if file.provenance and file.provenance.engine in desk.catalogue.references else None
    like, named = made.request if made else None, fields.get("model")
    if named or made:
        info: EngineInfo | None = desk.catalogue.chosen(named or (made and made.engine))
    else:
        info = desk.catalogue.first(EDITS)
    if info and info.edits and file.frames > 1:
        return _submit(request, desk, caller, fields, info, kind="edit", like=like, start=file, into=info.edits)
    if info and made and like and not _leans(desk, made):
        return _submit(request, desk, caller, fields, info, kind="edit", like=like)
    info = _able(desk, fields, BEGINS, "video")
    return _submit(request, desk, caller, fields, info, kind="edit", start=file, into=_option(info, file, "video"))


def _leans(desk: Desk, made: Provenance) -> bool:
    """Whether a video was made with frames, which its file does not bring."""
    maker = desk.catalogue.info(made.engine)
    return maker is None or any(made.request.options.get(name) for name in maker.frame_options)


@router.post("/extensions", openapi_extra=schemas.EXTEND, response_model=schemas.Video, responses=schemas.VIDEO)
async def extend(request: Request) -> JSONResponse:
    """Go on from a video: the new one holds it and, behind it, `seconds` more."""
    return await answered(request, _extend)


def _extend(request: Request, fields: Fields) -> JSONResponse:
    desk, caller = of(request)
    job, given = _video(desk, caller, fields)
    wanted = {**fields, "model": fields.get("model") or _own(desk, job)}
    info = _able(desk, wanted, CONTINUES, "video")
    how: dict[str, Any] = {"kind": "extend", "source": job.id if job else "", "adding": True}
    with _held(desk, _copy(desk, job) if job else uploads.accept(desk.archive, given, "video")) as clip:
        made = clip.provenance
        prompt = made.request.prompt if made and "prompt" not in fields else fields.get("prompt")
        asked = {**fields, "prompt": prompt}
        return _submit(request, desk, caller, asked, info, start=clip, into=info.continues, **how)


def _own(desk: Desk, job: Job | None) -> str | None:
    """The engine that made a video, where it can go on from it."""
    info = desk.catalogue.info(job.engine) if job is not None and job.engine in desk.catalogue.references else None
    return info.reference if info is not None and info.continues else None


def _able(desk: Desk, fields: Fields, ability: Ability, param: str) -> EngineInfo:
    info = desk.catalogue.chosen(fields.get("model"), ability)
    if not ability.of(info):
        hint = "/v1/engines says which engines can: see begins, continues and edits"
        raise InvalidRequest(f"{info.reference} cannot {ability.verb}", field=param, hint=hint)
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
    into = _place_again(desk, job, info) if job.start else ""
    asked = job.asked
    start = Upload(job.start, job.start, asked.frames, asked.width, asked.height, asked.fps) if into else None
    how: dict[str, Any] = {"kind": kind, "like": asked, "source": job.id}
    return _submit(request, desk, caller, fields, info, start=start, into=into, **how)


def _place_again(desk: Desk, job: Job, info: EngineInfo) -> str:
    """The option that takes what an earlier video was made with, "" where the engine has none for it."""
    if info.reference == job.engine:
        return job.leans
    before = desk.catalogue.info(job.engine) if job.engine in desk.catalogue.references else None
    changed = before is not None and job.leans == before.edits
    return info.edits if changed else info.begins if job.start.endswith(".png") else info.continues


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
    into: str = "",
    adding: bool = False,
) -> JSONResponse:
    key = request.headers.get("idempotency-key")
    if key is not None and not KEY.fullmatch(key):
        raise InvalidRequest("the idempotency key is no short word", field="idempotency-key", hint="a UUID is one")
    draft = drafts.of(
        fields,
        info,
        owner=caller.owner,
        kind=kind,
        like=like,
        source=source,
        start=start,
        into=into,
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
    return shown(desk, job)


def _copy(desk: Desk, job: Job) -> Upload:
    """A finished video as an upload, which stays when the video is deleted."""
    return uploads.of_clip(desk.archive, _entry(desk, job).video, f"{job.id} {job.token}")


@contextmanager
def _held(desk: Desk, upload: Upload) -> Iterator[Upload]:
    """Have an upload while a job is made of it. One whose job was refused, or was there already, belongs to nobody."""
    try:
        yield upload
    finally:
        if not desk.store.used([upload.name]):
            desk.archive.forget("", upload.name)


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
    """One range of a GET is answered; whatever else the header says is as if it were not there (RFC 9110, 14.2)."""
    said = request.headers.get("range", "") if request.method == "GET" else ""
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
