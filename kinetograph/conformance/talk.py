"""Speaking with one server: requests, the videos that points share, and what an answer should look like."""

import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any

import httpx2

from kinetograph.conformance import Wishes
from kinetograph.errors import Unreachable

STATUSES = ("queued", "in_progress", "completed", "failed")
SHORT = 160  # characters of an answer that a report shows
MOST_POLLS_A_SECOND = 10
BURST = 6  # videos that are asked for at once to find one that is not finished yet

Object = dict[str, Any]


class DiffersError(Exception):
    """What came is not what the contract says."""


class UntriedError(Exception):
    """What a point needs could not be had; says why."""


class Talk:
    """A conversation with the server at `url`. Used as a context, which deletes in the end what was made."""

    def __init__(self, url: str, wishes: Wishes, transport: httpx2.BaseTransport | None = None) -> None:
        self.wishes = wishes
        self.url = url.rstrip("/").removesuffix("/v1")
        headers = {"Authorization": f"Bearer {wishes.key}"} if wishes.key else {}
        self._client = httpx2.Client(headers=headers, timeout=30.0, transport=transport, follow_redirects=False)
        self._made: list[str] = []

    def __enter__(self) -> "Talk":
        try:
            self._client.get(f"{self.url}/v1/videos", params={"limit": "1"})
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            self._client.close()
            raise Unreachable(
                f"{self.url} does not answer: {error}", hint="is the server up, and is it http?"
            ) from error
        return self

    def __exit__(self, *exception: object) -> None:
        for video in self._made:
            with suppress(httpx2.HTTPError):
                self._client.delete(f"{self.url}/v1/videos/{video}")
        self._client.close()

    # --- asking -------------------------------------------------------------------------------------------------------

    def ask(self, method: str, path: str, **how: Any) -> httpx2.Response:
        """One request below /v1; that no answer comes differs from every contract."""
        try:
            return self._client.request(method, f"{self.url}/v1{path}", **how)
        except httpx2.HTTPError as error:
            raise DiffersError(f"no answer: {type(error).__name__} {error}") from error

    def get(self, path: str, **how: Any) -> httpx2.Response:
        """A GET below /v1."""
        return self.ask("GET", path, **how)

    def post(self, path: str, fields: Mapping[str, Any] | None = None, **how: Any) -> httpx2.Response:
        """A POST of a multipart form, which the published client sends even where there is no file."""
        if fields is not None:
            how["files"] = [(name, _part(value)) for name, value in fields.items()]
        answer = self.ask("POST", path, **how)
        self._remember(answer)
        return answer

    def _remember(self, answer: httpx2.Response) -> None:
        with suppress(ValueError, AttributeError):
            said = answer.json()
            if answer.is_success and isinstance(said.get("id"), str):
                self._made.append(said["id"])

    def fields(self, **others: Any) -> dict[str, Any]:
        """The fields of a video that this server can make, and others."""
        return {"prompt": self.wishes.prompt, **self.wishes.fields, **others}

    # --- the videos that points share ---------------------------------------------------------------------------------

    def create(self, **others: Any) -> Object:
        """Ask for a video and give back its object."""
        return video_in(self.post("/videos", self.fields(**others)))

    @cached_property
    def first(self) -> tuple[Object, list[Object]]:
        """A finished video, and every object that was seen on the way."""
        return self.finish(self.create())

    @property
    def finished(self) -> Object:
        """A video that is completed. Untried where the server brings none to an end."""
        video = self.first[0]
        if video.get("status") != "completed":
            raise UntriedError(f"no video was completed: {short(video)}")
        return video

    @cached_property
    def second(self) -> Object:
        """Another finished video, younger than the first."""
        self.finished  # noqa: B018  # made before
        return self.finish(self.create())[0]

    @cached_property
    def film(self) -> bytes:
        """The file of the finished video."""
        answer = self.get(f"/videos/{self.finished['id']}/content", headers={"Accept": "application/binary"})
        if answer.status_code != 200:
            raise UntriedError(f"the video could not be downloaded: {came(answer)}")
        return answer.content

    def finish(self, video: Object) -> tuple[Object, list[Object]]:
        """Poll as the published client does, until the status is neither queued nor in progress."""
        seen, late = [video], time.monotonic() + self.wishes.patience
        while seen[-1].get("status") in ("queued", "in_progress"):
            if time.monotonic() > late:
                raise DiffersError(f"after {self.wishes.patience:g} s: {short(seen[-1])}")
            answer = self.get(f"/videos/{video['id']}")
            seen.append(video_in(answer))
            time.sleep(max(1 / MOST_POLLS_A_SECOND, min(_milliseconds(answer) / 1000, 1.0)) if _waits(seen) else 0.0)
        return seen[-1], seen

    def unfinished(self, status: str) -> Object:
        """A video that has this status at this moment. Several are asked for at once to find one, and the others
        deleted, so that nobody has to wait for them.
        """
        waiting = {made["id"]: made for made in (self.create(**self.wishes.slow) for _ in range(BURST))}
        late = time.monotonic() + self.wishes.patience
        try:
            while waiting and time.monotonic() < late:
                for name in list(waiting)[::-1]:  # the last one waits longest
                    video = waiting[name]
                    if video.get("status") == status:
                        del waiting[name]
                        return video
                    waiting[name] = video_in(self.get(f"/videos/{name}"))
                    if waiting[name].get("status") not in STATUSES[:2]:
                        del waiting[name]
            raise UntriedError("videos are finished too quickly here; give --slow")
        finally:
            for name in waiting:
                self.drop(name)

    def drop(self, video: str) -> httpx2.Response:
        """Delete a video."""
        return self.ask("DELETE", f"/videos/{video}")


def _part(value: Any) -> tuple[Any, ...]:
    """A part of a form: a file as (name, bytes, type), or a text, which has no file name."""
    return value if isinstance(value, tuple) else (None, str(value))


def _waits(seen: list[Object]) -> bool:
    return seen[-1].get("status") in ("queued", "in_progress")


def _milliseconds(answer: httpx2.Response) -> float:
    said = answer.headers.get("openai-poll-after-ms", "")
    return float(said) if said.isdecimal() else 0.0


# --- what an answer should look like ----------------------------------------------------------------------------------


def short(said: object) -> str:
    """JSON, cut to what a table can show."""
    text = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False, default=str)
    text = re.sub(r"\s+", " ", text)
    return text if len(text) <= SHORT else text[: SHORT - 3] + "..."


def came(answer: httpx2.Response) -> str:
    """An answer in a few words."""
    kind = answer.headers.get("content-type", "no type").split(";")[0]
    return f"{answer.status_code} {short(answer.text) if kind == 'application/json' else kind}"


def require(fact: object, said: object) -> None:
    """Raise DiffersError with what came unless this is so."""
    if not fact:
        raise DiffersError(said if isinstance(said, str) else short(said))


def json_in(answer: httpx2.Response, *codes: int) -> Object:
    """The JSON object of an answer with one of these codes (200 or 201 unless told)."""
    require(answer.status_code in (codes or (200, 201)), came(answer))
    try:
        said = answer.json()
    except ValueError as error:
        raise DiffersError(came(answer)) from error
    require(isinstance(said, dict), came(answer))
    return dict(said)


def video_in(answer: httpx2.Response) -> Object:
    """The video object of an answer."""
    video = json_in(answer)
    require(video.get("object") == "video" and isinstance(video.get("id"), str), came(answer))
    return video


def refused(answer: httpx2.Response, *codes: int) -> Object:
    """The error of an answer that has one of these codes and the standard shape."""
    said = json_in(answer, *codes).get("error")
    require(isinstance(said, dict), came(answer))
    error: Object = dict(said or {})
    require(isinstance(error.get("message"), str) and error["message"], came(answer))
    require(isinstance(error.get("type"), str) and error["type"], came(answer))
    require({"param", "code"} <= error.keys(), came(answer))
    require(all(error[key] is None or isinstance(error[key], str) for key in ("param", "code")), came(answer))
    return error


def faults(video: Object) -> list[str]:
    """What is wrong with the types of a video object."""
    whole = {name: video.get(name) for name in ("created_at", "progress")}
    found = [f"{name} is {short(value)}" for name, value in whole.items() if not _is_integer(value)]
    found += [
        f"{name} is {short(video.get(name))}" for name in ("id", "model", "seconds") if not _is_text(video.get(name))
    ]
    for name in ("completed_at", "expires_at"):
        if video.get(name) is not None and not _is_integer(video[name]):
            found.append(f"{name} is {short(video[name])}")
    for name in ("prompt", "remixed_from_video_id"):
        if not isinstance(video.get(name), str | None):
            found.append(f"{name} is {short(video[name])}")
    if video.get("status") not in STATUSES:
        found.append(f"status is {short(video.get('status'))}")
    if _is_integer(video.get("progress")) and not 0 <= video["progress"] <= 100:
        found.append(f"progress is {video['progress']}")
    if not re.fullmatch(r"[0-9]+x[0-9]+", str(video.get("size"))):
        found.append(f"size is {short(video.get('size'))}")
    return found


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)
