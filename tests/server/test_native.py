"""What goes beyond the Videos API: engines, the queue, health, figures, and the description of it all."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def test_engines_tell_their_limits_and_a_schema_of_their_options(house):
    said = house.client.get("/v1/engines").json()
    assert said["object"] == "list"
    rows = {row["id"]: row for row in said["data"]}
    assert list(rows) == ["render", "gan", "patience"]
    assert (rows["render"]["default"], rows["gan"]["default"]) == (True, False)
    assert (rows["gan"]["available"], rows["gan"]["trained"], rows["gan"]["continues"]) == (True, True, False)
    assert [rows["patience"][name] for name in ("begins", "continues", "edits")] == [True, True, False]
    assert rows["gan"]["sizes"] == {"minimum": 32, "maximum": 256, "multiple": 4, "square": True}
    options = rows["patience"]["options"]["properties"]
    assert options["steps"] == {**options["steps"], "default": 4, "minimum": 1, "maximum": 10_000, "type": "integer"}
    assert rows["patience"]["continues"]
    assert not {"start", "start_sha256", "lora"} & set(options)
    assert house.client.get("/v1/engines/gan").json() == rows["gan"]
    house.refused(house.client.get("/v1/engines/gna"), 404, "engine_not_found")
    assert [row["id"] for row in house.client.get("/v1/models").json()["data"]] == ["render", "gan", "patience"]


def test_only_engines_that_the_operator_allowed_can_be_asked_for(served):
    house = served(engines=("render",))
    house.refused(
        house.client.post("/v1/videos", json={"prompt": "a", "model": "gan"}), 400, "model_not_found", "model"
    )


def test_a_video_can_be_cancelled_and_tried_again(house):
    id = house.ask()["id"]
    said = house.client.post(f"/v1/videos/{id}/cancel").json()
    assert (said["status"], said["state"], said["error"]["code"]) == ("failed", "cancelled", "cancelled")
    assert house.client.post(f"/v1/videos/{id}/retry").json()["status"] == "queued"
    house.worker.step()
    assert house.get(id)["status"] == "completed"
    answer = house.client.post(f"/v1/videos/{id}/cancel")
    house.refused(answer, 409, "video_completed")


def test_a_video_can_be_held_back_and_let_go(house):
    id = house.ask()["id"]
    said = house.client.post(f"/v1/videos/{id}/pause").json()
    assert (said["status"], said["state"], said["queue_position"]) == ("queued", "paused", None)
    assert not house.worker.step()
    assert house.client.post(f"/v1/videos/{id}/resume").json()["state"] == "queued"
    assert house.worker.step()


def test_the_queue_can_be_put_in_another_order(house):
    a, b, c = (house.ask()["id"] for _ in range(3))

    def order():
        return house.client.get("/v1/queue").json()["order"]

    assert order() == [a, b, c]
    house.client.post(f"/v1/videos/{c}/move", json={"to": "front"})
    assert order() == [c, a, b]
    house.client.post(f"/v1/videos/{c}/move", json={"to": "back"})
    assert order() == [a, b, c]
    house.client.post(f"/v1/videos/{a}/move", json={"after": b})
    assert order() == [b, a, c]
    house.client.post(f"/v1/videos/{c}/move", data={"before": b})
    assert order() == [c, b, a]
    for body in ({}, {"to": "up"}, {"to": "front", "before": a}, {"before": 5}):
        house.refused(house.client.post(f"/v1/videos/{a}/move", json=body), 400, param="to")
    house.refused(house.client.post(f"/v1/videos/{a}/move", json={"before": "nobody"}), 404)


def test_the_queue_can_be_held_as_a_whole(house):
    house.ask()
    assert house.client.post("/v1/queue/pause").json()["paused"]
    assert not house.worker.step()
    assert not house.client.post("/v1/queue/resume").json()["paused"]
    house.store.seen("host:1", ["render"], "video_x")
    said = house.client.get("/v1/queue").json()
    assert said["queued"] == 1
    [busy] = [worker for worker in said["workers"] if worker["busy"]]
    assert busy.keys() == {"id", "engines", "seen_seconds", "busy"}
    assert (busy["engines"], busy["seen_seconds"] < 5) == (["render"], True)


def test_a_place_in_the_queue_and_the_time_left_are_told(house):
    house.made(model="patience", prompt="wait", steps=3, pause=0.3)
    ids = [house.ask(model="patience", prompt="wait")["id"] for _ in range(2)]
    house.desk.outlook._known.clear()
    first, second = (house.get(id) for id in ids)
    assert (first["queue_position"], second["queue_position"]) == (1, 2)
    assert 0 < first["eta_seconds"] < second["eta_seconds"]
    held = house.store.claim("w")
    house.store.beat(held, 1, 4)
    assert 0 <= house.get(held.id)["eta_seconds"] < 10


def test_a_recipe_makes_the_same_video_without_a_server(house, tmp_path, monkeypatch):
    import shlex

    from typer.testing import CliRunner

    from kinetograph.cli.commands import app
    from kinetograph.video import Video

    monkeypatch.chdir(tmp_path)
    said = house.made(prompt="a red ball; it's moving left", seed=5, size="48x48")
    recipe = house.client.get(f"/v1/videos/{said['id']}/recipe").json()
    assert recipe["provenance"]["request"] == recipe["request"] == said["request"]
    words = shlex.split(recipe["command"])
    assert CliRunner().invoke(app, [*words[1:], "--out", "a.npz"]).exit_code == 0
    assert Video.load("a.npz").provenance.frames_sha256 == said["media"]["frames_sha256"]
    waiting = house.ask()["id"]
    assert house.client.get(f"/v1/videos/{waiting}/recipe").json()["provenance"] is None


def test_ready_means_that_a_video_can_be_made(house, monkeypatch):
    answer = house.client.get("/readyz")
    well = {"database": True, "worker": False, "archive": True, "writable": True}
    assert (answer.status_code, answer.json()["checks"]) == (503, well)
    assert answer.json()["problems"] == ["no worker is alive"]
    house.store.seen("w")
    ready = {"status": "ready", "checks": {**well, "worker": True}, "problems": []}
    assert house.client.get("/readyz").json() == ready
    with monkeypatch.context() as patch:
        patch.setattr(type(house.archive), "free", lambda _: -1)
        assert house.client.get("/readyz").json()["checks"]["archive"] is False
    house.store.database.engine.dispose()
    assert house.client.get("/healthz").status_code == 200


def test_an_archive_that_cannot_be_written_to_is_said_to_whoever_asks_and_not_to_be_full(house):
    house.store.seen("w")
    house.archive.uploads.rmdir()
    house.archive.uploads.write_text("")  # a fault that root meets as well
    answer = house.client.get("/readyz")
    assert (answer.status_code, answer.json()["problems"]) == (503, ["the archive cannot be written to"])
    file = {"input_reference": ("a.png", b"x", "image/png")}
    answer = house.client.post("/v1/videos", data={"prompt": "wait", "model": "patience"}, files=file)
    house.refused(answer, 503, "cannot_write")


def test_the_figures_count_requests_jobs_and_workers(house):
    house.made()
    house.ask()
    text = house.client.get("/metrics").text
    assert 'kinetograph_jobs{state="completed"} 1.0' in text
    assert 'kinetograph_jobs{state="queued"} 1.0' in text
    assert 'kinetograph_requests_total{method="POST",route="/v1/videos",status="200"} 2.0' in text
    assert "kinetograph_request_seconds_bucket" in text
    assert "video_" not in text.replace("{video_id}", "")


def test_the_description_is_openapi_3_1_with_examples_and_links(house):
    said = house.client.get("/openapi.json").json()
    assert said["openapi"].startswith("3.1")
    create = said["paths"]["/v1/videos"]["post"]
    assert set(create["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert create["requestBody"]["content"]["application/json"]["example"]["prompt"]
    links = create["responses"]["200"]["links"]
    operations = {entry["operationId"] for path in said["paths"].values() for entry in path.values()}
    assert {link["operationId"] for link in links.values()} <= operations
    assert {"retrieve", "content", "remix", "edit", "extend", "cancel", "delete"} <= set(links)
    assert said["components"]["schemas"]["Video"]["example"]["object"] == "video"


def test_the_description_says_which_calls_want_a_key_where_there_are_keys(house, monkeypatch):
    monkeypatch.setattr("kinetograph.server.security.FRESH", -1.0)
    said = house.client.get("/openapi.json").json()
    assert said["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert not any("security" in call for calls in said["paths"].values() for call in calls.values())
    house.key("a")
    said = house.client.get("/openapi.json").json()["paths"]
    assert {path for path, calls in said.items() if not all("security" in call for call in calls.values())} == {
        "/healthz",
        "/readyz",
    }


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/videos", "GET, HEAD, POST"),
        ("OPTIONS", f"/v1/videos/video_{'0' * 32}", "DELETE, GET, HEAD"),
        ("GET", f"/v1/videos/video_{'0' * 32}/remix", "POST"),
        ("GET", "/v1/videos/edits", None),  # as an id that is none
    ],
)
def test_a_method_that_a_path_does_not_have_is_answered_with_those_that_it_has(house, method, path, allowed):
    answer = house.client.request(method, path)
    assert (answer.status_code, answer.headers.get("allow")) == ((405, allowed) if allowed else (404, None))


def test_whatever_answers_get_answers_head_as_well(house):
    made, waiting = house.made()["id"], house.ask()["id"]
    paths = house.client.get("/openapi.json").json()["paths"]
    asked = [path.format(video_id=made, engine_id="gan") for path, said in paths.items() if "get" in said]
    assert len(asked) >= 12
    for path in [*asked, "/openapi.json", f"/v1/videos/video_{'0' * 32}", f"/v1/videos/{made}/recipe?x=1"]:
        head = house.client.head(path)
        assert head.content == b""
        if not path.endswith("/events"):
            got = house.client.get(path)
            assert (head.status_code, head.headers["content-type"]) == (got.status_code, got.headers["content-type"])
    for path in ("/v1/events", f"/v1/videos/{waiting}/events"):  # streams that would not end
        head = house.client.head(path)
        assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert "content-length" not in head.headers
    assert house.client.head(f"/v1/videos/video_{'0' * 32}/events").status_code == 404


def test_the_example_of_the_description_is_a_request_that_works(house):
    said = house.client.get("/openapi.json").json()["paths"]["/v1/videos"]["post"]
    example = said["requestBody"]["content"]["application/json"]["example"]
    assert house.client.post("/v1/videos", json=example).status_code == 200


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
KNOWN = "prompt model seconds size seed width height frames fps n priority steps tags input_reference video"
NAMES = st.sampled_from(f"{KNOWN} extra_body options user guidance start num_frames".split()) | st.text(max_size=8)


@pytest.mark.parametrize("path", ["/v1/videos", "/v1/videos/edits", "/v1/videos/extensions"])
def test_whatever_is_sent_is_a_video_or_a_refusal_in_the_right_shape(house, path):
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.dictionaries(NAMES, VALUES, max_size=5), st.sampled_from(["render", "patience", None]))
    def send(fields, model):
        body = {"prompt": "wait", **({"model": model} if model else {}), **fields}
        answer = house.client.post(path, json=body)
        if answer.status_code == 200:
            assert answer.json()["object"] == "video"
        else:
            assert answer.status_code in (400, 404, 429)
            house.refused(answer, answer.status_code)

    send()
