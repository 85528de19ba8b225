"""The page in a real browser: what a visitor does with it, and that it speaks to nobody else."""

import json
import re
import time
from fractions import Fraction

import numpy as np
import pytest
from visiting import Visit, serving

from kinetograph import generate, media
from kinetograph.request import VideoRequest
from kinetograph.server import studio

pytestmark = pytest.mark.slow

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
PIXEL = """(video) => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  const brush = canvas.getContext("2d");
  brush.drawImage(video, 0, 0);
  return [canvas.width, canvas.height, [...brush.getImageData(0, 0, canvas.width, canvas.height).data]];
}"""
SLOW = {"model": "dissolving", "steps": 600}


def ask(server, prompt="a large red ball at rest", **more):
    answer = server.post("/v1/videos", json={"prompt": prompt, "model": "render", "seed": 3, **more})
    assert answer.is_success, answer.text
    return answer.json()


def finished(server, *made):
    late = time.monotonic() + 60
    while time.monotonic() < late:
        now = [server.get(f"/v1/videos/{one['id']}").json() for one in made]
        if all(one["status"] == "completed" for one in now):
            return now
        time.sleep(0.05)
    raise AssertionError(now)


def until(page, fact, argument=None):
    """Wait for a fact of the page. (Playwright's own way evaluates text in the page, which its policy forbids.)"""
    late = time.monotonic() + 20
    while not page.evaluate(fact, argument):
        assert time.monotonic() < late, fact
        page.wait_for_timeout(30)


def playing(page, selector="#film video"):
    """A film that has decoded a frame."""
    until(page, f"document.querySelector({selector!r})?.readyState >= 2")
    return page.locator(selector)


def first_frame(page):
    """The pixels of the first frame, as the browser decodes it."""
    film = playing(page)
    film.evaluate("(video) => { video.pause(); video.currentTime = 0; }")
    until(page, "!document.querySelector('#film video').seeking")
    width, height, pixels = film.evaluate(PIXEL)
    return np.array(pixels, np.int16).reshape(height, width, 4)[..., :3]


def choose(page, engine):
    page.select_option("#engine", engine)
    page.locator("#settings").evaluate("(details) => details.open = true")


def test_the_page_asks_nobody_else_and_needs_few_requests(chromium, url, server):
    visited = Visit(chromium, url)
    page = visited.open()
    page.wait_for_timeout(300)
    assert visited.complaints == []
    files = [call for call in visited.calls if "/v1/" not in call]
    assert len(set(files)) <= 12
    assert all(call.startswith(url) for call in visited.calls)
    policy = server.get("/").headers["content-security-policy"]
    assert policy == studio.POLICY
    assert "unsafe" not in policy
    visited.context.close()


def test_the_policy_holds_what_a_foreign_script_would_try(chromium, url):
    visited = Visit(chromium, url)
    page = visited.open()
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('img'), {src: 'https://example.com/a.png'}))"
    )
    outcome = page.evaluate("""() => {
      try { document.body.insertAdjacentHTML("beforeend", "<b>x</b>"); } catch (error) { return error.name; }
    }""")
    assert outcome == "TypeError"  # trusted types: nothing becomes HTML
    assert page.evaluate("fetch('https://example.com').then(() => 'sent', () => 'refused')") == "refused"
    assert any("Content Security Policy" in complaint for complaint in visited.complaints)
    assert not [call for call in visited.calls if "example.com" in call]
    visited.context.close()


@pytest.mark.parametrize("engine", ["render", "gan"])
def test_a_sentence_becomes_a_film_whose_pixels_are_right(engine, visit, server):
    page = visit()
    choose(page, engine)
    page.fill("#prompt", "a large red ball moving left")
    page.fill("#field-seed", "7")
    page.click("#generate")
    shown = first_frame(page)
    made = server.get("/v1/videos").json()["data"][0]
    request = VideoRequest.from_dict(made["request"])
    assert (request.prompt, request.seed, made["model"]) == ("a large red ball moving left", 7, engine)
    frame = media.enlarged(generate(engine, request, device="cpu").frames[0], 4)
    assert shown.shape == frame.shape
    assert np.abs(shown - frame).mean() < 4
    red = np.argwhere((frame[..., 0] > 180) & (frame[..., 1] < 80)).mean(0).astype(int)
    assert np.abs(shown[tuple(red)] - frame[tuple(red)].astype(np.int16)).max() <= 12


def test_it_is_seen_while_it_is_made_and_can_be_cancelled(visit, server):
    page = visit()
    choose(page, "dissolving")
    page.fill("#prompt", "a gold ball at rest")
    page.fill("#field-steps", "600")
    page.click("#generate")
    picture = page.locator("#film img.preview")
    picture.wait_for()
    before = picture.get_attribute("src")
    until(page, "(before) => document.querySelector('#film img.preview').src !== before", before)
    assert before.startswith("data:image/jpeg")
    page.wait_for_selector("#about .numbers >> text=/Step \\d+ of 600/")
    page.wait_for_selector("#about .numbers >> text=/ left/")
    assert page.locator("#queue-rows .row").count() == 1
    page.locator("#about").get_by_role("button", name="Cancel").click()
    page.wait_for_selector("#film >> text=Cancelled")
    page.wait_for_selector("#queue", state="hidden")
    made = server.get("/v1/videos").json()["data"][0]
    assert (made["status"], made["state"], made["error"]["code"]) == ("failed", "cancelled", "cancelled")
    finished(server, ask(server))  # and the worker is free again


def test_everything_can_be_done_by_keyboard(visit, server):
    finished(server, *(ask(server, f"a {colour} ball at rest") for colour in ("red", "blue", "green")))
    page = visit()
    until(page, "document.querySelectorAll('#grid .open').length === 3")
    keyboard = page.keyboard
    keyboard.press("n")
    keyboard.type("a purple ball growing")
    keyboard.press("Control+Enter")
    until(page, "document.querySelectorAll('#grid .open').length === 4")
    keyboard.press("Escape")
    keyboard.press("g")
    keyboard.press("Home")
    keyboard.press("ArrowRight")
    keyboard.press("Enter")
    page.wait_for_selector("#about .title >> text=a green ball at rest")
    assert page.evaluate("document.activeElement.id") == "stage"
    playing(page)
    until(page, "!document.querySelector('#film video').paused")  # it begins by itself, a moment later
    keyboard.press(" ")
    assert page.evaluate("document.querySelector('#film video').paused")
    at = page.evaluate("document.querySelector('#film video').currentTime = 0.25")
    keyboard.press(".")
    until(page, "(at) => Math.abs(document.querySelector('#film video').currentTime - at - 0.1) < 0.02", at)
    keyboard.press("g")
    keyboard.press("c")
    keyboard.press("ArrowRight")
    keyboard.press("c")
    page.wait_for_selector("#tray-compare:enabled")
    page.focus("#tray-compare")
    keyboard.press("Enter")
    page.wait_for_selector("dialog#compare[open]")
    keyboard.press("Escape")
    page.wait_for_selector("dialog#compare:not([open])", state="attached")
    keyboard.press("/")
    keyboard.type("green")
    until(page, "document.querySelectorAll('#grid .open').length === 1")
    keyboard.press("Escape")
    keyboard.press("?")
    assert page.locator("dialog#keys").is_visible()


def test_on_a_phone_nothing_sticks_out_and_a_thumb_hits_every_button(visit, server):
    finished(server, ask(server, "a small yellow dot circling clockwise on a navy background"))
    page = visit(**PHONE)
    page.fill("#prompt", "a large red ball moving left")
    page.tap("#generate")
    playing(page)
    page.locator("#grid .open").last.tap()
    page.wait_for_selector("#about .title >> text=yellow")
    page.locator("#settings summary").tap()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    controls = "button:not(.link), select, textarea, input:not([type=checkbox], [type=file])"
    small = page.evaluate(
        """(wanted) => [...document.querySelectorAll(wanted)].filter((one) => one.offsetParent)
          .filter((one) => one.offsetHeight < 36).map((one) => one.id || one.textContent)""",
        controls,
    )
    assert small == []


def test_the_form_is_made_of_what_the_engine_says_of_its_options(visit, server):
    page = visit()
    choose(page, "dissolving")
    kinds = {name: page.locator(f"#field-{name}").evaluate("(one) => one.type") for name in (
        "width", "height", "frames", "fps", "seed", "steps", "seconds_each", "ease", "negative_prompt", "invert"
    )}  # fmt: skip
    numbers = dict.fromkeys(("width", "height", "frames", "seed", "steps", "seconds_each"), "number")
    assert kinds == numbers | {"fps": "text", "ease": "select-one", "negative_prompt": "textarea", "invert": "checkbox"}
    assert page.locator("#field-steps").get_attribute("max") == "1000"
    page.fill("#prompt", "a red ball at rest")
    page.fill("#field-steps", "2")
    page.fill("#field-seconds_each", "0")
    page.select_option("#field-ease", "linear")
    page.fill("#field-negative_prompt", "nothing blue")
    page.check("#field-invert")
    page.fill("#field-width", "96")
    page.fill("#field-fps", "30000/1001")
    page.fill("#field-seed", "4294967296")
    page.click("#generate")
    playing(page)
    made = VideoRequest.from_dict(server.get("/v1/videos").json()["data"][0]["request"])
    wanted = {"steps": 2, "seconds_each": 0, "ease": "linear", "negative_prompt": "nothing blue", "invert": True}
    assert dict(made.options) == wanted | {"source": "", "source_sha256": ""}
    assert (made.width, made.height, made.seed, made.fps) == (96, 64, 2**32, Fraction(30000, 1001))
    choose(page, "gan")
    assert page.locator("#field-height").count() == 0  # it draws squares: one number is the size
    assert page.locator("#field-steps").count() == 0


def test_a_value_that_is_refused_is_marked_where_it_stands(chromium, url, server):
    visited = Visit(chromium, url)  # the browser itself complains of an answer of 400
    page = visited.open()
    choose(page, "dissolving")
    page.fill("#prompt", "a red ball at rest")
    page.fill("#field-steps", "5000")
    page.click("#generate")
    page.wait_for_selector("#fault-steps:not([hidden])")
    assert page.locator("#field-steps").get_attribute("aria-invalid") == "true"
    page.fill("#field-steps", "2")
    page.fill("#field-width", "63")
    page.click("#generate")
    page.wait_for_selector("#fault-width >> text=nearest")
    page.click("#defaults")
    page.fill("#prompt", "  ")
    page.click("#generate")
    page.wait_for_selector("#prompt-fault >> text=Say what should be seen")
    assert server.get("/v1/videos").json()["data"] == []
    visited.context.close()


def test_a_clip_is_reused_and_remixed(visit, server):
    (made,) = finished(server, ask(server, "a red ball moving left", frames=6, width=96, height=96))
    page = visit(f"#{made['id']}")
    about = page.locator("#about")
    about.get_by_role("button", name="Reuse").click()
    assert page.input_value("#prompt") == "a red ball moving left"
    assert [page.input_value(f"#field-{name}") for name in ("width", "frames", "seed")] == ["96", "6", "3"]
    about.get_by_role("button", name="Remix").click()
    page.wait_for_selector("#mode >> text=A remix of")
    page.fill("#prompt", "a blue ball moving left")
    page.click("#generate")
    page.wait_for_selector("#about .title >> text=a blue ball moving left")
    playing(page)
    remix = server.get("/v1/videos").json()["data"][0]
    assert (remix["remixed_from_video_id"], remix["kind"]) == (made["id"], "remix")
    assert {**remix["request"], "prompt": ""} == {**made["request"], "prompt": ""}
    page.locator("#about a >> text=another clip").click()
    page.wait_for_selector("#about .title >> text=a red ball moving left")


def test_a_clip_is_extended_and_a_picture_set_in_motion(visit, server, flow, tmp_path):
    size = {"model": flow, "width": 16, "height": 16, "frames": 4, "steps": 2}
    (made,) = finished(server, ask(server, "a red ball", **size))
    page = visit(f"#{made['id']}")
    page.locator("#about").get_by_role("button", name="Extend").click()
    page.wait_for_selector("#mode >> text=Going on from")
    page.locator("#settings").evaluate("(details) => details.open = true")
    page.fill("#field-seconds", "0.4")
    page.fill("#field-steps", "2")
    page.click("#generate")
    page.wait_for_selector("#about dt >> text=goes on from")
    longer = server.get("/v1/videos").json()["data"][0]
    finished(server, longer)
    assert float(longer["seconds"]) == pytest.approx(float(made["seconds"]) + 0.4, abs=0.11)
    from PIL import Image

    Image.new("RGB", (16, 16), (200, 30, 30)).save(tmp_path / "start.png")
    choose(page, flow)
    page.set_input_files("#start", tmp_path / "start.png")
    page.fill("#field-steps", "2")
    page.fill("#prompt", "a ball that begins red")
    page.click("#generate")
    page.wait_for_selector("#about .title >> text=begins red")
    (begun,) = finished(server, server.get("/v1/videos").json()["data"][0])
    assert begun["request"]["options"]["steps"] == 2


def test_a_clip_is_edited_by_keyboard_where_an_engine_changes_clips(visit, server):
    (made,) = finished(server, ask(server, "a red ball moving left", frames=6, width=96, height=96))
    page = visit(f"#{made['id']}")
    page.locator("#about").get_by_role("button", name="Edit").wait_for()
    keyboard = page.keyboard
    keyboard.press("s")
    keyboard.press("e")
    page.wait_for_selector("#mode >> text=A change of")
    page.wait_for_selector("text=what should change?")
    assert (page.input_value("#prompt"), page.input_value("#engine")) == ("a red ball moving left", "dissolving")
    unable = page.locator("#engine option:disabled").evaluate_all("(all) => all.map((one) => one.value)")
    assert {"render", "gan"} <= set(unable)
    page.locator("#settings").evaluate("(details) => details.open = true")
    page.fill("#field-steps", "2")
    page.focus("#prompt")
    keyboard.press("Control+a")
    keyboard.type("a blue ball at rest")
    keyboard.press("Control+Enter")
    page.wait_for_selector("#about dt >> text=changed from")
    (edited,) = finished(server, server.get("/v1/videos").json()["data"][0])
    assert [edited[name] for name in ("kind", "model", "remixed_from_video_id")] == ["edit", "dissolving", made["id"]]
    request = edited["request"]
    assert request["options"].pop("source").endswith(".mp4")
    assert (request["prompt"], request["options"]["steps"]) == ("a blue ball at rest", 2)
    assert {**request, "options": {}, "prompt": ""} == {**made["request"], "options": {}, "prompt": ""}
    assert page.locator("#mode").is_hidden()  # and the form is as it was
    assert page.locator("#engine option:disabled").count() == 0
    playing(page)


def test_nothing_is_said_of_editing_where_no_engine_changes_clips(visit, server):
    (made,) = finished(server, ask(server))
    said = server.get("/v1/engines").json()
    page = visit()
    unable = {**said, "data": [{**row, "edits": False} for row in said["data"]]}
    page.route("**/v1/engines", lambda route: route.fulfill(json=unable))
    page.goto(f"{page.url.partition('#')[0]}#{made['id']}")
    page.reload()
    page.wait_for_selector("html[data-ready]")
    page.locator("#about").get_by_role("button", name="Remix").wait_for()
    assert page.locator("#about").get_by_role("button", name="Edit").count() == 0
    page.keyboard.press("e")
    assert page.locator("#mode").is_hidden()
    page.keyboard.press("?")
    assert page.locator("#key-edit").is_hidden()


def test_two_clips_play_side_by_side_in_step(visit, server):
    finished(server, ask(server, frames=30), ask(server, "a blue ball moving left", frames=20, seed=4))
    page = visit()
    for index in (0, 1):
        page.locator(".card .mark input").nth(index).check(force=True)
    page.click("#tray-compare")
    until(page, "[...document.querySelectorAll('#pair video')].filter((one) => one.readyState >= 2).length === 2")
    until(page, "[...document.querySelectorAll('#pair video')].every((one) => one.currentTime > 0.2)")
    page.focus("#compare-time")
    page.keyboard.press(" ")
    still = "[...document.querySelectorAll('#pair video')].every((one) => one.paused && !one.seeking)"
    until(page, still)
    times = page.evaluate("[...document.querySelectorAll('#pair video')].map((one) => one.currentTime)")
    assert abs(min(times[0], 1.95) - min(times[1], 1.95)) < 0.06
    page.keyboard.press(".")
    until(page, "[...document.querySelectorAll('#pair video')].every((one) => one.paused && !one.seeking)")
    times = page.evaluate("[...document.querySelectorAll('#pair video')].map((one) => one.currentTime)")
    assert abs(min(times[0], 1.95) - min(times[1], 1.95)) < 0.06
    page.locator("#compare-time").fill("2.5")  # the shorter one stays on its last frame
    times = page.evaluate("[...document.querySelectorAll('#pair video')].map((one) => one.currentTime)")
    assert sorted(times) == pytest.approx([1.95, 2.5], abs=0.06)
    differing = page.locator("#compare-recipe tr[data-differs=true] th").all_text_contents()
    assert differing == ["prompt", "seed", "length"]


def test_a_clip_is_downloaded_and_its_command_copied(visit, server):
    (made,) = finished(server, ask(server))
    page = visit(f"#{made['id']}", permissions=["clipboard-read", "clipboard-write"])
    playing(page)
    for suffix, begins in (("mp4", b"ftyp"), ("gif", b"GIF8")):
        with page.expect_download() as waited:
            page.locator("#about").get_by_role("button", name=suffix).click()
        assert waited.value.suggested_filename == f"a-large-red-ball-at-rest-3.{suffix}"
        assert begins in waited.value.path().read_bytes()[:12]
    page.wait_for_selector(".command:not([hidden])")
    page.locator(".command").get_by_role("button").click()
    page.wait_for_selector(".toast >> text=Copied")
    assert page.evaluate("navigator.clipboard.readText()").startswith("kinetograph generate 'a large red ball at rest'")
    page.locator("#about").get_by_role("button", name="Delete").click()
    page.wait_for_selector("#film >> text=It is gone")
    assert page.locator("#grid .open").count() == 0
    assert server.get(f"/v1/videos/{made['id']}").status_code == 404


def test_the_queue_is_paused_and_put_in_another_order(visit, server):
    page = visit()
    running = ask(server, "a gold ball at rest", **SLOW)
    first, second, third = (ask(server, f"a {colour} ball at rest") for colour in ("red", "blue", "green"))
    until(page, "document.querySelectorAll('#queue-rows .row').length === 4")
    row = page.locator("#queue-rows .row")
    row.nth(3).get_by_role("button", name="Make it next").click()
    until(page, "document.querySelectorAll('#queue-rows .what')[1].textContent.includes('green')")
    assert server.get("/v1/queue").json()["order"] == [third["id"], first["id"], second["id"]]
    row.filter(has_text="red").get_by_role("button", name="Pause").click()
    page.wait_for_selector("#queue-rows >> text=paused")
    page.click("#queue-pause")
    page.wait_for_selector("#queue-pause >> text=Go on")
    assert server.get("/v1/queue").json()["paused"] is True
    row.filter(has_text="gold").get_by_role("button", name="Cancel").click()
    until(page, "document.querySelectorAll('#queue-rows .row').length === 3")
    assert server.get(f"/v1/videos/{running['id']}").json()["state"] == "cancelled"
    page.click("#queue-pause")
    finished(server, second, third)
    until(page, "document.querySelectorAll('#queue-rows .row').length === 1")  # a row that moves up misses its click
    row.filter(has_text="red").get_by_role("button", name="Go on").click()
    finished(server, first)
    page.wait_for_selector("#queue", state="hidden")


def test_the_archive_is_searched_and_filtered(visit, server):
    finished(server, *(ask(server, f"a {colour} ball at rest") for colour in ("red", "blue")))
    finished(server, ask(server, "a red ball growing", model="gan"))
    page = visit()
    said = lambda: page.locator("#grid .says").all_text_contents()  # noqa: E731
    until(page, "document.querySelectorAll('#grid .open').length === 3")
    page.select_option("#filter-engine", "gan")
    until(page, "document.querySelectorAll('#grid .open').length === 1")
    assert said() == ["a red ball growing"]
    page.select_option("#filter-engine", "")
    page.select_option("#filter-order", "asc")
    until(page, "document.querySelectorAll('#grid .open').length === 3")
    until(page, "document.querySelector('#grid .says').textContent === 'a red ball at rest'")
    page.fill("#search", "blue")
    until(page, "document.querySelectorAll('#grid .open').length === 1")
    page.fill("#search", "green")
    page.wait_for_selector("#gallery-empty >> text=Nothing here fits")


HOSTILE = [
    '<img src=x onerror="window.hit=1"> ball',
    "{{7*7}} ${7*7} ball",
    "a ball ‮ left 🎈 e\u0301",
    "a <script>window.hit=1</script> ball",
]


def test_prompts_are_shown_to_the_letter_and_never_run(visit, server):
    finished(server, *(ask(server, prompt) for prompt in HOSTILE))
    page = visit()
    until(page, "document.querySelectorAll('#grid .open').length === 4")
    assert page.locator("#grid .says").all_text_contents() == HOSTILE[::-1]
    page.locator("#grid .open").last.click()
    page.wait_for_selector("#about .title")
    assert page.locator("#about .title").text_content() == HOSTILE[0]
    assert page.evaluate("window.hit") is None


def test_light_and_dark_and_what_was_written_are_remembered(visit):
    page = visit(color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.keyboard.press("t")
    light = page.evaluate(ground)
    assert light != dark
    page.fill("#prompt", "a half-written")
    choose(page, "gan")
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert page.evaluate(ground) == light
    assert (page.input_value("#prompt"), page.input_value("#engine")) == ("a half-written", "gan")


def test_the_page_comes_back_after_the_server_was_away(chromium, stranger, tmp_path):
    with serving(tmp_path, stranger, "--port", 0, "--engine", "render", "--allow", "render") as address:
        visited = Visit(chromium, address)
        page = visited.open()
        page.wait_for_selector("#connection[data-state=live]")
    page.wait_for_selector("#connection[data-state=lost]")
    port = address.rpartition(":")[2]
    with serving(tmp_path, stranger, "--port", port, "--engine", "render", "--allow", "render"):
        page.wait_for_selector("#connection[data-state=live]", timeout=30_000)
        page.fill("#prompt", "a red ball at rest")
        page.click("#generate")
        playing(page)
        visited.context.close()


def test_a_locked_studio_opens_with_a_key(chromium, stranger, tmp_path):
    import subprocess
    import sys

    command = [sys.executable, "-m", "kinetograph", "keys", "add", "tester", "--folder", str(tmp_path), "--json"]
    said = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    key = next(value for value in said.values() if re.match(r"kg_", str(value)))
    with serving(tmp_path, stranger, "--port", 0, "--engine", "render", "--allow", "render") as address:
        visited = Visit(chromium, address)
        page = visited.page
        page.goto(address)
        page.fill("#key", "kg_wrong")
        page.get_by_role("button", name="Open").click()
        page.wait_for_selector("#door-fault >> text=does not know this key")
        page.fill("#key", key)
        page.get_by_role("button", name="Open").click()
        page.wait_for_selector("html[data-ready]")
        page.fill("#prompt", "a red ball at rest")
        page.click("#generate")
        playing(page)
        assert page.locator("#film video").get_attribute("src").startswith("blob:")
        page.wait_for_selector("#grid .card img")
        assert not [call for call in visited.calls if key in call]  # a key never stands in an address
        page.reload()
        page.wait_for_selector("html[data-ready]")  # and is remembered
        visited.context.close()
