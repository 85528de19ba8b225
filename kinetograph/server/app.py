"""The application: routes, errors and the gate, put together."""

import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route

from kinetograph import __version__
from kinetograph.archive import Archive
from kinetograph.errors import NO_ROOM, CannotWrite, KinetographError
from kinetograph.jobs import Keys, Store
from kinetograph.server import description, native, studio, videos, wire
from kinetograph.server.catalogue import Catalogue
from kinetograph.server.desk import Desk
from kinetograph.server.events import Broadcast
from kinetograph.server.gauges import Gauges
from kinetograph.server.housekeeping import Housekeeper
from kinetograph.server.outlook import Outlook
from kinetograph.server.security import Gate, Ring
from kinetograph.server.settings import Settings

ROUTERS = (videos.router, native.router, native.health)


def create(settings: Settings) -> FastAPI:
    """The application over a queue and an archive. Raises StoreError, CannotWrite."""
    archive = Archive.open(settings.archive)
    store = Store.open(settings.database, lease=settings.lease, most_attempts=settings.attempts)
    outlook, gauges = Outlook(store), Gauges(store, archive)
    catalogue = Catalogue(settings.engines, settings.aliases)
    desk = Desk(settings, store, archive, catalogue, outlook, Broadcast(store, outlook), gauges)
    ring = Ring(Keys(store.database))
    gate = Middleware(Gate, ring=ring, settings=settings, gauges=gauges)
    app = FastAPI(
        title="Kinetograph",
        version=__version__,
        description="Text to video: the Videos API, and what it lacks.",
        openapi_url=None,  # it is answered below
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        middleware=[gate],
        lifespan=_lifespan(desk),
        generate_unique_id_function=lambda route: route.name,  # the links speak of these
        exception_handlers=HANDLERS,
    )
    app.state.desk = desk
    for router in ROUTERS:
        app.include_router(router)
    app.router.routes.extend([description.route(app, ring), *studio.routes()])
    return app


def _lifespan(desk: Desk) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        housekeeper = Housekeeper(desk.store, desk.archive)
        housekeeper.start()
        yield
        housekeeper.stop()
        desk.broadcast.close()
        desk.store.close()

    return lifespan


# --- errors -------------------------------------------------------------------------------------------------


def _known(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, KinetographError)
    return wire.refusal(error)


def _http(request: Request, error: Exception) -> JSONResponse:
    """What the framework itself refuses: no such route, not this method, a body without end."""
    assert isinstance(error, HTTPException)
    text = {404: "there is nothing here", 405: "not by this method"}.get(error.status_code, str(error.detail))
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods(request))
    return wire.error(error.status_code, text, code=CODES.get(error.status_code), headers=headers)


def _methods(request: Request) -> list[str]:
    """Every method of the path that was asked for. The framework has a route for each, and names only the first's."""
    routes = [*(route for router in ROUTERS for route in router.routes), *request.app.routes]
    known = [route for route in routes if isinstance(route, Route)]
    found = [route for route in known if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in found if route.path == found[0].path for method in route.methods or ()})


def _invalid(request: Request, error: Exception) -> JSONResponse:
    """A parameter that is wrong. What was sent is not sent back: it may be large."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = str(first["loc"][-1]) if first["loc"] else None
    return wire.error(400, f"{name}: {first['msg']}", param=name, code="invalid_value")


def _gone(request: Request, error: Exception) -> JSONResponse:
    return wire.error(400, "the connection was closed")  # nobody is there to read it


def _disk(request: Request, error: Exception) -> JSONResponse:
    """A disk that is full or read-only, wherever it was that something should be written."""
    said = getattr(error, "errno", None)
    if said not in (*NO_ROOM, errno.EROFS):
        raise error
    return wire.refusal(CannotWrite("the system refused", full=said in NO_ROOM))


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    """A fault of ours. The log has the traceback, under the id that is in the answer's header."""
    number = request.scope.get("request_id", "")
    return wire.error(500, "the server failed", code="internal_error", headers={"x-request-id": number})


CODES = {
    404: "unknown_url",
    405: "method_not_allowed",
    408: "timeout",
    413: "body_too_large",
    416: "range_not_satisfiable",
}
HANDLERS: dict[Any, Any] = {
    KinetographError: _known,
    HTTPException: _http,
    RequestValidationError: _invalid,
    ClientDisconnect: _gone,
    OSError: _disk,
    Exception: _unexpected,
}
