"""The contract, point by point, as the published client of OpenAI has it on the wire."""

import base64
import itertools
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kinetograph.conformance import Finding
from kinetograph.conformance.talk import (
    STATUSES,
    DiffersError,
    Object,
    Talk,
    UntriedError,
    came,
    faults,
    json_in,
    refused,
    require,
    short,
    video_in,
)
from kinetograph.errors import InvalidRequest

STRANGER = "video_00000000000000000000000000000000"
REFUSALS = (400, 404, 422)
TITLE = "a red circle — ein »roter« Kreis 🎈"

Check = Callable[[Talk], None]


@dataclass(frozen=True)
class Point:
    """One promise: its name, what is expected, and the check, which raises what came instead."""

    name: str
    expected: str
    check: Check

    def tried(self, server: Talk) -> Finding:
        """Ask the server."""
        try:
            self.check(server)
        except DiffersError as error:
            return Finding(name=self.name, expected=self.expected, state="failed", came=str(error))
        except UntriedError as error:
            return Finding(name=self.name, expected=self.expected, state="untried", came=str(error))
        return Finding(name=self.name, expected=self.expected, state="passed")


POINTS: list[Point] = []


def chosen(only: str = "") -> list[Point]:
    """Every point, or those whose name begins so. Raises InvalidRequest where there is none."""
    found = [point for point in POINTS if point.name.startswith(only)]
    if not found:
        groups = ", ".join(sorted({point.name.partition(".")[0] for point in POINTS}))
        raise InvalidRequest(f"no point is called {only!r}", field="only", hint=f"they begin with {groups}")
    return found


def point(name: str, expected: str) -> Callable[[Check], Check]:
    """Put a check on the list."""

    def listed(check: Check) -> Check:
        POINTS.append(Point(name, expected, check))
        return check

    return listed


# --- create -----------------------------------------------------------------------------------------------------------


@point("create.multipart", "POST /videos as multipart/form-data without a file: 200, a video object")
def _(server: Talk) -> None:
    video_in(server.post("/videos", server.fields()))


@point("create.json", "POST /videos as JSON, as older clients do: 200, a video object")
def _(server: Talk) -> None:
    video_in(server.post("/videos", json=server.fields()))


@point("create.object", "id, model, status, progress, created_at, size and seconds (text), each of its type")
def _(server: Talk) -> None:
    video = server.create()
    require(not faults(video), "; ".join(faults(video)))


@point("create.status", "a new video is queued or in progress, or finished already; its progress is that of its status")
def _(server: Talk) -> None:
    video = server.create()
    require(video.get("status") != "queued" or video.get("progress") == 0, video)
    require(video.get("status") in STATUSES[:3], video)


@point("create.extra", "fields that are not in the contract come flattened and as text (seed=7) and are understood")
def _(server: Talk) -> None:
    video_in(server.post("/videos", server.fields(seed="7")))


@point("create.size", "the size that was asked for is the size of the object")
def _(server: Talk) -> None:
    size = server.finished["size"]
    video = server.create(size=size)
    require(video.get("size") == size, f"asked for {size}: {short(video)}")


@point("create.seconds", 'the seconds that were asked for come back, as text ("1")')
def _(server: Talk) -> None:
    seconds = server.finished["seconds"]
    video = server.create(seconds=seconds)
    require(isinstance(seconds, str) and video.get("seconds") == seconds, f"asked for {seconds}: {short(video)}")


@point("create.unicode", "a prompt in any script is kept to the letter, where it is said at all")
def _(server: Talk) -> None:
    video = server.create(prompt=TITLE)
    require(video.get("prompt", TITLE) in (TITLE, None), video)


@point("create.without-prompt", "no prompt: 400 or 422 in the standard shape")
def _(server: Talk) -> None:
    refused(server.post("/videos", {"seconds": "4"}), 400, 422)


@point("create.bad-size", "size=banana: 400 or 422 in the standard shape, and `param` names it")
def _(server: Talk) -> None:
    error = refused(server.post("/videos", server.fields(size="banana")), 400, 422)
    require(error["param"] == "size", error)


@point("create.bad-seconds", "seconds=soon: 400 or 422 in the standard shape, and `param` names it")
def _(server: Talk) -> None:
    error = refused(server.post("/videos", server.fields(seconds="soon")), 400, 422)
    require(error["param"] == "seconds", error)


@point("create.damaged-json", "JSON that is none: 400 or 422 in the standard shape")
def _(server: Talk) -> None:
    headers = {"Content-Type": "application/json"}
    refused(server.post("/videos", content=b'{"prompt": "a', headers=headers), 400, 422)


@point(
    "create.input-reference",
    "input_reference as a file: a video, or 400/422 in the standard shape where the model has no use for it",
)
def _(server: Talk) -> None:
    picture = ("start.png", png(*_sides(server)), "image/png")
    _done_or_refused(server.post("/videos", server.fields(input_reference=picture)))


@point(
    "create.input-reference-object",
    "input_reference as JSON {image_url: data:...}: a video, or 400/422 in the standard shape",
)
def _(server: Talk) -> None:
    reference = {"image_url": _data_url(server)}
    _done_or_refused(server.post("/videos", json=server.fields(input_reference=reference)))


@point(
    "create.input-reference-keys", "input_reference[image_url] as a form key: a video, or 400/422 in the standard shape"
)
def _(server: Talk) -> None:
    _done_or_refused(server.post("/videos", server.fields(**{"input_reference[image_url]": _data_url(server)})))


def _done_or_refused(answer: Any) -> Object | None:
    """A video object, or an honest refusal in the standard shape, which gives None."""
    if answer.is_success:
        return video_in(answer)
    refused(answer, 400, 422)
    return None


def _sides(server: Talk) -> tuple[int, int]:
    width, _, height = str(server.finished["size"]).partition("x")
    return int(width), int(height)


def _data_url(server: Talk) -> str:
    return f"data:image/png;base64,{base64.b64encode(png(*_sides(server))).decode()}"


def png(width: int, height: int) -> bytes:
    """The smallest grey picture of a size, in pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    pixels = zlib.compress((b"\0" + b"\x80" * width) * height)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


# --- retrieve ---------------------------------------------------------------------------------------------------------


@point("retrieve.object", "GET /videos/{id}: 200, the same video, every field of its type")
def _(server: Talk) -> None:
    made = server.create()
    video = video_in(server.get(f"/videos/{made['id']}"))
    require(video["id"] == made["id"], video)
    require(not faults(video), "; ".join(faults(video)))


@point("retrieve.unknown", "an id that is nobody's: 404 in the standard shape")
def _(server: Talk) -> None:
    refused(server.get(f"/videos/{STRANGER}"), 404)


@point("retrieve.poll-after", "the header openai-poll-after-ms says when to ask again")
def _(server: Talk) -> None:
    made = server.create()
    said = server.get(f"/videos/{made['id']}").headers.get("openai-poll-after-ms")
    require(said is not None and said.isdecimal() and int(said) > 0, f"openai-poll-after-ms: {said}")


@point("retrieve.completes", "polling ends, and with completed")
def _(server: Talk) -> None:
    video, _ = server.first
    require(video.get("status") == "completed", video)


@point("retrieve.statuses", "only queued, in_progress, completed and failed are seen, in this order")
def _(server: Talk) -> None:
    statuses = [video.get("status") for video in server.first[1]]
    require(set(statuses) <= set(STATUSES), ", ".join(map(str, statuses)))
    order = [STATUSES.index(str(status)) for status in statuses]
    require(order == sorted(order), ", ".join(map(str, statuses)))


@point("retrieve.progress", "progress never falls, is a whole number of percent, and 100 in the end")
def _(server: Talk) -> None:
    seen: list[Any] = [video.get("progress") for video in server.first[1]]
    require(all(isinstance(value, int) for value in seen), seen)
    require(seen == sorted(seen) and seen[-1] == 100, seen)


@point("retrieve.completed-at", "a completed video says when: completed_at, not before created_at")
def _(server: Talk) -> None:
    video = server.finished
    require(isinstance(video.get("completed_at"), int) and video["completed_at"] >= video["created_at"], video)


@point("retrieve.no-error", "a completed video has no error")
def _(server: Talk) -> None:
    require(server.finished.get("error") is None, server.finished)


@point("retrieve.failed", "a failed video is answered with 200, status failed, and an error with code and message")
def _(server: Talk) -> None:
    if not server.wishes.failing:
        raise UntriedError("give --failing: fields of a video that is accepted and then fails")
    answer = server.post("/videos", {**server.fields(), **server.wishes.failing})
    video, _ = server.finish(video_in(answer))
    require(video.get("status") == "failed", video)
    error = video.get("error")
    require(isinstance(error, dict) and error.get("code") and error.get("message"), video)


@point("retrieve.request-id", "every answer has a header x-request-id, errors too")
def _(server: Talk) -> None:
    for path in ("/videos?limit=1", f"/videos/{STRANGER}"):
        answer = server.get(path)
        require(answer.headers.get("x-request-id"), f"{path}: {came(answer)} without x-request-id")


# --- list -------------------------------------------------------------------------------------------------------------


@point("list.shape", "GET /videos: object list, data, first_id, last_id, has_more")
def _(server: Talk) -> None:
    server.finished  # noqa: B018  # so that there is one
    page = json_in(server.get("/videos"))
    require(page.get("object") == "list" and isinstance(page.get("data"), list), page)
    require(isinstance(page.get("has_more"), bool), {key: page[key] for key in page if key != "data"})
    ids = [video.get("id") for video in page["data"]]
    require(ids and (page.get("first_id"), page.get("last_id")) == (ids[0], ids[-1]), page)


@point("list.objects", "the entries of a list are whole video objects")
def _(server: Talk) -> None:
    server.finished  # noqa: B018
    found = [fault for video in _page(server) for fault in faults(video)]
    require(not found, "; ".join(found[:3]))


@point("list.order", "newest first; order=asc turns it round")
def _(server: Talk) -> None:
    first, second = server.finished["id"], server.second["id"]
    down = [video["id"] for video in itertools.islice(_walk(server, "desc"), 200) if video["id"] in (first, second)]
    require(down == [second, first], f"desc: the younger of two comes {'second' if down else 'never'}")
    default = [video["id"] for video in _page(server, limit="100") if video["id"] in (first, second)]
    require(default == [second, first], "without an order the younger of two does not come first")
    times = [video["created_at"] for video in _page(server, order="asc", limit="100")]
    require(times == sorted(times), "asc: the times fall")


@point("list.limit", "limit=1 gives one, and has_more says that there are more")
def _(server: Talk) -> None:
    server.second  # noqa: B018
    page = json_in(server.get("/videos", params={"limit": "1"}))
    require(len(page.get("data", [])) == 1 and page.get("has_more") is True, page)


@point("list.paging", "after=last_id goes on, nothing twice, nothing missing, and the last page says has_more false")
def _(server: Talk) -> None:
    wanted = {server.finished["id"], server.second["id"]}
    seen = [video["id"] for video in _walk(server, "desc", limit="2")]
    require(len(seen) == len(set(seen)), "a video came twice")
    require(wanted <= set(seen), "a video is missing")


@point("list.bad-limit", "limit=many: 400 or 422 in the standard shape")
def _(server: Talk) -> None:
    refused(server.get("/videos", params={"limit": "many"}), 400, 422)


def _page(server: Talk, **parameters: str) -> list[Object]:
    data = json_in(server.get("/videos", params=parameters)).get("data")
    require(isinstance(data, list) and all(isinstance(video, dict) for video in data), data)
    return list(data or [])


def _walk(server: Talk, order: str, limit: str = "20") -> Any:
    """Every video, page after page, as the published client walks."""
    after: dict[str, str] = {}
    for _ in range(1000):
        page = json_in(server.get("/videos", params={"order": order, "limit": limit, **after}))
        yield from page.get("data", [])
        if page.get("has_more") is False or not page.get("data"):
            return
        require(page.get("last_id"), {key: page[key] for key in page if key != "data"})
        after = {"after": str(page["last_id"])}
    raise DiffersError("after a thousand pages there were more")


# --- content ----------------------------------------------------------------------------------------------------------


@point("content.video", "GET /videos/{id}/content: the film, with a type video/*")
def _(server: Talk) -> None:
    answer = _content(server)
    require(answer.status_code == 200, came(answer))
    require(answer.headers.get("content-type", "").startswith("video/"), came(answer))
    begins = answer.content[:12]
    require(begins[4:8] == b"ftyp" or begins[:4] == b"\x1aE\xdf\xa3", f"the file begins with {begins!r}")


@point("content.variant-video", "variant=video is the same file")
def _(server: Talk) -> None:
    answer = _content(server, variant="video")
    require(answer.status_code == 200 and answer.content == server.film, came(answer))


@point("content.thumbnail", "variant=thumbnail is a picture")
def _(server: Talk) -> None:
    _picture(_content(server, variant="thumbnail"))


@point("content.spritesheet", "variant=spritesheet is a picture")
def _(server: Talk) -> None:
    _picture(_content(server, variant="spritesheet"))


@point("content.unknown-variant", "variant=hologram: 400, 404 or 422 in the standard shape")
def _(server: Talk) -> None:
    refused(_content(server, variant="hologram"), *REFUSALS)


@point("content.range", "bytes=10-19: 206, these ten bytes, and what part of the whole they are")
def _(server: Talk) -> None:
    film = server.film
    answer = _content(server, headers={"Range": "bytes=10-19"})
    require(answer.status_code == 206 and answer.content == film[10:20], came(answer))
    require(answer.headers.get("content-range") == f"bytes 10-19/{len(film)}", answer.headers.get("content-range"))


@point("content.bad-range", "a range beyond the end: 416")
def _(server: Talk) -> None:
    first = len(server.film) + 10
    answer = _content(server, headers={"Range": f"bytes={first}-{first + 5}"})
    require(answer.status_code == 416, came(answer))


@point("content.unfinished", "the film of a video that is not finished: a 4xx in the standard shape")
def _(server: Talk) -> None:
    video = server.unfinished("queued")
    answer = server.get(f"/videos/{video['id']}/content")
    if answer.status_code == 200:
        raise UntriedError("the video was finished meanwhile; give --slow")
    refused(answer, 400, 404, 409, 422, 425)


@point("content.unknown", "an id that is nobody's: 404 in the standard shape")
def _(server: Talk) -> None:
    refused(server.get(f"/videos/{STRANGER}/content"), 404)


def _content(server: Talk, variant: str = "", headers: dict[str, str] | None = None) -> Any:
    parameters = {"variant": variant} if variant else {}
    accept = {"Accept": "application/binary", **(headers or {})}  # what the published client asks for
    return server.get(f"/videos/{server.finished['id']}/content", params=parameters, headers=accept)


def _picture(answer: Any) -> None:
    require(answer.status_code == 200, came(answer))
    require(answer.headers.get("content-type", "").startswith("image/"), came(answer))
    begins = answer.content[:12]
    known = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF")
    require(begins.startswith(known) or begins[4:8] == b"ftyp", f"the file begins with {begins!r}")


# --- delete -----------------------------------------------------------------------------------------------------------


@point("delete.reply", 'DELETE /videos/{id}: {"id", "object": "video.deleted", "deleted": true}')
def _(server: Talk) -> None:
    made = server.finish(server.create())[0]
    said = json_in(server.drop(made["id"]))
    require((said.get("id"), said.get("object"), said.get("deleted")) == (made["id"], "video.deleted", True), said)


@point("delete.gone", "what is deleted is gone: 404 for the object and the film, and no list has it")
def _(server: Talk) -> None:
    made = server.finish(server.create())[0]
    answer = server.drop(made["id"])
    require(answer.is_success, came(answer))
    refused(server.get(f"/videos/{made['id']}"), 404)
    refused(server.get(f"/videos/{made['id']}/content"), 404)
    require(made["id"] not in [video.get("id") for video in _page(server)], "it is still on the list")


@point("delete.unknown", "an id that is nobody's: 404 in the standard shape")
def _(server: Talk) -> None:
    refused(server.drop(STRANGER), 404)


@point("delete.queued", "a queued video can be deleted, and does not come back")
def _(server: Talk) -> None:
    _deleted(server, server.unfinished("queued"))


@point("delete.running", "a video in the making can be deleted, which aborts it, and does not come back")
def _(server: Talk) -> None:
    _deleted(server, server.unfinished("in_progress"))


def _deleted(server: Talk, video: Object) -> None:
    said = json_in(server.drop(video["id"]))
    require((said.get("object"), said.get("deleted")) == ("video.deleted", True), said)
    refused(server.get(f"/videos/{video['id']}"), 404)


# --- remix, edits, extensions, characters -----------------------------------------------------------------------------


@point("remix.video", "POST /videos/{id}/remix with JSON {prompt}: a new video that says what it was remixed from")
def _(server: Talk) -> None:
    source = server.finished["id"]
    video = video_in(server.post(f"/videos/{source}/remix", json={"prompt": server.wishes.prompt}))
    require(video["id"] != source and video.get("remixed_from_video_id") == source, video)
    require(not faults(video), "; ".join(faults(video)))


@point("remix.without-prompt", "no prompt: 400 or 422 in the standard shape")
def _(server: Talk) -> None:
    refused(server.post(f"/videos/{server.finished['id']}/remix", json={}), 400, 422)


@point("remix.unknown", "an id that is nobody's: 404 in the standard shape")
def _(server: Talk) -> None:
    refused(server.post(f"/videos/{STRANGER}/remix", json={"prompt": server.wishes.prompt}), 404)


def _many_ways(path: str, what: str, **others: str) -> None:
    """The points of a call that takes a video, as a file or by its id."""
    prompt: Callable[[Talk], dict[str, Any]] = lambda server: {"prompt": server.wishes.prompt, **others}  # noqa: E731
    way = f"POST /videos/{path}, multipart, with"

    @point(f"{path}.file", f"{way} the file: {what}, or 400/422 in the standard shape where the model cannot")
    def _(server: Talk) -> None:
        film = ("clip.mp4", server.film, "video/mp4")
        _done_or_refused(server.post(f"/videos/{path}", {**prompt(server), "video": film}))

    @point(f"{path}.id-keys", f"{way} video[id]: {what}, or 400/422 in the standard shape where the model cannot")
    def _(server: Talk) -> None:
        _done_or_refused(server.post(f"/videos/{path}", {**prompt(server), "video[id]": server.finished["id"]}))

    @point(f"{path}.id-json", f"POST /videos/{path}, JSON, with video.id: {what}, or 400/422 in the standard shape")
    def _(server: Talk) -> None:
        body = {**prompt(server), "video": {"id": server.finished["id"]}}
        _done_or_refused(server.post(f"/videos/{path}", json=body))

    @point(f"{path}.unknown", f"POST /videos/{path} with an id that is nobody's: 400, 404 or 422 in the standard shape")
    def _(server: Talk) -> None:
        refused(server.post(f"/videos/{path}", json={**prompt(server), "video": {"id": STRANGER}}), *REFUSALS)

    @point(f"{path}.without-video", f"POST /videos/{path} without a video: 400 or 422 in the standard shape")
    def _(server: Talk) -> None:
        refused(server.post(f"/videos/{path}", prompt(server)), 400, 422)


_many_ways("edits", "a new video")
_many_ways("extensions", "a new, longer video", seconds="1")


@point("extensions.seconds", "the seconds of an extended video are those of the whole")
def _(server: Talk) -> None:
    source = server.finished
    fields = {"prompt": server.wishes.prompt, "seconds": "1", "video[id]": source["id"]}
    video = _done_or_refused(server.post("/videos/extensions", fields))
    if video is None:
        raise UntriedError("this model cannot extend")
    require(float(video.get("seconds", 0)) > float(source["seconds"]), f"from {source['seconds']}: {short(video)}")


@point(
    "characters.create",
    "POST /videos/characters: a character with an id and a name, or a refusal in the standard shape",
)
def _(server: Talk) -> None:
    film = ("clip.mp4", server.film, "video/mp4")
    answer = server.post("/videos/characters", {"name": "Ball", "video": film})
    if not answer.is_success:
        refused(answer, *REFUSALS, 405, 501)  # whoever has no characters may say so in many ways
        return
    said = json_in(answer)
    require(isinstance(said.get("id"), str) and said.get("name") == "Ball", said)


@point("characters.unknown", "GET /videos/characters/{id} of nobody: 404 in the standard shape")
def _(server: Talk) -> None:
    refused(server.get("/videos/characters/char_00000000"), 404)


# --- keys -------------------------------------------------------------------------------------------------------------


@point("keys.wrong", "a wrong key: 401 in the standard shape")
def _(server: Talk) -> None:
    _with_key(server, "Bearer wrong")


@point("keys.none", "no key: 401 in the standard shape")
def _(server: Talk) -> None:
    _with_key(server, "")


def _with_key(server: Talk, said: str) -> None:
    if not server.wishes.key:
        raise UntriedError("give --key: the server is asked without one")
    refused(server.get("/videos", headers={"Authorization": said}), 401)
