"""Who may ask, how often, for how much, and what a stranger cannot find out."""

import asyncio
import json
import socket
import time
from pathlib import Path

import pytest

from kinetograph.jobs import Keys
from kinetograph.server import app as applications
from kinetograph.server.settings import Settings, is_loopback

BODY = {"prompt": "a red ball moving left"}


class Asgi:
    """Speaks ASGI itself, to see when the body is asked for."""

    def __init__(self, app):
        self.app, self.asked = app, 0

    def __call__(self, path, headers, *, method="POST", chunks=(), pause=0.0):
        said = {}

        async def receive():
            self.asked += 1
            await asyncio.sleep(pause)
            if self.asked <= len(chunks):
                return {"type": "http.request", "body": chunks[self.asked - 1], "more_body": self.asked < len(chunks)}
            return {"type": "http.disconnect"}

        async def send(message):
            if message["type"] == "http.response.start":
                said["status"] = message["status"]
            else:
                said["body"] = said.get("body", b"") + message.get("body", b"")

        names = [(name.lower().encode(), value.encode()) for name, value in {"host": "127.0.0.1", **headers}.items()]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": names,
            "client": ("127.0.0.1", 5),
            "server": ("127.0.0.1", 80),
            "app": self.app,
        }
        asyncio.run(self.app(scope, receive, send))
        return said["status"], json.loads(said["body"])


# --- keys ---------------------------------------------------------------------------------------------------


def test_without_any_key_everybody_on_this_machine_may_ask(house):
    assert house.client.get("/v1/videos").status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer nonsense"},
        {"authorization": "Bearer kg_00000000_" + "0" * 48},
        {"authorization": "Bearer " + "k" * 10_000},
        {"authorization": "Basic {key}"},
        {"authorization": "Bearer {key}0"},
        {"authorization": "Bearer {short}"},
        {"authorization": "Bearer {wrong}"},
        {"x-api-key": "{key}"},
    ],
)
def test_with_a_key_everybody_needs_a_right_one(house, header):
    key = house.key("anna")["authorization"].removeprefix("Bearer ")
    wrong = key[:-1] + ("0" if key[-1] != "0" else "1")
    header = {name: value.format(key=key, short=key[:-1], wrong=wrong) for name, value in header.items()}
    for path in ("/v1/videos", "/v1/engines", "/v1/queue", "/metrics", "/v1/nothing"):
        answer = house.client.get(path, headers=header)
        message = house.refused(answer, 401, "invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert key[:20] not in message
    assert house.client.get(f"/v1/videos?api_key={key}").status_code == 401


def test_a_right_key_opens_also_with_spaces_around_it(house):
    headers = house.key("anna")
    assert house.client.get("/v1/videos", headers=headers).status_code == 200
    headers = {"authorization": "bearer  " + headers["authorization"].removeprefix("Bearer ") + " "}
    assert house.client.get("/v1/videos", headers=headers).status_code == 200


def test_what_only_says_that_the_server_is_there_needs_no_key(house):
    house.key("anna")
    assert house.client.get("/healthz").json() == {"status": "ok"}
    assert house.client.get("/readyz").status_code == 503  # no worker here


def test_a_revoked_key_opens_nothing_and_nothing_opens_without_a_key_then(house, monkeypatch):
    headers = house.key("anna")
    monkeypatch.setattr("kinetograph.server.security.FRESH", -1.0)
    assert house.client.get("/v1/videos", headers=headers).status_code == 200
    keys = Keys(house.store.database)
    keys.revoke(keys.all()[0].id)
    assert house.client.get("/v1/videos", headers=headers).status_code == 401
    assert house.client.get("/v1/videos").status_code == 401


def test_the_database_holds_no_secret(house):
    secret = house.key("anna")["authorization"].rpartition("_")[2]
    files = [path.read_bytes() for path in house.settings.folder.iterdir() if path.is_file()]
    assert files
    assert not any(secret.encode() in content for content in files)


def test_a_key_is_asked_for_before_the_body_is_read(house):
    house.key("anna")
    asgi = Asgi(house.client.app)
    kind = {"content-type": "multipart/form-data; boundary=x"}
    status, said = asgi("/v1/videos", kind, chunks=[b"x" * 1_000_000] * 5)
    assert (status, said["error"]["code"], asgi.asked) == (401, "invalid_api_key", 0)


def test_one_owner_s_videos_are_unknown_to_another(house):
    anna, bert = house.key("anna"), house.key("bert")
    id = house.client.post("/v1/videos", json=BODY, headers=anna).json()["id"]
    unknown = "video_" + "0" * 32
    for method, path in [
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/content"),
        ("GET", "/recipe"),
        ("GET", "/events"),
        ("POST", "/cancel"),
        ("POST", "/pause"),
        ("POST", "/retry"),
    ]:
        theirs = house.client.request(method, f"/v1/videos/{id}{path}", headers=bert)
        none = house.client.request(method, f"/v1/videos/{unknown}{path}", headers=bert)
        assert theirs.status_code == none.status_code == 404
        assert theirs.text.replace(id, unknown) == none.text
    assert house.client.get("/v1/videos", headers=bert).json()["data"] == []
    assert house.client.get("/v1/queue", headers=bert).json()["order"] == []
    assert house.client.get(f"/v1/videos/{id}", headers=anna).status_code == 200


def test_only_an_administrator_holds_the_queue(house):
    anna, root = house.key("anna"), house.key("root", admin=True)
    house.refused(house.client.post("/v1/queue/pause", headers=anna), 403, "forbidden")
    assert house.client.post("/v1/queue/pause", headers=root).json()["paused"]
    assert not house.client.post("/v1/queue/resume", headers=root).json()["paused"]


def test_a_server_that_others_can_reach_wants_a_key_first(tmp_path):
    from kinetograph.errors import InvalidRequest

    with pytest.raises(InvalidRequest, match="no key yet") as refused:
        Settings.of(tmp_path, host="0.0.0.0").check_open()
    assert "kinetograph keys add" in refused.value.hint
    Settings.of(tmp_path, host="127.0.0.9").check_open()
    assert [is_loopback(name) for name in ("::1", "localhost", "10.0.0.1", "example.org")] == [True, True, False, False]


# --- how often ----------------------------------------------------------------------------------------------


def test_a_key_that_asks_too_often_is_told_when_again(house):
    anna, bert = house.key("anna", rate="3/minute"), house.key("bert")
    for _ in range(3):
        assert house.client.post("/v1/videos", json=BODY, headers=anna).status_code == 200
    answer = house.client.post("/v1/videos", json=BODY, headers=anna)
    house.refused(answer, 429, "rate_limit_exceeded")
    assert 1 <= int(answer.headers["retry-after"]) <= 61
    assert house.client.get("/v1/videos", headers=anna).status_code == 200
    assert house.client.post("/v1/videos", json=BODY, headers=bert).status_code == 200


def test_wrong_keys_cannot_be_tried_without_end(house):
    house.key("anna")
    answers = [house.client.get("/v1/videos", headers={"authorization": "Bearer x"}) for _ in range(25)]
    assert [answer.status_code for answer in answers[:20]] == [401] * 20
    house.refused(answers[-1], 429, "rate_limit_exceeded")


def test_a_quota_of_waiting_videos_is_kept(house):
    anna = house.key("anna", most_queued=2)
    for _ in range(2):
        id = house.client.post("/v1/videos", json=BODY, headers=anna).json()["id"]
    answer = house.client.post("/v1/videos", json=BODY, headers=anna)
    house.refused(answer, 429, "quota_exceeded")
    assert int(answer.headers["retry-after"]) > 0
    house.client.post(f"/v1/videos/{id}/cancel", headers=anna)
    assert house.client.post("/v1/videos", json=BODY, headers=anna).status_code == 200


def test_a_quota_of_a_day_is_kept(house):
    anna = house.key("anna", most_daily=1)
    id = house.client.post("/v1/videos", json=BODY, headers=anna).json()["id"]
    house.client.delete(f"/v1/videos/{id}", headers=anna)
    house.refused(house.client.post("/v1/videos", json=BODY, headers=anna), 429, "quota_exceeded")


# --- how much -----------------------------------------------------------------------------------------------


def test_a_body_that_says_it_is_too_large_is_not_read(house):
    asgi = Asgi(house.client.app)
    headers = {"content-type": "application/json", "content-length": str(10**9)}
    status, said = asgi("/v1/videos", headers, chunks=[b"x"])
    assert (status, said["error"]["code"], asgi.asked) == (413, "body_too_large", 0)
    for length in ("x", "-1", "9" * 5000):
        assert Asgi(house.client.app)("/v1/videos", {**headers, "content-length": length})[0] == 413


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x"])
def test_a_body_that_lies_about_its_size_is_cut_off(served, kind):
    house = served(most_body=100_000)
    asgi = Asgi(house.client.app)
    start = (
        b'--x\r\ncontent-disposition: form-data; name="a"; filename="b"\r\n\r\n' if "multipart" in kind else b'{"a": "'
    )
    status, said = asgi("/v1/videos", {"content-type": kind}, chunks=[start, *[b"x" * 50_000] * 1000])
    assert (status, said["error"]["code"]) == (413, "body_too_large")
    assert asgi.asked < 6


def test_a_body_that_takes_too_long_is_given_up(served):
    house = served(slowest_body=0.3)
    asgi, begun = Asgi(house.client.app), time.monotonic()
    status, _ = asgi("/v1/videos", {"content-type": "application/json"}, chunks=[b"x"] * 100, pause=0.1)
    assert status == 408
    assert time.monotonic() - begun < 2


def test_a_refusal_does_not_send_back_what_was_sent(house):
    long = "secret" * 10_000
    for body in (
        {"prompt": long},
        {"prompt": "a", "model": long},
        {"prompt": "a", long: 1},
        {"prompt": "a", "size": long},
    ):
        assert len(house.client.post("/v1/videos", json=body).text) < 1500
    assert len(house.client.get("/v1/videos", params={"order": long}).text) < 1500


@pytest.mark.parametrize("count", [200, 2000])
def test_a_form_of_very_many_fields_is_refused(house, count):
    answer = house.client.post("/v1/videos", data={f"f{n}": "x" for n in range(count)} | {"prompt": "a"})
    house.refused(answer, 400)


@pytest.mark.parametrize(
    "ranges",
    [
        "bytes=" + ",".join(f"{n}-{n + 1}" for n in range(0, 3000, 2)),
        "bytes=" + ",".join(["0-"] * 90),
        "bytes=" + ",".join(f"0-{n}" for n in range(99)),
        "bytes=99999999999-",
        "bytes=-0",
        "bytes=5-2",
        "bytes=a-b",
        "lines=1-2",
        "bytes",
        "bytes=" + "0-1," * 5000,
        "bytes=0-" + "9" * 6000,
    ],
)
def test_ranges_that_are_meant_to_hurt_do_not(house, ranges):
    id = house.made()["id"]
    begun = time.perf_counter()
    answer = house.client.get(f"/v1/videos/{id}/content", headers={"range": ranges})
    assert time.perf_counter() - begun < 1
    if ranges in ("bytes=99999999999-", "bytes=-0"):
        house.refused(answer, 416, "range_not_satisfiable")
        assert answer.headers["content-range"].startswith("bytes */")
    else:
        assert (answer.status_code, len(answer.content)) == (200, int(answer.headers["content-length"]))


# --- pages of others ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_page_of_somebody_else_cannot_change_anything(house, headers):
    answer = house.client.post("/v1/videos", data=BODY, headers=headers)
    house.refused(answer, 403, "foreign_origin")
    id = house.ask()["id"]
    assert house.client.delete(f"/v1/videos/{id}", headers=headers).status_code == 403
    answer = house.client.get("/v1/videos", headers=headers)
    assert "access-control-allow-origin" not in answer.headers
    preflight = house.client.options("/v1/videos", headers={**headers, "access-control-request-method": "POST"})
    assert "access-control-allow-origin" not in preflight.headers


def test_the_server_s_own_page_may(house):
    headers = {"origin": "http://127.0.0.1", "sec-fetch-site": "same-origin"}
    assert house.client.post("/v1/videos", json=BODY, headers=headers).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost@evil.example", "0.0.0.0"])
def test_a_name_that_was_made_to_point_here_is_not_answered(house, host):
    house.refused(house.client.get("/v1/videos", headers={"host": host}), 400, "unknown_host")
    house.refused(house.client.get("/healthz", headers={"host": host}), 400, "unknown_host")


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:80", "LOCALHOST", "videos.example:443"])
def test_a_name_that_is_the_server_s_is_answered(served, host):
    house = served(hosts=("Videos.example",))
    assert house.client.get("/healthz", headers={"host": host}).status_code == 200


# --- what nobody finds out ----------------------------------------------------------------------------------


def test_a_fault_of_the_server_tells_a_stranger_nothing_but_its_number(house, monkeypatch, capsys):
    monkeypatch.setattr(type(house.store), "job", lambda *_: 1 / 0)
    answer = house.client.get("/v1/videos/video_" + "0" * 32)
    message = house.refused(answer, 500, "internal_error")
    assert "division" not in message
    assert "Traceback" not in answer.text


def test_a_database_that_is_away_is_503_with_a_time(house, monkeypatch):
    from kinetograph.errors import StoreFull, StoreUnavailable

    def away(*_, **__):
        raise StoreUnavailable("postgres at 10.1.2.3 is away")

    monkeypatch.setattr(type(house.store), "job", away)
    answer = house.client.get("/v1/videos/video_" + "0" * 32)
    assert "10.1.2.3" not in house.refused(answer, 503, "unavailable")
    assert int(answer.headers["retry-after"]) > 0
    monkeypatch.setattr(type(house.store), "submit", lambda *_, **__: (_ for _ in ()).throw(StoreFull("full")))
    house.refused(house.client.post("/v1/videos", json=BODY), 507, "disk_full")


def test_no_answer_names_a_folder_of_this_machine(house):
    house.made()
    house.made(model="patience", prompt="fail")
    paths = ("/v1/videos", "/v1/engines", "/v1/models", "/v1/queue", "/readyz", "/metrics", "/openapi.json")
    for path in paths:
        answer = house.client.get(path)
        assert str(house.settings.folder) not in answer.text
        assert str(Path(applications.__file__).parents[2]) not in answer.text
        assert "Traceback" not in answer.text


def test_every_answer_carries_the_headers_that_protect_a_browser(house):
    for path in ("/v1/videos", "/nothing", "/healthz"):
        headers = house.client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers


def test_no_page_of_the_framework_that_loads_from_elsewhere(house):
    for path in ("/docs", "/redoc"):
        house.refused(house.client.get(path), 404)


def test_a_request_for_a_picture_by_its_address_opens_no_connection(house, monkeypatch):
    def refuse(*_):
        pytest.fail("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for url in ("http://localhost/a", "http://169.254.169.254/latest", "https://[::1]/", "file:///etc/passwd", "//a/b"):
        body = {**BODY, "model": "patience", "input_reference": {"image_url": url}}
        assert "not fetched" in house.refused(house.client.post("/v1/videos", json=body), 400, param="input_reference")


def test_paths_that_climb_lead_nowhere(house):
    for path in (
        "/v1/../etc/passwd",
        "/v1/videos/..%2f..%2fetc",
        "/v1/engines/..%2f..%2fx",
        "/%2e%2e/x",
        "/v1/" + "a" * 5000,
    ):
        assert house.client.get(path).status_code == 404


def test_the_application_starts_only_where_it_can_keep_something(tmp_path):
    from kinetograph.errors import CannotWrite, StoreError

    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="archive"):
        applications.create(Settings.of(tmp_path, archive=tmp_path / "file" / "archive"))
    with pytest.raises(StoreError, match="cannot be opened"):
        applications.create(Settings.of(tmp_path, database=f"sqlite:///{tmp_path}/no/folder.sqlite"))
