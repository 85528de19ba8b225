"""/v1/videos: the contract, call by call, over plain HTTP."""

import io
import json
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from kinetograph import footage, weights
from kinetograph.engine import describe, generate, warm
from kinetograph.video import Video

UNKNOWN = "video_" + "0" * 32
CONTRACT = {
    *("id", "object", "model", "status", "progress", "created_at", "completed_at", "expires_at", "size", "seconds"),
    *("prompt", "remixed_from_video_id", "error"),
}


def png(width=32, height=32, colour=(200, 30, 40)):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


def load(content, folder):
    path = folder / "clip.mp4"
    path.write_bytes(content)
    return Video.load(path)


# --- create -------------------------------------------------------------------------------------------------


def test_a_video_object_has_every_field_of_the_contract(house):
    said = house.ask(seconds="2", size="96x64", seed=7)
    assert said.keys() >= CONTRACT
    assert (said["object"], said["status"], said["progress"], said["model"]) == ("video", "queued", 0, "render")
    assert (said["size"], said["seconds"], said["seed"]) == ("96x64", "2", 7)
    assert (said["error"], said["completed_at"], said["remixed_from_video_id"]) == (None, None, None)
    assert isinstance(said["created_at"], int)
    assert said["request"] == {
        "prompt": "a red ball moving left",
        "seed": 7,
        "width": 96,
        "height": 64,
        "frames": 20,
        "fps": "10",
        "options": {"shown": "picture"},
    }


@pytest.mark.parametrize("dress", ["json", "multipart", "urlencoded"])
def test_a_request_may_come_in_any_dress_and_means_the_same(house, dress):
    fields = {"prompt": "wait", "model": "patience", "seconds": "1", "size": "32x48", "seed": "5", "steps": "3"}
    body = {"json": {"json": fields}, "urlencoded": {"data": fields}}.get(dress)
    body = body or {"files": [(name, (None, value)) for name, value in fields.items()]}
    said = house.client.post("/v1/videos", **body).json()
    assert said["request"]["options"]["steps"] == 3
    assert (said["seed"], said["size"], said["seconds"], said["model"]) == (5, "32x48", "1", "patience")


def test_options_of_the_engine_are_coerced_from_text_into_their_types(house):
    fields = [("prompt", "wait"), ("model", "patience"), ("guidance_scale", "2.5"), ("sharp", "true")]
    fields += [("tags[]", "a"), ("tags[]", "b"), ("num_frames", "6"), ("num_inference_steps", "9")]
    said = house.client.post("/v1/videos", files=[(name, (None, value)) for name, value in fields]).json()
    options = said["request"]["options"]
    assert (options["guidance"], options["sharp"], options["tags"], options["steps"]) == (2.5, True, ["a", "b"], 9)
    assert said["request"]["frames"] == 6


@pytest.mark.parametrize("name", ["extra_body", "extra_params", "options"])
def test_what_stands_in_an_extra_object_counts_as_if_it_stood_outside(house, name):
    inner = {"steps": 3, "seed": 9}
    outer = {"prompt": "wait", "model": "patience"}
    one = house.client.post("/v1/videos", json={**outer, name: inner}).json()
    two = house.client.post("/v1/videos", data={**outer, name: json.dumps(inner)}).json()
    bracketed = {**outer, **{f"{name}[{key}]": value for key, value in inner.items()}}
    three = house.client.post("/v1/videos", data=bracketed).json()
    assert one["request"] == two["request"] == three["request"]
    assert (one["seed"], one["request"]["options"]["steps"]) == (9, 3)


def test_the_names_of_the_service_that_is_gone_stand_for_the_default_engine(house):
    for name in ("sora-2", "sora-2-pro", "", None):
        assert house.ask(model=name)["model"] == "render"


def test_a_seed_that_nobody_gave_is_drawn_and_told(house):
    one, two = house.ask(), house.ask(seed=None)
    assert one["seed"] != two["seed"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": ["a"]}, "prompt"),
        ({"prompt": "x" * 2001}, "prompt"),
        ({"prompt": "a\0b"}, "prompt"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"model": "gpt-9"}, "model"),
        ({"model": "pretrained:../../etc"}, "model"),
        ({"model": 5}, "model"),
        ({"seconds": "0"}, "seconds"),
        ({"seconds": "-1"}, "seconds"),
        ({"seconds": "NaN"}, "seconds"),
        ({"seconds": "1e9"}, "seconds"),
        ({"seconds": True}, "seconds"),
        ({"seconds": "4000"}, "frames"),
        ({"seconds": "2", "frames": 7}, "seconds"),
        ({"size": "big"}, "size"),
        ({"size": 64}, "size"),
        ({"size": "64x64", "width": 32}, "size"),
        ({"size": "9000x9000"}, "width"),
        ({"size": "8x64"}, "width"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"seed": True}, "seed"),
        ({"seed": "1e3"}, "seed"),
        ({"seed": "9" * 5000}, "seed"),
        ({"frames": 0}, "frames"),
        ({"frames": 10**6}, "frames"),
        ({"fps": "fast"}, "fps"),
        ({"fps": 0}, "fps"),
        ({"fps": [1]}, "fps"),
        ({"n": 2}, "n"),
        ({"priority": 1000}, "priority"),
        ({"priority": "high"}, "priority"),
        ({"wings": 2}, "wings"),
        ({"steps": 3}, "steps"),
        ({"input_reference": "https://example.org/a.png"}, "input_reference"),
        ({"input_reference": {"image_url": "http://169.254.169.254/"}}, "input_reference"),
        ({"input_reference": {"image_url": "file:///etc/passwd"}}, "input_reference"),
        ({"input_reference": {"file_id": "file-1"}}, "input_reference"),
        ({"extra_body": 5}, "extra_body"),
        ({"extra_body": {"prompt": "again"}}, "prompt"),
        ({"model": "patience", "steps": 0}, "steps"),
        ({"model": "patience", "steps": "many"}, "steps"),
        ({"model": "patience", "tags": {"a": 1}}, "tags"),
        ({"model": "patience", "guidance": "\ud800"}, "guidance"),
    ],
)
def test_a_value_that_is_wrong_is_refused_and_named(house, fields, param):
    body = json.dumps({"prompt": "a red ball moving left", **fields})
    answer = house.client.post("/v1/videos", content=body, headers={"content-type": "application/json"})
    house.refused(answer, 400, param=param)
    assert house.store.counts() == {}


@pytest.mark.parametrize("name", ["start", "lora", "start_sha256"])
def test_a_client_cannot_make_the_server_open_its_own_files(house, name):
    body = {"prompt": "wait", "model": "patience", name: "/etc/passwd"}
    house.refused(house.client.post("/v1/videos", json=body), 400, param=name)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "application/json"),
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b'"prompt"', "application/json"),
        (b'{"prompt": "a", "prompt": "b"}', "application/json"),
        (b'{"prompt": "a", "seed": NaN}', "application/json"),
        (b'{"prompt": "a", "seed": 1e999}', "application/json"),
        (b'{"prompt": ' + b"[" * 100_000, "application/json"),
        (b"\xff\xfe", "application/json"),
        (b"prompt", "text/plain"),
        (b"prompt", "multipart/form-data"),
        (b"--x\r\nnonsense", "multipart/form-data; boundary=x"),
        (b"prompt=a&prompt=b", "application/x-www-form-urlencoded"),
        (b"prompt=a&a[b[c]=1", "application/x-www-form-urlencoded"),
        (b"prompt=a&a[b][c][d][e][f]=1", "application/x-www-form-urlencoded"),
        (b"prompt=a&extra_body={", "application/x-www-form-urlencoded"),
        (b"a=1&a[b]=2&prompt=a", "application/x-www-form-urlencoded"),
    ],
)
def test_a_body_that_is_none_is_refused(house, content, kind):
    answer = house.client.post("/v1/videos", content=content, headers={"content-type": kind})
    house.refused(answer, 400)


@pytest.mark.parametrize(
    "prompt",
    [
        "x",
        "x" * 2000,
        "مرحبا שלום",
        "🎬👩‍👩‍👧",
        "Z̸̡̢͓a̴l̷g̶o̵",
        "<script>alert(1)</script>",
        "'; DROP TABLE jobs;--",
        "{{7*7}} $(id) `id`",
    ],
)
def test_any_prompt_that_is_text_is_kept_exactly(house, prompt):
    said = house.ask(prompt=prompt)
    assert house.get(said["id"])["prompt"] == prompt


def test_an_unavailable_engine_says_so_without_telling_why(served, monkeypatch):
    monkeypatch.setattr(weights, "bundled", list)
    house = served(engines=("render", "flow"))
    answer = house.client.post("/v1/videos", json={"prompt": "a", "model": "flow"})
    assert "there are: render" in house.refused(answer, 400, param="model")


def test_a_video_larger_than_the_server_allows_is_refused_before_anything_is_made(served):
    house = served(most_pixels=64 * 64 * 10)
    house.ask()
    answer = house.client.post("/v1/videos", json={"prompt": "a", "frames": 11})
    assert "nearest: 10" in house.refused(answer, 400, param="frames")


def test_the_same_idempotency_key_makes_one_video(house):
    headers = {"idempotency-key": "abc"}
    one, two = (house.client.post("/v1/videos", json={"prompt": "a"}, headers=headers).json() for _ in range(2))
    assert one["id"] == two["id"]
    other = house.client.post("/v1/videos", json={"prompt": "b"}, headers=headers)
    house.refused(other, 409, "idempotency_key_reused")
    house.refused(house.client.post("/v1/videos", json={"prompt": "b"}, headers={"idempotency-key": "a b"}), 400)


def test_what_the_client_library_sends_once_more_makes_one_video(house):
    body = {"prompt": "a red ball"}
    one = house.client.post("/v1/videos", json=body).json()
    two = house.client.post("/v1/videos", json=body, headers={"x-stainless-retry-count": "1"}).json()
    three = house.client.post("/v1/videos", json=body, headers={"x-stainless-retry-count": "0"}).json()
    assert one["id"] == two["id"] != three["id"]


# --- retrieve, list, delete ---------------------------------------------------------------------------------


def test_status_and_progress_are_truthful_from_step_to_step(house):
    id = house.ask(model="patience", prompt="wait", steps=4)["id"]
    held = house.store.claim("w")
    assert (house.get(id)["status"], house.get(id)["progress"]) == ("in_progress", 0)
    house.store.beat(held, 2, 4)
    said = house.get(id)
    assert (said["progress"], said["step"], said["steps"], said["attempts"]) == (50, 2, 4, 1)
    house.store.beat(held, 4, 4)
    assert house.get(id)["progress"] == 99
    house.store.release(held)
    assert (house.get(id)["status"], house.get(id)["progress"]) == ("queued", 0)
    house.worker.step()
    said = house.get(id)
    assert (said["status"], said["progress"]) == ("completed", 100)
    assert said["completed_at"] >= said["started_at"] >= said["created_at"]
    assert said["media"]["bytes"] > 0


def test_a_failed_video_is_an_answer_like_any_other(house):
    said = house.made(model="patience", prompt="fail")
    assert said["status"] == "failed"
    assert said["error"]["code"] == "engine_error"
    assert "secret" not in json.dumps(said)


def test_an_answer_says_when_it_is_worth_asking_again(house):
    answer = house.client.post("/v1/videos", json={"prompt": "a"})
    assert 100 <= int(answer.headers["openai-poll-after-ms"]) <= 5000
    answer = house.client.get(f"/v1/videos/{answer.json()['id']}")
    assert 100 <= int(answer.headers["openai-poll-after-ms"]) <= 5000


@pytest.mark.parametrize("id", [UNKNOWN, "video_", "x" * 10_000, "%00", "..%2f..%2fetc%2fpasswd", "video_%F0%28"])
def test_an_id_that_is_unknown_is_not_found_however_it_looks(house, id):
    for method, path in [("GET", ""), ("DELETE", ""), ("GET", "/content"), ("POST", "/cancel"), ("GET", "/events")]:
        house.refused(house.client.request(method, f"/v1/videos/{id}{path}"), 404)
    house.refused(house.client.post(f"/v1/videos/{id}/remix", json={"prompt": "a"}), 404)


def test_a_list_pages_as_the_contract_says(house):
    assert house.client.get("/v1/videos").json() == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }
    ids = [house.ask()["id"] for _ in range(5)]
    page = house.client.get("/v1/videos", params={"limit": 2}).json()
    assert [video["id"] for video in page["data"]] == [ids[4], ids[3]]
    assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[4], ids[3], True)
    page = house.client.get("/v1/videos", params={"limit": 2, "after": ids[1]}).json()
    assert ([video["id"] for video in page["data"]], page["has_more"]) == ([ids[0]], False)
    page = house.client.get("/v1/videos", params={"order": "asc", "limit": 1}).json()
    assert page["first_id"] == ids[0]


def test_a_list_can_be_narrowed(house):
    done = house.made(prompt="a blue ball")["id"]
    waiting = house.ask(prompt="a red ball")["id"]
    house.client.post(f"/v1/videos/{waiting}/pause")

    def found(**query):
        return [video["id"] for video in house.client.get("/v1/videos", params=query).json()["data"]]

    assert found(status="completed") == [done]
    assert found(status="queued") == found(status="paused") == [waiting]
    assert found(q="BLUE") == [done]
    assert found(model="render") == [waiting, done]
    assert found(model="gan") == found(status="failed") == []


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        ("limit=0", 400, "limit"),
        ("limit=101", 400, "limit"),
        ("limit=x", 400, "limit"),
        ("order=up", 400, "order"),
        ("status=lost", 400, "status"),
        (f"after={UNKNOWN}", 404, "video_id"),
        ("after=%00", 404, None),
        ("q=%00", 400, "q"),
    ],
)
def test_a_list_refuses_what_it_does_not_understand(house, query, status, param):
    house.refused(house.client.get(f"/v1/videos?{query}"), status, param=param)


def test_a_deleted_video_is_gone_with_its_files(house):
    said = house.made()
    token = house.store.job(said["id"]).token
    answer = house.client.delete(f"/v1/videos/{said['id']}")
    assert answer.json() == {"id": said["id"], "object": "video.deleted", "deleted": True}
    house.refused(house.client.get(f"/v1/videos/{said['id']}"), 404)
    house.refused(house.client.delete(f"/v1/videos/{said['id']}"), 404)
    assert not house.archive.place(token).exists()


# --- content ------------------------------------------------------------------------------------------------


def test_the_content_is_the_clip_with_its_recipe_inside(house, tmp_path):
    said = house.made(seed=7)
    answer = house.client.get(f"/v1/videos/{said['id']}/content", headers={"accept": "application/binary"})
    assert answer.headers["content-type"] == "video/mp4"
    video = load(answer.content, tmp_path)
    assert video.provenance.request.to_dict() == said["request"]
    assert video.provenance.frames_sha256 == said["media"]["frames_sha256"]


@pytest.mark.parametrize(
    ("variant", "kind", "form"),
    [
        ("thumbnail", "image/webp", "WEBP"),
        ("spritesheet", "image/jpeg", "JPEG"),
        ("gif", "image/gif", "GIF"),
    ],
)
def test_the_variants_are_pictures(house, variant, kind, form):
    id = house.made()["id"]
    answer = house.client.get(f"/v1/videos/{id}/content", params={"variant": variant})
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.format == form
    house.refused(house.client.get(f"/v1/videos/{id}/content", params={"variant": "odour"}), 400, param="variant")


def test_what_is_not_finished_has_no_content_and_the_client_is_told_not_to_insist(house):
    id = house.ask()["id"]
    answer = house.client.get(f"/v1/videos/{id}/content")
    house.refused(answer, 409, "video_not_ready")
    assert answer.headers["x-should-retry"] == "false"
    house.client.post(f"/v1/videos/{id}/cancel")
    house.refused(house.client.get(f"/v1/videos/{id}/content"), 409, "video_failed")


def test_ranges_are_answered(house):
    id = house.made()["id"]
    path = f"/v1/videos/{id}/content"
    whole = house.client.get(path)
    assert whole.headers["accept-ranges"] == "bytes"
    part = house.client.get(path, headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole.content)}"
    assert house.client.get(path, headers={"range": "bytes=-5"}).content == whole.content[-5:]
    stale = house.client.get(path, headers={"range": "bytes=0-1", "if-range": '"other"'})
    assert (stale.status_code, stale.content) == (200, whole.content)


def test_a_head_is_the_get_without_its_body_and_knows_no_ranges(house):
    path = f"/v1/videos/{house.made()['id']}/content"
    for variant in ("video", "thumbnail"):
        whole, head = (house.client.request(method, f"{path}?variant={variant}") for method in ("GET", "HEAD"))
        assert (head.status_code, head.content) == (200, b"")
        assert {**head.headers, "x-request-id": ""} == {**whole.headers, "x-request-id": ""}
        assert int(head.headers["content-length"]) == len(whole.content)
    assert house.client.head(path, headers={"range": "bytes=10-19"}).status_code == 200
    assert house.client.head(f"/v1/videos/{house.ask()['id']}/content").status_code == 409


def test_a_file_that_vanished_is_not_found_and_not_an_error_of_the_server(house):
    said = house.made()
    house.archive.remove(house.store.job(said["id"]).token)
    house.refused(house.client.get(f"/v1/videos/{said['id']}/content"), 404, "file_not_found")


# --- remix, edits, extensions -------------------------------------------------------------------------------


def test_a_remix_keeps_everything_but_the_prompt(house):
    first = house.made(model="patience", prompt="wait", steps=3, seed=11, size="48x32", seconds="1")
    said = house.client.post(f"/v1/videos/{first['id']}/remix", json={"prompt": "another"}).json()
    assert said["remixed_from_video_id"] == first["id"]
    assert said["request"] == {**first["request"], "prompt": "another"}
    assert (said["model"], said["kind"]) == ("patience", "remix")
    varied = house.client.post(f"/v1/videos/{first['id']}/remix", json={"prompt": "x", "seed": 12, "steps": 5}).json()
    assert (varied["seed"], varied["request"]["options"]["steps"]) == (12, 5)


def test_a_remix_with_another_engine_takes_what_that_knows(house):
    first = house.made(model="patience", prompt="wait", steps=3, seed=11, size="64x64", frames=10)
    said = house.client.post(f"/v1/videos/{first['id']}/remix", json={"prompt": "a red ball", "model": "gan"}).json()
    assert (said["model"], said["seed"], said["request"]["options"]) == ("gan", 11, {})


def test_only_what_is_finished_can_be_remixed(house):
    id = house.ask()["id"]
    house.refused(house.client.post(f"/v1/videos/{id}/remix", json={"prompt": "a"}), 409, "video_not_ready")
    house.worker.step()
    house.refused(house.client.post(f"/v1/videos/{id}/remix", json={}), 400, param="prompt")


@pytest.mark.parametrize("dress", ["json", "bracketed", "text"])
def test_an_edit_makes_a_video_of_yours_again_with_another_prompt(house, dress):
    first = house.made(seed=5)
    body = {
        "json": {"json": {"prompt": "a blue ball", "video": {"id": first["id"]}}},
        "bracketed": {"data": {"prompt": "a blue ball", "video[id]": first["id"]}},
        "text": {"data": {"prompt": "a blue ball", "video": first["id"]}},
    }[dress]
    said = house.client.post("/v1/videos/edits", **body).json()
    assert (said["kind"], said["remixed_from_video_id"], said["prompt"]) == ("edit", first["id"], "a blue ball")
    assert said["seed"] == 5


def test_an_edit_of_a_file_that_says_how_it_was_made_needs_no_more(house):
    first = house.made(seed=5, size="96x96")
    content = house.client.get(f"/v1/videos/{first['id']}/content").content
    files = {"video": ("../../evil.mp4", content, "video/mp4")}
    said = house.client.post("/v1/videos/edits", data={"prompt": "a blue ball"}, files=files).json()
    assert (said["seed"], said["size"], said["model"], said["kind"]) == (5, "96x96", "render", "edit")


def test_an_edit_of_a_file_that_was_made_with_frames_is_made_with_its_own(house):
    files = {"input_reference": ("photo.png", png(48, 32), "image/png")}
    first = house.client.post("/v1/videos", data={"prompt": "wait"}, files=files).json()
    house.worker.step()
    content = house.client.get(f"/v1/videos/{first['id']}/content").content
    files = {"video": ("clip.mp4", content, "video/mp4")}
    said = house.client.post("/v1/videos/edits", data={"prompt": "wait"}, files=files).json()
    begun, job = house.store.job(first["id"]), house.store.job(said["id"])
    assert job.leans == "start"
    assert job.start not in ("", begun.start)


def test_frames_are_sent_and_not_named_whatever_the_option_for_them_is_called(served, zero):
    house = served(engines=("render", zero))
    for name in ("start", "source"):
        answer = house.client.post("/v1/videos", json={"prompt": "a cat", "model": zero, name: "/etc/hostname"})
        assert "send it as input_reference" in house.refused(answer, 400, param=name)


def test_an_edit_of_a_foreign_file_begins_with_its_frames(house):
    files = {"video": ("photo.png", png(48, 32), "image/png")}
    said = house.client.post("/v1/videos/edits", data={"prompt": "wait"}, files=files).json()
    assert (said["model"], said["size"]) == ("patience", "48x32")
    house.worker.step()
    assert house.get(said["id"])["status"] == "completed"


@pytest.fixture
def zero(picture_model):
    """An engine that changes clips: a picture model of random weights, 64 pixels on a side."""
    yield f"zero:{picture_model('sd')}"
    warm.clear()


FEW = {"frames": 3, "fps": "8", "steps": 4, "seed": 5}


def made_of(reference, clip, **options):
    """The sum of the frames that the engine itself makes of a clip."""
    asked = footage.from_source(clip, options={"steps": 4, **options})
    return generate(reference, describe(reference).request("a cat", seed=5, **asked)).provenance.frames_sha256


def test_an_edit_changes_the_frames_where_the_videos_engine_can(served, zero):
    house = served(engines=(zero, "render"))
    first = house.made(**FEW)
    clip = house.archive.entry(house.store.job(first["id"]).token).video
    body = {"prompt": "a cat", "video": {"id": first["id"]}, "strength": 0.5}
    said = house.client.post("/v1/videos/edits", json=body).json()
    assert (said["kind"], said["model"], said["remixed_from_video_id"]) == ("edit", zero, first["id"])
    assert [said["request"][name] for name in ("frames", "fps", "seed", "width")] == [3, "8", 5, 64]
    house.worker.step()
    done = house.get(said["id"])
    assert done["status"] == "completed", done["error"]
    assert done["media"]["frames_sha256"] == made_of(zero, clip, strength=0.5) != made_of(zero, clip, strength=1.0)
    job = house.store.job(said["id"])
    assert (job.leans, job.asked.options["source"], job.asked.options["start"]) == ("source", job.start, "")
    assert str(house.archive.folder) not in (house.archive.entry(job.token).folder / "entry.json").read_text()
    again = house.client.post(f"/v1/videos/{said['id']}/remix", json={"prompt": "a cat"}).json()
    house.client.delete(f"/v1/videos/{first['id']}")
    house.worker.step()
    assert house.get(again["id"])["media"]["frames_sha256"] == done["media"]["frames_sha256"]


def test_a_foreign_clip_is_edited_by_the_first_engine_that_changes_clips(served, zero, tmp_path):
    house = served(engines=("render", zero))
    frames = np.zeros((3, 64, 64, 3), np.uint8)
    frames[:, 20:40, 10:30] = (250, 60, 20)
    content = Video(frames, Fraction(8)).save(tmp_path / "clip.webm").read_bytes()

    def edited(**fields):
        files = {"video": ("clip.webm", content, "video/webm")}
        said = house.client.post(
            "/v1/videos/edits", data={"prompt": "a cat", "steps": "2", **fields}, files=files
        ).json()
        house.worker.step()
        return house.get(said["id"])

    said = edited()
    assert (said["model"], said["size"], said["request"]["frames"], said["status"]) == (zero, "64x64", 3, "completed")
    said = edited(fit="stretch", size="128x64", frames="2", fps="4")
    assert (said["size"], said["request"]["frames"], said["status"]) == ("128x64", 2, "completed")
    said = edited(size="128x64")
    assert (said["status"], said["error"]["code"]) == ("failed", "invalid_request")
    assert "what was sent is 64x64" in said["error"]["message"]
    assert str(house.archive.folder) not in said["error"]["message"]


def test_a_picture_comes_first_where_an_engine_changes_clips(served, zero):
    house = served(engines=("render", zero))
    files = {"video": ("photo.png", png(64, 64), "image/png")}
    said = house.client.post("/v1/videos/edits", data={"prompt": "a cat", "steps": "2"}, files=files).json()
    job = house.store.job(said["id"])
    assert (job.engine, job.leans, job.asked.options["source"]) == (zero, "start", "")


def test_a_clip_is_neither_set_in_motion_nor_gone_on_from_by_an_engine_that_cannot(served, zero):
    house = served(engines=("render", zero))
    first = house.made(frames=3)
    answer = house.client.post("/v1/videos/extensions", json={"video": {"id": first["id"]}, "model": zero})
    assert "cannot go on from frames" in house.refused(answer, 400, param="video")
    assert [path.name for path in house.archive.uploads.iterdir()] == []


def test_an_extension_holds_the_clip_and_what_comes_after_it(house):
    first = house.made(model="patience", prompt="wait", seconds="1", size="48x32")
    body = {"prompt": "and on", "seconds": "2", "video": {"id": first["id"]}}
    said = house.client.post("/v1/videos/extensions", json=body).json()
    assert (said["seconds"], said["size"], said["kind"]) == ("3", "48x32", "extend")
    assert said["remixed_from_video_id"] == first["id"]
    house.client.delete(f"/v1/videos/{first['id']}")  # what it goes on from is kept for it
    house.worker.step()
    assert house.get(said["id"])["status"] == "completed"


def test_a_clip_that_was_copied_for_a_job_that_is_refused_is_not_kept(house):
    first = house.made(model="patience", prompt="wait")
    body = {"prompt": "and on", "video": {"id": first["id"]}}
    for headers, more in (({}, {"seconds": "soon"}), ({"idempotency-key": "two words"}, {})):
        answer = house.client.post("/v1/videos/extensions", json={**body, **more}, headers=headers)
        house.refused(answer, 400, param="seconds" if more else "idempotency-key")
        assert list(house.archive.uploads.iterdir()) == []


def test_an_extension_of_a_video_whose_engine_cannot_go_on_takes_one_that_can(house):
    first = house.made(frames=8)
    said = house.client.post("/v1/videos/extensions", json={"video": {"id": first["id"]}, "seconds": "1"}).json()
    assert (said["model"], said["request"]["frames"], said["prompt"]) == ("patience", 18, first["prompt"])
    body = {"video": {"id": first["id"]}, "model": "gan", "prompt": "a"}
    house.refused(house.client.post("/v1/videos/extensions", json=body), 400, param="video")


def test_where_no_engine_goes_on_from_frames_that_is_said(served):
    house = served(engines=("render", "gan"))
    first = house.made()
    answer = house.client.post("/v1/videos/extensions", json={"video": {"id": first["id"]}, "prompt": "a"})
    assert "can go on from frames" in house.refused(answer, 400, param="model")


@pytest.mark.parametrize("path", ["edits", "extensions"])
def test_what_is_edited_or_extended_must_be_named(house, path):
    house.refused(house.client.post(f"/v1/videos/{path}", json={"prompt": "a"}), 400, param="video")
    body = {"prompt": "a", "video": {"id": UNKNOWN}}
    house.refused(house.client.post(f"/v1/videos/{path}", json=body), 404)
    house.refused(house.client.post(f"/v1/videos/{path}", json={"prompt": "a", "video": {"id": 5}}), 404)
    body = {"prompt": "a", "video": "https://example.org/v.mp4"}
    house.refused(house.client.post(f"/v1/videos/{path}", json=body), 400, param="video")


def test_a_picture_comes_first(house, tmp_path):
    fields = {"prompt": "wait", "model": "patience"}
    files = {"input_reference": ("a.png", png(48, 32), "image/png")}
    said = house.client.post("/v1/videos", data=fields, files=files).json()
    assert said["size"] == "48x32"
    job = house.store.job(said["id"])
    with Image.open(house.archive.upload(job.start)) as picture:
        assert np.asarray(picture)[0, 0].tolist() == [200, 30, 40]
    house.worker.step()
    video = load(house.client.get(f"/v1/videos/{said['id']}/content").content, tmp_path)
    assert video.provenance.request.options["start"] == job.start
    house.client.delete(f"/v1/videos/{said['id']}")
    assert not house.archive.upload(job.start).exists()


def test_a_picture_may_come_as_a_data_url_and_finds_an_engine_by_itself(house):
    import base64

    url = "data:image/png;base64," + base64.b64encode(png()).decode()
    for reference in (url, {"image_url": url}, {"image_url": {"url": url}}):
        said = house.ask(prompt="wait", input_reference=reference)
        assert (said["model"], said["size"]) == ("patience", "32x32")
    bracketed = {"prompt": "wait", "input_reference[image_url]": url}
    assert house.client.post("/v1/videos", data=bracketed).json()["size"] == "32x32"


def test_a_picture_for_an_engine_that_takes_none_is_refused(house):
    files = {"input_reference": ("a.png", png(), "image/png")}
    answer = house.client.post("/v1/videos", data={"prompt": "a", "model": "render"}, files=files)
    house.refused(answer, 400, param="input_reference")
    assert [path.name for path in house.archive.uploads.iterdir() if path.suffix == ".png"] == []


def test_characters_are_said_not_to_be_here(house):
    house.refused(house.client.post("/v1/videos/characters", data={"name": "a"}), 404, "not_supported")
    house.refused(house.client.get("/v1/videos/characters/char_1"), 404, "not_supported")
