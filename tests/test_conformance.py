"""The conformance suite: a server that keeps the contract passes it, and every single fault is found."""

import json
import re
import sys
from collections.abc import Iterator
from email import message_from_bytes
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qs

import httpx2
import pytest
from PIL import Image
from typer.testing import CliRunner

from kinetograph import conformance
from kinetograph.cli.commands import app
from kinetograph.conformance import Wishes, points
from kinetograph.errors import InvalidRequest, MissingExtra, Unreachable

FILM = b"\0\0\0\x20ftypisom" + bytes(range(100))
PICTURE = b"\x89PNG\r\n\x1a\n and so on"
KEY = "kg_secret"
WISHES = Wishes(key=KEY, slow={"slow": "1"}, failing={"prompt": "fail"}, patience=5.0)


class Refused(Exception):
    def __init__(self, status, message, param=None):
        self.status, self.message, self.param = status, message, param


class Server:
    """A server that keeps the whole contract, except where it has one `fault`. A video moves on when it is
    looked at.
    """

    def __init__(self, fault=""):
        self.fault, self.videos, self.clock = fault, {}, 1000

    def __call__(self, request):
        try:
            answer = self.answer(request)
        except Refused as error:
            answer = self.refusal(error)
        if self.fault != "no request id":
            answer.headers["x-request-id"] = "req_1"
        return answer

    def refusal(self, error):
        if self.fault == "errors of fastapi":
            return httpx2.Response(error.status, json={"detail": error.message})
        said = {"message": error.message, "type": "invalid_request_error", "param": error.param, "code": None}
        if self.fault == "no param":
            said["param"] = None
        return httpx2.Response(error.status, json={"error": said})

    def answer(self, request):
        if self.fault != "open" and request.headers.get("authorization") != f"Bearer {KEY}":
            raise Refused(401, "wrong key")
        path = request.url.path.removeprefix("/v1/videos").strip("/")
        parts = path.split("/") if path else []
        match request.method, parts:
            case "POST", []:
                return httpx2.Response(200, json=self.created(fields(request, self.fault)))
            case "GET", []:
                return httpx2.Response(200, json=self.page(request.url.params))
            case "POST", ["edits" | "extensions" as call]:
                return self.derived(call, fields(request, self.fault))
            case "POST", ["characters"]:
                raise Refused(400, "no characters here")
            case "GET", ["characters", _]:
                raise Refused(404, "no such character")
            case "POST", [source, "remix"]:
                return self.remixed(source, fields(request, self.fault))
            case "GET", [name]:
                return self.retrieved(self.found(name))
            case "GET", [name, "content"]:
                return self.content(self.found(name), request)
            case "DELETE", [name]:
                return self.deleted(self.found(name))
        raise Refused(405, "no")

    def found(self, name):
        if name not in self.videos:
            raise Refused(404, "no such video")
        return self.videos[name]

    def created(self, said, **others):
        if not said.get("prompt"):
            raise Refused(422, "no prompt", "prompt")
        size, seconds = said.get("size", "64x64"), said.get("seconds", "1")
        if not re.fullmatch(r"\d+x\d+", size):
            raise Refused(400, "no size", "size")
        if not seconds.isdecimal():
            raise Refused(400, "no seconds", "seconds")
        if self.fault == "no strangers" and "seed" in said:
            raise Refused(400, "what is a seed?", "seed")
        self.clock += 1
        number = f"video_{len(self.videos) + 1:032x}{self.clock}"
        video = {"id": number, "object": "video", "model": "fake", "status": "queued", "progress": 0}
        video |= {"created_at": self.clock, "completed_at": None, "expires_at": None, "size": size, "seconds": seconds}
        video |= {"prompt": said["prompt"], "remixed_from_video_id": None, "error": None, **others}
        if self.fault == "seconds is a number":
            video["seconds"] = int(seconds)
        if self.fault == "lost letters":
            video["prompt"] = said["prompt"].encode("ascii", "replace").decode()
        self.videos[number] = video
        return dict(video)

    def derived(self, call, said):
        if self.fault == "no edits" and call == "edits":
            raise Refused(405, "no")
        video = said.get("video")
        source = said.get("video[id]") or (video or {}).get("id") if isinstance(video, dict | None) else None
        if self.fault == "no keys in brackets" and "video[id]" in said:
            return httpx2.Response(500, text="oops")
        if not source and not isinstance(video, bytes):
            raise Refused(422, "no video", "video")
        longer = 1 if call == "edits" else 2
        if self.fault == "seconds of the addition":
            longer = 1
        if source:
            self.found(source)
        return httpx2.Response(200, json=self.created({"prompt": said.get("prompt"), "seconds": str(longer)}))

    def remixed(self, source, said):
        self.found(source)
        if self.fault == "no remix":
            return httpx2.Response(404, json={"detail": "Not Found"})
        origin = None if self.fault == "a remix of nothing" else source
        return httpx2.Response(200, json=self.created(said, remixed_from_video_id=origin))

    def retrieved(self, video):
        self.move(video)
        status = 500 if self.fault == "a failure is an error" and video["status"] == "failed" else 200
        headers = {} if self.fault == "no poll header" else {"openai-poll-after-ms": "10"}
        return httpx2.Response(status, json=video, headers=headers)

    def move(self, video):
        slow = self.fault == "never done"
        if video["status"] == "queued":
            video["status"] = "in_progress"
            video["progress"] = 60 if self.fault == "progress falls" else 1
        elif video["status"] == "in_progress" and video["progress"] < 50:
            video["progress"] = 50
        elif video["status"] == "in_progress" and video["prompt"] == "fail":
            error = {"message": "it failed"} if self.fault == "no code" else {"code": "bad", "message": "it failed"}
            video |= {"status": "failed", "error": error}
        elif video["status"] == "in_progress" and not slow:
            if self.fault == "progress falls" and video["progress"] == 60:
                video["progress"] = 55
                return
            video |= {"status": "completed", "progress": 100, "completed_at": self.clock}
            video |= {"no end": {"completed_at": None}, "99": {"progress": 99}}.get(self.fault, {})
            if self.fault == "a status of its own":
                video["status"] = "succeeded"

    def content(self, video, request):
        if video["status"] != "completed":
            if self.fault == "half a film":
                return httpx2.Response(500, text="oops")
            raise Refused(409, "not ready")
        variant = request.url.params.get("variant", "video")
        if self.fault == "variants are ignored" or variant == "video":
            return self.film(request.headers.get("range", ""))
        if variant not in ("thumbnail", "spritesheet"):
            raise Refused(400, "no such variant", "variant")
        return httpx2.Response(200, content=PICTURE, headers={"content-type": "image/png"})

    def film(self, wanted):
        kind = "application/octet-stream" if self.fault == "no type" else "video/mp4"
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted)
        if not asked or self.fault == "no ranges":
            return httpx2.Response(200, content=FILM, headers={"content-type": kind})
        first, last = map(int, asked.groups())
        if first >= len(FILM):
            return httpx2.Response(416)
        headers = {"content-type": kind, "content-range": f"bytes {first}-{last}/{len(FILM)}"}
        return httpx2.Response(206, content=FILM[first : last + 1], headers=headers)

    def deleted(self, video):
        if self.fault == "no cancel" and video["status"] in ("queued", "in_progress"):
            raise Refused(409, "wait until it is done")
        if self.fault != "deleted in name":
            del self.videos[video["id"]]
        if self.fault == "the video as the reply":
            return httpx2.Response(200, json={**video, "status": "deleted"})
        return httpx2.Response(200, json={"id": video["id"], "object": "video.deleted", "deleted": True})

    def page(self, asked):
        if not asked.get("limit", "20").isdecimal():
            raise Refused(422, "no number", "limit")
        up = asked.get("order") == "asc" or self.fault == "oldest first"
        videos = sorted(self.videos.values(), key=lambda video: video["created_at"], reverse=not up)
        ids = [video["id"] for video in videos]
        start = ids.index(asked["after"]) + 1 if asked.get("after") in ids and self.fault != "after is ignored" else 0
        data = videos[start : start + int(asked.get("limit", 20))]
        said = {"object": "list", "data": data, "has_more": start + len(data) < len(videos)}
        if self.fault != "no last_id":
            said |= {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
        return said


def fields(request, fault):
    """The fields of a request, from JSON, a form or a multipart form."""
    kind = request.headers.get("content-type", "")
    if kind.startswith("application/json"):
        if fault == "forms only":
            raise Refused(415, "send a form")
        try:
            return json.loads(request.content)
        except ValueError as error:
            raise Refused(400, "no JSON") from error
    if kind.startswith("multipart/form-data"):
        if fault == "json only":
            raise Refused(415, "send JSON")
        return dict(parts(kind, request.read()))
    return {name: values[0] for name, values in parse_qs(request.content.decode()).items()}


def parts(kind, body) -> Iterator[tuple[str, object]]:
    message = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
    for part in message.get_payload():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        yield name, content if part.get_filename() else content.decode()


def examined(fault="", wishes=WISHES, **how):
    return conformance.examine("http://fake", wishes, transport=httpx2.MockTransport(Server(fault)), **how)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def failed(report):
    return {finding.name for finding in report.findings if finding.state == "failed"}


def test_a_server_that_keeps_the_contract_passes_every_point():
    report = examined()
    assert [(finding.name, finding.came) for finding in report.findings if finding.state != "passed"] == []
    assert report.count("passed") == len(points.POINTS) == len({point.name for point in points.POINTS}) >= 50
    assert report.conforms


FAULTS = {
    "errors of fastapi": {"retrieve.unknown", "create.without-prompt", "list.bad-limit", "delete.unknown"},
    "no param": {"create.bad-size", "create.bad-seconds"},
    "no request id": {"retrieve.request-id"},
    "open": {"keys.wrong", "keys.none"},
    "no strangers": {"create.extra"},
    "seconds is a number": {"create.object", "create.seconds", "retrieve.object", "list.objects", "remix.video"},
    "lost letters": {"create.unicode"},
    "forms only": {"create.json", "create.input-reference-object", "remix.video", "edits.id-json"},
    "json only": {"create.multipart"},
    "no edits": {"edits.file", "edits.id-keys", "edits.id-json", "edits.unknown", "edits.without-video"},
    "no keys in brackets": {"edits.id-keys", "extensions.id-keys", "extensions.seconds"},
    "seconds of the addition": {"extensions.seconds"},
    "no remix": {"remix.video", "remix.without-prompt"},
    "a remix of nothing": {"remix.video"},
    "a failure is an error": {"retrieve.failed"},
    "no code": {"retrieve.failed"},
    "no poll header": {"retrieve.poll-after"},
    "progress falls": {"retrieve.progress"},
    "no end": {"retrieve.completed-at"},
    "99": {"retrieve.progress"},
    "a status of its own": {"retrieve.completes", "retrieve.statuses"},
    "half a film": {"content.unfinished"},
    "variants are ignored": {"content.thumbnail", "content.spritesheet", "content.unknown-variant"},
    "no type": {"content.video"},
    "no ranges": {"content.range", "content.bad-range"},
    "no cancel": {"delete.queued", "delete.running"},
    "deleted in name": {"delete.gone", "delete.queued", "delete.running"},
    "the video as the reply": {"delete.reply", "delete.queued", "delete.running"},
    "oldest first": {"list.order"},
    "after is ignored": {"list.paging"},
    "no last_id": {"list.shape", "list.paging"},
}
EXACT = {fault for fault in FAULTS if fault not in ("errors of fastapi", "forms only", "json only")}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found_and_what_came_is_said(fault):
    report = examined(fault)
    assert failed(report) >= FAULTS[fault]
    assert failed(report) == FAULTS[fault] or fault not in EXACT
    assert all(finding.came for finding in report.findings if finding.state == "failed")
    assert not report.conforms


def test_a_video_that_is_never_done_runs_out_of_patience():
    report = examined("never done", Wishes(key=KEY, patience=0.0), only="retrieve.completes")
    assert "after 0 s" in report.findings[0].came


def test_what_a_server_cannot_be_asked_is_untried_and_not_passed():
    report = examined("open", Wishes(), only="")
    untried = {finding.name for finding in report.findings if finding.state == "untried"}
    assert untried == {"retrieve.failed", "keys.wrong", "keys.none"}


def test_what_was_made_is_deleted_again():
    server = Server()
    conformance.examine("http://fake/v1/", WISHES, transport=httpx2.MockTransport(server))
    assert server.videos == {}


def test_points_can_be_chosen_by_the_beginning_of_their_names():
    assert {finding.name for finding in examined(only="content.").findings} == {
        point.name for point in points.POINTS if point.name.startswith("content.")
    }
    with pytest.raises(InvalidRequest, match="nothing"):
        examined(only="nothing")


def test_a_server_that_does_not_answer_is_named():
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"):
        conformance.examine("http://127.0.0.1:9")
    with pytest.raises(Unreachable):
        conformance.examine("no url at all")


def test_a_point_that_gets_no_answer_fails_and_the_rest_goes_on():
    server = Server()

    def cut(request):
        if request.method == "DELETE":
            raise httpx2.ReadError("cut")
        return server(request)

    report = conformance.examine("http://fake", WISHES, transport=httpx2.MockTransport(cut))
    assert {name for name in failed(report) if name.startswith("delete.")} == {
        name for name in (point.name for point in points.POINTS) if name.startswith("delete.")
    }
    assert report.count("passed") > 40


def test_without_the_extra_the_hint_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(MissingExtra) as caught:
        conformance.examine("http://fake")
    assert "kinetograph[conformance]" in caught.value.hint


def test_the_command_prints_a_table_and_leaves_with_one_where_a_point_fails(monkeypatch):
    real = conformance.examine

    def faulty(fault):
        transport = httpx2.MockTransport(Server(fault))
        monkeypatch.setattr(conformance, "examine", lambda *a, **how: real(*a, **how, transport=transport))

    faulty("no ranges")
    shown = CliRunner().invoke(app, ["conformance", "http://fake", "--key", KEY, "--only", "content"])
    assert shown.exit_code == 1
    assert re.search(r"^failed  content\.range +bytes=10-19", shown.stdout, re.M)
    assert "came: 200 video/mp4" in shown.stdout
    faulty("")
    shown = CliRunner().invoke(
        app, ["conformance", "http://fake", "--key", KEY, "--failing", "prompt=fail", "--only", "retrieve", "--json"]
    )
    assert shown.exit_code == 0
    said = json.loads(shown.stdout)
    assert (said["failed"], said["untried"]) == (0, 0)
    assert CliRunner().invoke(app, ["conformance", "http://fake", "--set", "x"]).exit_code == 2


def test_the_picture_that_is_sent_is_one():
    assert Image.open(BytesIO(points.png(5, 3))).convert("RGB").getpixel((4, 2)) == (128, 128, 128)


def test_the_documentation_lists_every_point_as_it_is():
    page = (Path(__file__).parents[1] / "docs" / "conformance.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z.-]+)` \| (.+?) \| (\S+) \| (\S+) \| (\S+) \|$", page, re.M)
    assert [(name, expected) for name, expected, *_ in rows] == [(p.name, p.expected) for p in points.POINTS]
    said = [[row[column] for row in rows] for column in (3, 4)]
    counts = [count for column in said for count in (column.count("yes"), column.count("no"))]
    sentence = re.search(r"^Of (\d+) points .*?(\d+) .*?(\d+), .*?(\d+) .*?(\d+)\.$", page, re.M)
    assert [int(number) for number in sentence.groups()] == [len(rows), *counts]
