"""What goes beyond the Videos API: engines, events, the queue, health and figures."""

import asyncio
from contextlib import suppress
from functools import partial
from typing import Annotated, Any

from fastapi import Header, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse

from kinetograph.errors import Forbidden, InvalidRequest, KinetographError, UnknownJob, UnknownName
from kinetograph.jobs import Job
from kinetograph.server import events, schemas, wire
from kinetograph.server.desk import Desk, checked, of
from kinetograph.server.forms import Fields
from kinetograph.server.routing import Router
from kinetograph.server.videos import answered, shown

router = Router(prefix="/v1", responses=schemas.ERRORS)
health = Router(tags=["health"])


# --- one video ----------------------------------------------------------------------------------------------


@router.post("/videos/{video_id}/cancel", tags=["videos"], response_model=schemas.Video, responses=schemas.VIDEO)
def cancel(request: Request, video_id: str) -> JSONResponse:
    """Give a video up and keep its record; one in the making stops within a step."""
    desk, caller = of(request)
    return shown(desk, desk.store.cancel(checked(video_id), caller.owner))


@router.post("/videos/{video_id}/pause", tags=["videos"], response_model=schemas.Video, responses=schemas.VIDEO)
def pause(request: Request, video_id: str) -> JSONResponse:
    """Hold a waiting video back."""
    desk, caller = of(request)
    return shown(desk, desk.store.pause(checked(video_id), caller.owner))


@router.post("/videos/{video_id}/resume", tags=["videos"], response_model=schemas.Video, responses=schemas.VIDEO)
def resume(request: Request, video_id: str) -> JSONResponse:
    """Let it wait with the others again."""
    desk, caller = of(request)
    return shown(desk, desk.store.resume(checked(video_id), caller.owner))


@router.post("/videos/{video_id}/retry", tags=["videos"], response_model=schemas.Video, responses=schemas.VIDEO)
def retry(request: Request, video_id: str) -> JSONResponse:
    """Try a video again that failed or was cancelled."""
    desk, caller = of(request)
    return shown(desk, desk.store.retry(checked(video_id), caller.owner))


@router.post(
    "/videos/{video_id}/move",
    tags=["videos"],
    openapi_extra=schemas.MOVE,
    response_model=schemas.Video,
    responses=schemas.VIDEO,
)
async def move(request: Request, video_id: str) -> JSONResponse:
    """Put a waiting video elsewhere among your own: to the front, to the back, before or after another one."""
    return await answered(request, partial(_move, video_id))


def _move(video_id: str, request: Request, fields: Fields) -> JSONResponse:
    desk, caller = of(request)
    id = checked(video_id)
    match fields:
        case {"to": "front"} if len(fields) == 1:
            job = desk.store.move(id, caller.owner)
        case {"to": "back"} if len(fields) == 1:
            job = desk.store.last(id, caller.owner)
        case {"before": str(other)} if len(fields) == 1:
            job = desk.store.move(id, caller.owner, before=checked(other))
        case {"after": str(other)} if len(fields) == 1:
            job = desk.store.move(id, caller.owner, after=checked(other))
        case _:
            hint = '{"to": "front"}, {"to": "back"}, {"before": id} or {"after": id}'
            raise InvalidRequest("where to is not clear", field="to", hint=hint)
    return shown(desk, job)


@router.get("/videos/{video_id}/recipe", tags=["videos"])
def recipe(request: Request, video_id: str) -> dict[str, Any]:
    """How a video is made: the request, the command that makes it elsewhere, and, once it is there, its provenance."""
    desk, caller = of(request)
    job = desk.job(video_id, caller)
    made = desk.archive.entry(job.token).provenance if job.state == "completed" else None
    said = {"id": job.id, "engine": job.engine, "request": dict(job.request), "command": wire.command(job)}
    return {**said, "provenance": made}


# --- events -------------------------------------------------------------------------------------------------

LastEventId = Annotated[str | None, Header(pattern=r"^[0-9]{1,18}$")]
Previews = Annotated[bool, Query(description="Pictures of videos in the making, too.")]


@router.get("/videos/{video_id}/events", tags=["events"], response_class=StreamingResponse, responses=schemas.EVENTS)
async def video_events(
    request: Request, video_id: str, last_event_id: LastEventId = None, previews: Previews = True
) -> StreamingResponse:
    """What happens to one video, as server-sent events; the stream ends with the video."""
    id = checked(video_id)
    return await _streamed(request, id, None if last_event_id is None else int(last_event_id), previews)


@router.get("/events", tags=["events"], response_class=StreamingResponse, responses=schemas.EVENTS)
async def all_events(
    request: Request, last_event_id: LastEventId = None, previews: Previews = True
) -> StreamingResponse:
    """What happens to all your videos; the stream does not end."""
    return await _streamed(request, None, None if last_event_id is None else int(last_event_id), previews)


async def _streamed(request: Request, id: str | None, since: int | None, previews: bool) -> StreamingResponse:
    desk, caller = of(request)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    if request.method == "HEAD":  # what would come, and not the stream, which may never end
        await run_in_threadpool(_first, desk, caller.owner, id, since)
        return StreamingResponse(iter(()), media_type="text/event-stream", headers=headers)
    loop = asyncio.get_running_loop()
    watcher = await run_in_threadpool(desk.broadcast.watch, caller.owner, id, loop)
    try:
        first = await run_in_threadpool(_first, desk, caller.owner, id, since)
    except KinetographError:
        desk.broadcast.leave(watcher)
        raise
    body = events.stream(desk.broadcast, watcher, first, previews)
    return StreamingResponse(body, media_type="text/event-stream", headers=headers)


def _first(desk: Desk, owner: str, id: str | None, since: int | None) -> list[tuple[str, str, int, Any]]:
    """What a stream begins with: the one video as it is, or what changed since the last event."""
    if id is not None:
        changed: list[Job] = desk.store.changed(-1, owner, id)
        if not changed or (changed[0].state == "deleted" and since is None):
            raise UnknownJob("no video has this id")
        job = changed[0]
        return [events.event(job, desk.outlook)] if since is None or job.revision > since or job.final else []
    return [] if since is None else [events.event(job, desk.outlook) for job in _all_changed(desk, owner, since)]


def _all_changed(desk: Desk, owner: str, since: int) -> list[Job]:
    found: list[Job] = []
    while page := desk.store.changed(found[-1].revision if found else since, owner):
        found += page
    return found


# --- engines ------------------------------------------------------------------------------------------------


@router.get("/engines", tags=["engines"], responses=schemas.ENGINES)
def engines(request: Request) -> dict[str, Any]:
    """What can make a video here: sizes, lengths, and a JSON schema of the options."""
    desk, _ = of(request)
    return {"object": "list", "data": desk.catalogue.rows()}


@router.get("/engines/{engine_id:path}", tags=["engines"])
def engine(request: Request, engine_id: str) -> dict[str, Any]:
    """One engine."""
    desk, _ = of(request)
    if engine_id not in desk.catalogue.references:
        raise UnknownName("engine", engine_id[:80], desk.catalogue.references)
    return desk.catalogue.row(engine_id)


@router.get("/models", tags=["engines"])
def models(request: Request) -> dict[str, Any]:
    """The engines as a list of models, for clients that ask for one."""
    desk, _ = of(request)
    usable = [reference for reference in desk.catalogue.references if desk.catalogue.info(reference)]
    rows = [{"id": name, "object": "model", "created": 0, "owned_by": "kinetograph"} for name in usable]
    return {"object": "list", "data": rows}


# --- the queue ----------------------------------------------------------------------------------------------


@router.get("/queue", tags=["queue"])
def queue(request: Request) -> dict[str, Any]:
    """The queue: your own videos in the order in which they will be made, the number of all, and the workers."""
    desk, caller = of(request)
    return _queue(desk, caller.owner)


@router.post("/queue/pause", tags=["queue"])
def pause_queue(request: Request) -> dict[str, Any]:
    """Begin nothing new until the queue is resumed. For administrators."""
    return _hold(request, True)


@router.post("/queue/resume", tags=["queue"])
def resume_queue(request: Request) -> dict[str, Any]:
    """Let the queue go on. For administrators."""
    return _hold(request, False)


def _hold(request: Request, paused: bool) -> dict[str, Any]:
    desk, caller = of(request)
    if not caller.admin:
        raise Forbidden("only an administrator's key may hold the queue")
    desk.store.set_paused(paused)
    return _queue(desk, caller.owner)


def _queue(desk: Desk, owner: str) -> dict[str, Any]:
    counts = desk.store.counts()
    own = {job.id for job in desk.store.jobs(owner, states=("queued",), limit=1_000, newest_first=False).jobs}
    workers = [
        {"id": f"worker {number}", "engines": worker.engines, "seen_seconds": round(ago, 1), "busy": bool(worker.job)}
        for number, (worker, ago) in enumerate(desk.store.workers(), start=1)
    ]
    return {
        "object": "queue",
        "paused": desk.store.paused(),
        "queued": counts.get("queued", 0),
        "in_progress": counts.get("in_progress", 0),
        "order": [id for id in desk.store.order() if id in own],
        "workers": workers,
    }


# --- health -------------------------------------------------------------------------------------------------


PROBLEMS = {
    "database": "the database does not answer",
    "worker": "no worker is alive",
    "archive": "the archive's disk has no room",
    "writable": "the archive cannot be written to",
}


@health.get("/healthz")
def healthz() -> dict[str, str]:
    """Whether this process answers."""
    return {"status": "ok"}


@health.get("/readyz", responses={503: {"description": "Not ready."}})
def readyz(request: Request) -> JSONResponse:
    """Whether videos can be made: the database answers, a worker is alive, the archive has room and can be written to.

    `problems` says in words what is missing.
    """
    desk: Desk = request.app.state.desk
    checks = {"database": False, "worker": False, "archive": False, "writable": False}
    try:
        checks["worker"] = bool(desk.store.workers())
        checks["database"] = True
    except KinetographError:
        pass
    with suppress(OSError):
        checks["archive"] = desk.archive.free() >= desk.settings.free
        checks["writable"] = desk.archive.writable()
    asked = [name for name in checks if checks["database"] or name != "worker"]  # which only the database knows
    problems = [PROBLEMS[name] for name in asked if not checks[name]]
    said = {"status": "not ready" if problems else "ready", "checks": checks, "problems": problems}
    return JSONResponse(said, 503 if problems else 200)


@health.get("/metrics", response_class=Response, responses=schemas.METRICS)
def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    desk, _ = of(request)
    return Response(desk.gauges.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
