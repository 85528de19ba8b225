"""The worker: what becomes of a job, whatever its engine does."""

import errno
import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from served import soon

from kinetograph.archive import Archive
from kinetograph.engine import describe
from kinetograph.errors import CannotWrite, StoreFull, StoreUnavailable
from kinetograph.jobs import Draft, Store
from kinetograph.server import housekeeping
from kinetograph.video import Video
from kinetograph.worker import Limits, Worker, _fault


@pytest.fixture
def store(tmp_path):
    opened = Store.open(f"sqlite:///{tmp_path / 'jobs.sqlite'}", lease=2.0)
    yield opened
    opened.close()


@pytest.fixture
def worker(store, tmp_path, patience):
    return Worker(store, Archive.open(tmp_path / "archive"), limits=Limits(free=0))


def submit(store, prompt="wait", *, engine="patience", **others):
    fields = {name: others.pop(name) for name in ("frames", "width", "height") if name in others}
    draft = {name: others.pop(name) for name in ("start", "kind", "owner") if name in others}
    request = describe(engine).request(prompt, seed=7, options=others, **fields)
    return store.submit(Draft(engine=engine, request=request, **draft))


def apart(worker):
    """Let a worker do one step in a thread."""
    thread = threading.Thread(target=worker.step)
    thread.start()
    return thread


def test_a_job_becomes_a_video_in_the_archive(store, worker):
    job = submit(store, "a red ball moving left", engine="render")
    assert worker.step()
    done = store.job(job.id)
    assert (done.state, done.step, done.steps) == ("completed", 1, 1)
    entry = worker.archive.entry(done.token)
    video = Video.load(entry.video)
    assert video.provenance.request == job.asked
    assert done.media["frames_sha256"] == video.provenance.frames_sha256
    assert done.media["bytes"] == entry.video.stat().st_size
    assert not worker.step()


def test_the_same_request_makes_the_same_frames_again(store, worker):
    for _ in range(2):
        submit(store, "a red ball moving left", engine="render")
        worker.step()
    one, two = store.jobs().jobs
    assert one.media["frames_sha256"] == two.media["frames_sha256"]


def test_the_default_engine_makes_a_video_and_its_warnings_are_kept(store, worker):
    submit(store, "a red flurbel moving left", engine="gan")
    worker.step()
    [done] = store.jobs().jobs
    assert done.state == "completed", done.error_message
    assert any("flurbel" in warning for warning in done.warnings)


@pytest.mark.parametrize(
    ("prompt", "code", "said"),
    [
        ("fail", "engine_error", "the engine failed"),
        ("memory", "resource_exhausted", "not enough memory"),
    ],
)
def test_a_failure_ends_its_job_and_tells_a_stranger_nothing_of_the_machine(store, worker, prompt, code, said):
    job = submit(store, prompt)
    submit(store)
    worker.step()
    failed = store.job(job.id)
    assert (failed.state, failed.error_code) == ("failed", code)
    assert said in failed.error_message
    assert "secret" not in failed.error_message
    assert "Traceback" in failed.traceback
    worker.step()
    assert store.counts() == {"failed": 1, "completed": 1}


def test_progress_and_previews_are_told_while_it_works(store, worker):
    job = submit(store, steps=60, pause=0.05)
    thread = apart(worker)
    soon(lambda: store.previews(0))
    running = store.job(job.id)
    assert 0 < running.step < running.steps == 60
    [preview] = store.previews(0)
    assert np.asarray(Image.open(io.BytesIO(preview.image)))[0, 0] == pytest.approx([7, 7, 7], abs=3)
    assert [worker.job for worker, _ in store.workers()] == [job.id]
    thread.join()
    assert store.job(job.id).state == "completed"


@pytest.mark.parametrize("change", ["cancel", "delete"])
def test_a_job_that_nobody_wants_any_more_stops_within_a_step(store, worker, change):
    job = submit(store, steps=1000, pause=0.05)
    thread = apart(worker)
    soon(lambda: store.counts().get("in_progress"))
    time.sleep(0.3)
    begun = time.monotonic()
    getattr(store, change)(job.id)
    thread.join(5)
    assert not thread.is_alive()
    assert time.monotonic() - begun < 2
    assert list(worker.archive.entries()) == []


def test_a_job_that_is_cancelled_while_it_is_written_leaves_no_video(store, worker, monkeypatch):
    job = submit(store)
    keep = Archive.keep

    def slowly(self, *arguments):
        entry = keep(self, *arguments)
        store.cancel(job.id)
        return entry

    monkeypatch.setattr(Archive, "keep", slowly)
    worker.step()
    assert store.job(job.id).state == "cancelled"
    assert list(worker.archive.entries()) == []


def test_a_long_step_keeps_its_lease(store, worker):
    job = submit(store, steps=1, pause=3.2)
    thread = apart(worker)
    soon(lambda: store.counts().get("in_progress"))
    while thread.is_alive():
        assert store.reclaim() == 0
        time.sleep(0.2)
    assert store.job(job.id).state == "completed"


def test_what_comes_too_late_is_refused(store, worker):
    """As after SIGSTOP: another worker has the job meanwhile."""
    job = submit(store)
    held = store.claim("slow")
    store.release(held)
    worker.step()
    late = Worker(store, worker.archive, name="slow", limits=worker.limits)
    late.work(held)
    done = store.job(job.id)
    assert done.worker == worker.name
    assert [entry.name for entry in worker.archive.entries()] == [done.token]


def test_a_job_over_its_time_fails_and_the_worker_goes_on(store, worker):
    worker.limits = Limits(free=0, seconds=0.5)
    job = submit(store, steps=1000, pause=0.1)
    worker.step()
    assert store.job(job.id).error_code == "timeout"
    worker.limits = Limits(free=0)
    submit(store)
    worker.step()
    assert store.counts() == {"failed": 1, "completed": 1}


def test_a_worker_that_is_to_stop_gives_its_job_back(store, worker):
    worker.limits = Limits(free=0, grace=0.3)
    job = submit(store, steps=1000, pause=0.05)
    thread = threading.Thread(target=worker.run)
    thread.start()
    soon(lambda: store.counts().get("in_progress"))
    worker.stopping.set()
    thread.join(5)
    assert not thread.is_alive()
    again = store.job(job.id)
    assert (again.state, again.attempts, again.error_code) == ("queued", 0, "")
    assert store.workers() == []


def test_a_worker_that_is_to_stop_may_finish_what_takes_only_a_moment(store, worker):
    job = submit(store, steps=5, pause=0.1)
    thread = threading.Thread(target=worker.run)
    thread.start()
    soon(lambda: store.counts().get("in_progress"))
    worker.stopping.set()
    thread.join(5)
    assert store.job(job.id).state == "completed"


def test_a_full_archive_gives_the_job_back_and_no_part_of_a_video_is_to_be_seen(store, worker, monkeypatch):
    monkeypatch.setattr("kinetograph.worker.FULL", 0.01)
    job = submit(store)
    with monkeypatch.context() as patch:
        patch.setattr(Archive, "keep", lambda *_: (_ for _ in ()).throw(CannotWrite("no space", full=True)))
        worker.step()
    again = store.job(job.id)
    assert (again.state, again.attempts) == ("queued", 0)
    assert again.available_at > again.created_at


def test_an_archive_that_stays_unwritable_fails_the_job_after_its_attempts(store, worker, monkeypatch):
    monkeypatch.setattr("kinetograph.worker.FULL", 0.0)
    job = submit(store)
    videos = worker.archive.folder / "videos"
    videos.rmdir()
    videos.write_text("")  # a fault that root meets as well
    came = []
    for _ in range(store.most_attempts):
        assert worker.step()
        came.append((store.job(job.id).state, store.job(job.id).attempts))
    assert came == [("queued", 1), ("queued", 2), ("failed", 3)]
    assert not worker.step()
    failed = store.job(job.id)
    assert (failed.error_code, "3 times" in failed.error_message) == ("cannot_write", True)
    assert str(worker.archive.folder) not in failed.error_message
    assert "NotADirectoryError" in failed.traceback
    videos.unlink()
    store.retry(job.id)
    worker.step()
    assert store.job(job.id).state == "completed"


def test_a_full_archive_stops_the_worker_which_would_make_every_other_job_in_vain(store, worker, monkeypatch):
    tried = []
    monkeypatch.setattr("kinetograph.worker.FULL", 60)
    for _ in range(3):
        submit(store)
    with monkeypatch.context() as patch:
        patch.setattr(Archive, "keep", _refused(tried))
        thread = threading.Thread(target=worker.run)
        thread.start()
        soon(lambda: tried)
        time.sleep(1.5)  # longer than a third of a lease
        seen = store.workers()
        worker.stopping.set()
        thread.join(5)
    assert len(tried) == 1
    assert [one.id for one, _ in seen] == [worker.name]  # and it is seen to be alive
    assert store.counts() == {"queued": 3}


def _refused(tried):
    def keep(*_):
        tried.append(1)
        raise CannotWrite("no space", full=True)

    return keep


@pytest.mark.parametrize("step", ["claim", "beat", "finish"])
def test_a_full_disk_of_the_database_is_waited_for(store, worker, monkeypatch, step):
    monkeypatch.setattr("kinetograph.worker.AGAIN", 0.05)
    job, times, real = submit(store, steps=30, pause=0.05), [], getattr(Store, step)

    def full(self, *arguments, **named):
        times.append(1)
        if len(times) < 3:
            raise StoreFull("full")
        return real(self, *arguments, **named)

    monkeypatch.setattr(Store, step, full)
    thread = threading.Thread(target=worker.run)
    thread.start()
    soon(lambda: store.job(job.id).state == "completed")
    worker.stopping.set()
    thread.join(5)
    assert len(times) >= 3
    assert store.job(job.id).attempts == 1


def test_too_little_memory_is_known_in_everybody_s_words():
    import torch

    with pytest.raises(RuntimeError) as torch_said:
        torch.empty(2**50)
    try:
        raise CannotWrite.because(Path("a.mp4"), OSError(errno.ENOMEM, "no memory")) from OSError(errno.ENOMEM, "")
    except CannotWrite as error:
        written = error
    for error in (torch_said.value, MemoryError(), written):
        assert _fault(error)[0] == "resource_exhausted"
    assert _fault(RuntimeError("shapes"))[0] == "engine_error"


@pytest.mark.slow
def test_a_worker_without_memory_fails_that_job_and_makes_the_next_one(store, worker):
    resource = pytest.importorskip("resource")
    greedy, good = submit(store, "swallow"), submit(store)
    command = [sys.executable, "-m", "kinetograph", "worker", "--archive", str(worker.archive.folder), "--free", "0"]
    environment = {**os.environ, "KINETOGRAPH_DATABASE": str(store.database.engine.url), "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30)),
    )
    try:
        soon(lambda: store.job(good.id).state == "completed", 60)
    finally:
        process.terminate()
        process.wait()
    failed = store.job(greedy.id)
    assert (failed.state, failed.error_code, failed.attempts) == ("failed", "resource_exhausted", 1)
    assert "MemoryError" in failed.traceback
    assert failed.worker == store.job(good.id).worker


def test_a_disk_that_is_nearly_full_begins_nothing(store, worker, monkeypatch):
    monkeypatch.setattr("kinetograph.worker.FULL", 0.01)
    worker.limits = Limits(free=10**18)
    job = submit(store)
    assert not worker.step()
    assert store.job(job.id).state == "queued"


def test_a_database_that_is_away_is_waited_for_at_the_end(store, worker, monkeypatch):
    job, finish, tries = submit(store), Store.finish, []

    def away(self, *arguments):
        tries.append(1)
        if len(tries) < 3:
            raise StoreUnavailable("away")
        return finish(self, *arguments)

    monkeypatch.setattr(Store, "finish", away)
    worker.step()
    assert store.job(job.id).state == "completed"


def test_what_a_video_goes_on_from_comes_from_the_archive_and_its_path_stays_there(store, worker):
    name = f"{'ab' * 16}.png"
    Image.new("RGB", (32, 32), (1, 2, 3)).save(worker.archive.upload(name))
    submit(store, start=name)
    worker.step()
    [done] = store.jobs().jobs
    assert done.state == "completed", done.traceback
    said = worker.archive.entry(done.token).provenance["request"]["options"]
    assert said["start"] == name
    assert len(said["start_sha256"]) == 64
    assert str(worker.archive.folder) not in Path(worker.archive.entry(done.token).folder / "entry.json").read_text()


def test_a_video_that_was_to_go_on_from_something_that_is_gone_fails(store, worker):
    job = submit(store, start=f"{'ab' * 16}.png")
    worker.step()
    assert store.job(job.id).error_code == "input_unreadable"


def test_housekeeping_deletes_what_is_kept_no_longer_and_what_belongs_to_nobody(store, worker):
    worker.limits = Limits(free=0, keep=-1.0)
    gone = submit(store)
    worker.step()
    worker.limits = Limits(free=0)
    stays = submit(store)
    worker.step()
    orphan = "0f" * 16
    worker.archive.keep(orphan, Video.load(worker.archive.entry(store.job(stays.id).token).video))
    housekeeping.once(store, worker.archive, age=-1)
    assert [job.id for job in store.jobs().jobs] == [stays.id]
    assert gone.id != stays.id
    assert [entry.name for entry in worker.archive.entries()] == [store.job(stays.id).token]


def test_a_worker_that_dies_between_the_archive_and_the_queue_leaves_a_job_that_is_made_again(
    store, worker, monkeypatch
):
    """The one moment at which a video is there and nobody knows of it."""

    class Death(BaseException):
        pass

    def die(*_):
        raise Death

    job = submit(store)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "finish", die)
        with pytest.raises(Death):
            worker.step()
    assert store.job(job.id).state == "in_progress"
    [orphan] = worker.archive.entries()
    soon(store.reclaim)
    worker.step()
    done = store.job(job.id)
    assert (done.state, done.attempts) == ("completed", 2)
    housekeeping.once(store, worker.archive, age=-1)
    assert [entry.name for entry in worker.archive.entries()] == [done.token] != [orphan.name]


def test_a_worker_whose_engine_is_in_a_long_step_of_a_cancelled_job_is_seen_to_be_alive(store, worker):
    job = submit(store, steps=1, pause=3.4)
    thread = apart(worker)
    soon(lambda: store.counts().get("in_progress"))
    store.cancel(job.id)
    end = time.monotonic() + 3.0  # longer than a lease
    while time.monotonic() < end:
        assert [seen.id for seen, _ in store.workers()] == [worker.name]
        time.sleep(0.2)
    thread.join()
    assert store.job(job.id).state == "cancelled"
