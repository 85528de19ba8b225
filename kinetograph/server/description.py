"""The description: OpenAPI of all routes, which says of each whether it wants a key now."""

from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.requests import Request
from starlette.routing import Route

from kinetograph.server.security import GUARDED, Ring

PATH = "/openapi.json"
KEY = {
    "type": "http",
    "scheme": "bearer",
    "description": "A key of `kinetograph keys add`. Where there is none, which is only on loopback, none is needed.",
}


def route(app: FastAPI, ring: Ring) -> Route:
    """Where the description is read. A key may be made while the server runs, so it is asked for each time."""

    def answer(request: Request) -> JSONResponse:
        return JSONResponse(described(app.openapi(), ring.locked()))

    return Route(PATH, answer, include_in_schema=False)


def described(whole: dict[str, Any], locked: bool) -> dict[str, Any]:
    """The description with the kind of key, and, where everything is locked, with the calls that want one."""
    wanted: list[dict[str, list[str]]] = [{"key": []}]
    paths = {
        path: {name: {**said, "security": wanted} for name, said in calls.items()}
        if locked and path.startswith(GUARDED)
        else calls
        for path, calls in whole["paths"].items()
    }
    components = {**whole["components"], "securitySchemes": {"key": KEY}}
    return {**whole, "paths": paths, "components": components}
