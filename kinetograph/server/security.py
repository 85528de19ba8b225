"""The gate: what is checked before anything of a request is read but its headers.

Who is called (the host), who calls (the key), from where (the origin of a web page), how often, and how much is sent.
It stands before the framework, which would read a body before it asks for a key.
"""

import re
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

import anyio
from anyio.to_thread import run_sync
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kinetograph.errors import KinetographError
from kinetograph.jobs import Key, Keys
from kinetograph.jobs.job import LOCAL
from kinetograph.jobs.keys import parts
from kinetograph.server import wire
from kinetograph.server.gauges import Gauges
from kinetograph.server.settings import Settings

FRESH = 5.0  # seconds that the keys are believed
FAILURES = "20/minute"  # wrong keys from one address
READING = ("GET", "HEAD", "OPTIONS")
GUARDED = ("/v1/", "/metrics")
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True)
class Caller:
    """Whoever asks: the owner of jobs, and what it may do."""

    owner: str
    admin: bool = False
    rate: str = ""
    most_queued: int | None = None
    most_daily: int | None = None


EVERYBODY = Caller(LOCAL, admin=True)  # where there are no keys, which is only where nobody else can call


class Ring:
    """The keys, looked up now and then."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._lock = threading.Lock()
        self._read = -FRESH
        self._known: dict[str, Key] = {}

    def caller(self, authorization: str | None) -> Caller | None:
        """Who has this key; None for a key that opens nothing, or for none where one is needed."""
        found = _said(authorization)
        keys = self._fresh(found[0] if found else "")
        if not keys:
            return EVERYBODY
        key = keys.get(found[0]) if found else None
        if found is None or key is None or not key.opens(found[1]):
            return None
        return Caller(key.owner, key.admin, key.rate, key.most_queued, key.most_daily)

    def knows(self, authorization: str | None) -> bool:
        """Whether nothing need be looked up to say who that is."""
        found = _said(authorization)
        return self._is_fresh(found[0] if found else "")

    def locked(self) -> bool:
        """Whether a key is needed."""
        return bool(self._fresh(""))

    def _is_fresh(self, id: str) -> bool:
        return time.monotonic() - self._read <= FRESH and (not id or id in self._known)

    def _fresh(self, id: str) -> Mapping[str, Key]:
        """All keys, read again when they are old, and a little sooner for one that is not known yet."""
        if self._is_fresh(id):
            return self._known  # without the lock, under which somebody may be waiting for the database
        with self._lock:
            age = time.monotonic() - self._read
            if age > FRESH or (id and id not in self._known and age > FRESH / 5):
                self._known = {key.id: key for key in self._keys.all()}
                self._read = time.monotonic()
            return self._known


def _said(authorization: str | None) -> tuple[str, str] | None:
    """The id and the secret that a header names."""
    scheme, _, text = (authorization or "").partition(" ")
    return parts(text.strip()) if scheme.lower() == "bearer" else None


class Gate:
    """ASGI middleware. It answers what it refuses, and lets the rest through with `scope["caller"]`."""

    def __init__(self, app: ASGIApp, *, ring: Ring, settings: Settings, gauges: Gauges) -> None:
        self._app, self._ring, self._settings, self._gauges = app, ring, settings, gauges
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._failures = parse(FAILURES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        number, began, status = f"req_{secrets.token_hex(12)}", time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = number
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        scope["request_id"] = number
        try:
            await self._answer(scope, receive, sending)
        finally:
            self._gauges.answered(scope, status, time.perf_counter() - began)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        refused = self._misdirected(headers) or self._foreign(scope, headers) or self._too_large(headers)
        if refused is None and scope["path"].startswith(GUARDED):
            try:
                refused = await self._unknown(scope, headers)
            except KinetographError as error:
                refused = wire.refusal(error)
        if refused is not None:
            await refused(scope, receive, send)
            return
        await self._app(scope, self._measured(receive), send)

    def _misdirected(self, headers: Headers) -> JSONResponse | None:
        """A name that is not this server's: a page elsewhere had it point here (DNS rebinding)."""
        host = headers.get("host", "").lower()
        name = re.sub(r":[0-9]{1,5}$", "", host)
        if name in self._settings.names or "*" in self._settings.names:
            return None
        return wire.error(400, "this server does not go by that name", param="host", code="unknown_host")

    def _foreign(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        """A request that changes something, sent by a page of somebody else (CSRF)."""
        if scope["method"] in READING:
            return None
        origin = headers.get("origin")
        same = origin is None or origin.partition("://")[2].lower() == headers.get("host", "").lower()
        if same and headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none"):
            return None
        return wire.error(403, "a page of another origin may not do this", param="origin", code="foreign_origin")

    def _too_large(self, headers: Headers) -> JSONResponse | None:
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:19]) <= self._settings.most_body:
            return None
        return wire.error(413, f"a body may have {self._settings.most_body} bytes", code="body_too_large")

    async def _unknown(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        """No key, a wrong one, or too many requests with a right one."""
        address = (scope.get("client") or ("",))[0]
        if not self._limiter.test(self._failures, "wrong", address):
            return self._too_often(self._failures, "wrong", address)
        said = headers.get("authorization")
        caller = self._ring.caller(said) if self._ring.knows(said) else await run_sync(self._ring.caller, said)
        if caller is None:
            self._limiter.hit(self._failures, "wrong", address)
            bearer = {"www-authenticate": "Bearer"}
            return wire.error(401, "a valid key is needed", code="invalid_api_key", headers=bearer)
        scope["caller"] = caller
        if caller is EVERYBODY:
            return None
        reading = scope["method"] in READING
        item = parse(self._settings.reads if reading else caller.rate or self._settings.rate)
        if not self._limiter.hit(item, "reads" if reading else "makes", caller.owner):
            return self._too_often(item, "reads" if reading else "makes", caller.owner)
        return None

    def _too_often(self, item: RateLimitItem, *names: str) -> JSONResponse:
        reset, _ = self._limiter.get_window_stats(item, *names)
        wait = str(max(1, round(reset - time.time())))
        return wire.error(429, f"at most {item}", code="rate_limit_exceeded", headers={"retry-after": wait})

    def _measured(self, receive: Receive) -> Receive:
        """The body with an end: of its size, whatever its header said, and of the time that it may take."""
        left, end = self._settings.most_body, anyio.current_time() + self._settings.slowest_body
        more = True

        async def receiving() -> Message:
            nonlocal left, more
            if not more:
                return await receive()  # whoever waits for the end of the connection may wait
            with anyio.move_on_after(end - anyio.current_time()):
                message = await receive()
                left -= len(message.get("body", b""))
                more = message.get("more_body", False)
                if left < 0:
                    raise HTTPException(413, f"a body may have {self._settings.most_body} bytes")
                return message
            raise HTTPException(408, "the body took too long")

        return receiving
