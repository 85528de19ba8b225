"""The studio: the page at `/`, files that are served as they are.

There is no build step and nothing from elsewhere: the policy below lets the page load what lies beside it, speak to its
own server, and nothing else. No style, script or handler stands in the HTML, and no script makes HTML of text.
"""

import hashlib
from collections.abc import Awaitable, Callable
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

PAGE = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",  # previews come as data, what was fetched with a key as a blob
        "media-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-cache",  # asked for again each time, and not sent again while it is the same
}


@cache
def contents() -> dict[str, bytes]:
    """Every file of the page, by its name."""
    found = files(__package__).iterdir()
    return {file.name: file.read_bytes() for file in found if "." + file.name.rpartition(".")[2] in TYPES}


def routes() -> "list[Route]":
    """`/` and `/studio/NAME`, one route for each file: no path is ever put together from what a client says."""
    from starlette.routing import Route

    named = [Route(f"/studio/{name}", _sending(name), methods=["GET"]) for name in contents() if name != PAGE]
    return [Route("/", _sending(PAGE), methods=["GET"]), *named]


def _sending(name: str) -> "Callable[[Request], Awaitable[Response]]":
    from starlette.responses import Response

    content = contents()[name]
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**HEADERS, "etag": tag, "content-type": TYPES["." + name.rpartition(".")[2]]}

    async def send(request: "Request") -> "Response":
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers)

    return send
