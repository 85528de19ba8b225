"""Routes: whatever answers GET answers HEAD as well."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter


class Router(APIRouter):
    """A router that gives each GET its HEAD, with the same headers; the HTTP server leaves the body out.

    The description names GET alone: one call, one name.
    """

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **how: Any) -> None:
        """Add a route, and where it is a GET, the HEAD of it."""
        super().add_api_route(path, endpoint, **how)
        if how.get("methods") == ["GET"]:
            super().add_api_route(path, endpoint, **{**how, "methods": ["HEAD"], "include_in_schema": False})
