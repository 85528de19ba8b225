"""`kinetograph serve` as a process: started, used through the published client, killed, stopped."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import openai
import pytest
from typer.testing import CliRunner

from kinetograph.cli.commands import app
from kinetograph.jobs import Store
from kinetograph.video import Video

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


class Process:
    """A server in a process of its own."""

    def __init__(self, folder, *words, workers=1):
        self.folder = folder
        command = [sys.executable, "-m", "kinetograph", "serve", "--port", "0", "--folder", str(folder), "--free", "0"]
        self.log = (folder.parent / "log").open("ab")
        self.process = subprocess.Popen(
            [*command, "--workers", str(workers), *words], stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        line = self.process.stdout.readline()
        assert "listening" in line, (folder.parent / "log").read_text()
        self.url = re.search(r"http://\S+", line)[0]

    def ask(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=60)
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"content-type": "application/json", **headers})
        answer = connection.getresponse()
        said = answer.read()
        connection.close()
        return answer.status, json.loads(said)

    def until(self, id, *states, seconds=90):
        end = time.monotonic() + seconds
        while (said := self.ask("GET", f"/v1/videos/{id}")[1])["state"] not in states:
            assert time.monotonic() < end, said
            time.sleep(0.05)
        return said

    def workers(self):
        """The ids of its worker processes."""
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False
        ).stdout.split()
        return [int(pid) for pid in found]

    def stop(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
        code = self.process.wait(60)
        self.process.stdout.close()
        self.log.close()
        return code


@pytest.fixture
def start(tmp_path, patience):
    running = []

    def begin(*words, **settings):
        folder = tmp_path / "server"
        folder.mkdir(exist_ok=True)
        running.append(Process(folder, *words, **settings))
        return running[-1]

    yield begin
    for one in running:
        one.stop()


@contextlib.contextmanager
def client_of(server, key="none", **settings):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, **settings) as client:
        yield client


def test_the_published_client_does_everything_that_it_can(start, tmp_path):
    """The contract as its owner's own library speaks it, with the engine that comes in the package."""
    server = start("--engine", "gan", "--allow", "render", "--allow", "patience")
    with client_of(server) as client:
        video = client.videos.create_and_poll(
            prompt="a red circle moving up-right", seconds="1", size="64x64", extra_body={"seed": 7}
        )
        assert (video.status, video.progress, video.model, video.seconds, video.size) == (
            *("completed", 100, "gan"),
            *("1", "64x64"),
        )
        assert video.error is None
        content = client.videos.download_content(video.id)
        content.write_to_file(tmp_path / "a.mp4")
        made = Video.load(tmp_path / "a.mp4").provenance
        assert (made.engine, made.request.seed, made.trained) == ("gan", 7, True)
        for variant, start_of_file in (("thumbnail", b"RIFF"), ("spritesheet", b"\xff\xd8")):
            assert client.videos.download_content(video.id, variant=variant).read().startswith(start_of_file)

        remixed = client.videos.poll(client.videos.remix(video.id, prompt="a blue circle moving up-right").id)
        assert (remixed.status, remixed.remixed_from_video_id) == ("completed", video.id)
        file = ("a.mp4", (tmp_path / "a.mp4").read_bytes(), "video/mp4")
        edited = client.videos.edit(prompt="a green circle", video=file)
        assert client.videos.poll(edited.id).status == "completed"
        extended = client.videos.extend(prompt="wait", seconds="4", video=file)
        assert client.videos.poll(extended.id).status == "completed"
        assert extended.seconds == "5"
        picture = client.videos.create_and_poll(
            prompt="wait", model="patience", input_reference=_png(), extra_body={"steps": 2}
        )
        assert picture.status == "completed"
        assert picture.to_dict()["request"]["options"]["steps"] == 2

        failed = client.videos.create_and_poll(prompt="fail", model="patience")
        assert (failed.status, failed.error.code) == ("failed", "engine_error")
        ids = [one.id for one in client.videos.list(limit=2)]  # goes on by itself from page to page
        assert ids == [failed.id, picture.id, extended.id, edited.id, remixed.id, video.id]
        assert [one.id for one in client.videos.list(order="asc")] == ids[::-1]
        gone = client.videos.delete(video.id)
        assert (gone.id, gone.deleted, gone.object) == (video.id, True, "video.deleted")
        with pytest.raises(openai.NotFoundError) as unknown:
            client.videos.retrieve(video.id)
        assert unknown.value.code == "video_not_found"
        assert unknown.value.request_id.startswith("req_")
        with pytest.raises(openai.BadRequestError) as bad:
            client.videos.create(prompt="a", size="1280x720")
        assert (bad.value.param, bad.value.code) == ("width", "invalid_value")
        assert "nearest" in bad.value.message
        waiting = client.videos.create(prompt="wait", model="patience", extra_body={"steps": 100, "pause": 1})
        with pytest.raises(openai.ConflictError):
            client.videos.download_content(waiting.id)
        client.videos.delete(waiting.id)
    assert server.stop() == 143


def _png():
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (5, 6, 7)).save(buffer, "PNG")
    buffer.name = "a.png"
    buffer.seek(0)
    return buffer


def test_the_asynchronous_client_and_keys(start, tmp_path):
    folder = str(tmp_path / "server")
    made = CliRunner().invoke(app, ["keys", "add", "anna", "--folder", folder, "--json"])
    key = json.loads(made.stdout)["key"]
    server = start("--engine", "render")
    with client_of(server, max_retries=0) as stranger, pytest.raises(openai.AuthenticationError):
        stranger.videos.list()

    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=key) as client:
            video = await client.videos.create_and_poll(prompt="a red ball moving left")
            return video.status, [one.id async for one in client.videos.list()] == [video.id]

    import asyncio

    assert asyncio.run(ask()) == ("completed", True)
    listed = CliRunner().invoke(app, ["keys", "list", "--folder", folder]).stdout
    assert "anna" in listed
    assert key not in listed
    CliRunner().invoke(app, ["keys", "revoke", key.split("_")[1], "--folder", folder], catch_exceptions=False)
    assert "revoked" in CliRunner().invoke(app, ["keys", "list", "--folder", folder]).stdout


def test_a_job_survives_the_death_of_the_server_and_of_its_worker(start):
    server = start("--engine", "patience", "--lease", "2")
    id = server.ask("POST", "/v1/videos", {"prompt": "wait", "steps": 40, "pause": 0.1})[1]["id"]
    waiting = server.ask("POST", "/v1/videos", {"prompt": "wait", "seed": 5})[1]["id"]
    server.until(id, "in_progress")
    for worker in server.workers():
        os.kill(worker, signal.SIGKILL)
    server.process.kill()
    server.process.wait()
    again = start("--engine", "patience", "--lease", "2")
    said = again.until(id, "completed")
    assert said["attempts"] == 2
    assert again.until(waiting, "completed")["seed"] == 5


def test_a_server_that_is_killed_while_it_takes_a_job_has_it_once_or_not_at_all_and_the_client_gets_one(start):
    server = start("--engine", "render", workers=0)
    body, key = {"prompt": "a red ball"}, {"idempotency-key": "once"}
    threading.Timer(0.05, server.process.kill).start()
    with contextlib.suppress(OSError, http.client.HTTPException):
        for number in range(1000):
            server.ask("POST", "/v1/videos", body, **({"idempotency-key": f"n{number}"} if number else key))
    server.process.wait()
    again = start("--engine", "render", workers=0)
    ids = {again.ask("POST", "/v1/videos", body, **key)[1]["id"] for _ in range(3)}
    assert len(ids) == 1


def test_a_job_that_always_kills_its_worker_fails_and_the_others_are_made(start):
    server = start("--engine", "patience", "--lease", "1")
    fatal = server.ask("POST", "/v1/videos", {"prompt": "die"})[1]["id"]
    good = server.ask("POST", "/v1/videos", {"prompt": "wait"})[1]["id"]
    assert server.until(fatal, "failed")["error"]["code"] == "worker_lost"
    assert server.until(good, "completed")["attempts"] == 1


def test_an_engine_that_hangs_is_ended_and_the_next_job_is_made(start):
    server = start("--engine", "patience", "--limit", "1")
    hung = server.ask("POST", "/v1/videos", {"prompt": "hang"})[1]["id"]
    good = server.ask("POST", "/v1/videos", {"prompt": "wait"})[1]["id"]
    said = server.until(hung, "failed", seconds=40)
    assert said["error"]["code"] == "timeout"
    server.until(good, "completed")


def test_sigterm_gives_the_job_at_hand_back_and_ends_the_streams(start):
    server = start("--engine", "patience")
    id = server.ask("POST", "/v1/videos", {"prompt": "wait", "steps": 1000, "pause": 0.1})[1]["id"]
    server.until(id, "in_progress")
    workers, streams = server.workers(), []

    def listen():
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
        connection.request("GET", "/v1/events")
        streams.append(connection.getresponse().read())
        connection.close()

    thread = threading.Thread(target=listen)
    thread.start()
    time.sleep(0.5)
    begun = time.monotonic()
    assert server.stop() == 143
    assert time.monotonic() - begun < 35
    thread.join(5)
    assert len(streams) == 1
    store = Store.open(f"sqlite:///{server.folder / 'jobs.sqlite'}")
    job = store.job(id)
    store.close()
    assert (job.state, job.attempts, job.error_code) == ("queued", 0, "")
    assert workers
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


def test_a_cancelled_video_frees_its_worker_within_a_step(start):
    server = start("--engine", "patience")
    id = server.ask("POST", "/v1/videos", {"prompt": "wait", "steps": 1000, "pause": 0.1})[1]["id"]
    server.until(id, "in_progress")
    begun = time.monotonic()
    assert server.ask("POST", f"/v1/videos/{id}/cancel")[1]["state"] == "cancelled"
    next_one = server.ask("POST", "/v1/videos", {"prompt": "wait", "steps": 1})[1]["id"]
    server.until(next_one, "in_progress", "completed")
    assert time.monotonic() - begun < 5


def test_two_workers_of_other_processes_share_a_postgresql_queue(start, postgresql_url, tmp_path):
    server = start("--engine", "patience", "--database", postgresql_url, workers=0)
    archive = str(server.folder / "archive")
    command = [sys.executable, "-m", "kinetograph", "worker", "--archive", archive, "--free", "0"]
    environment = {**os.environ, "KINETOGRAPH_DATABASE": postgresql_url}
    workers = [subprocess.Popen(command, env=environment) for _ in range(2)]
    ids = [server.ask("POST", "/v1/videos", {"prompt": "wait", "pause": 0.2})[1]["id"] for _ in range(6)]
    for id in ids:
        server.until(id, "completed")
    for worker in workers:
        worker.terminate()
    assert [worker.wait(30) for worker in workers] == [0, 0]
    store = Store.open(postgresql_url)
    made_by = {job.worker for job in store.jobs().jobs}
    store.close()
    assert len(made_by) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "no key yet"),
        (["--database", "mysql://x/y"], "no database"),
        (["--archive", "/proc/nowhere"], "cannot write"),
    ],
)
def test_a_server_that_cannot_work_does_not_start(tmp_path, words, said):
    result = CliRunner().invoke(app, ["serve", "--port", "0", "--folder", str(tmp_path), *words])
    assert result.exit_code in (1, 2)
    assert said in result.stderr
    assert "Traceback" not in result.output


def test_a_port_that_is_taken_is_named(start, tmp_path):
    server = start("--engine", "render", workers=0)
    port = server.url.rpartition(":")[2]
    result = CliRunner().invoke(app, ["serve", "--port", port, "--folder", str(tmp_path / "other")])
    assert result.exit_code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in result.stderr


def test_what_is_not_installed_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = CliRunner().invoke(app, ["serve", "--folder", str(tmp_path)])
    assert result.exit_code == 2
    assert "pip install 'kinetograph[server]'" in result.stderr
