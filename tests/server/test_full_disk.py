"""A disk that becomes full at every write in turn: one clear error each time, nothing half-written, and then on."""

import io
import os
import subprocess
import threading
import time

import pytest
from PIL import Image
from served import soon

PAGE = 4096  # what such a disk gives out at once


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={1024 * PAGE}", "tmpfs", str(folder)]
    if subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("only whoever may mount a disk can have a small one (root, with the right to)")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Ballast:
    """A file that leaves so many pages free."""

    def __init__(self, folder):
        self._path = folder / "ballast"

    def leave(self, pages):
        said = os.statvfs(self._path.parent)
        with self._path.open("wb") as file:
            if said.f_bavail > pages:
                os.posix_fallocate(file.fileno(), 0, (said.f_bavail - pages) * PAGE)

    def drop(self):
        self._path.unlink()


def png():
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(buffer, "PNG")
    return {"input_reference": ("a.png", buffer.getvalue(), "image/png")}


@pytest.mark.slow
def test_a_worker_whose_disk_is_full_at_the_nth_write_says_so_and_makes_the_video_afterwards(
    disk, served, monkeypatch, capsys
):
    monkeypatch.setattr("kinetograph.worker.FULL", 0.05)
    monkeypatch.setattr("kinetograph.worker.AGAIN", 0.05)
    house = served(folder=disk, database=f"sqlite:///{disk / 'jobs.sqlite'}", archive=disk / "archive")
    house.made(model="patience")  # everything that is written once is there
    ballast, pages, met = Ballast(disk), 0, []
    while True:
        id = house.ask(model="patience", pause=0.01)["id"]
        ballast.leave(pages)
        house.worker.stopping.clear()
        thread = threading.Thread(target=house.worker.run)
        thread.start()
        time.sleep(0.4)
        done = house.store.job(id).state == "completed"
        seen = list(house.archive.entries())  # whole ones: each is read
        assert all(entry.video.stat().st_size == entry.facts["bytes"] for entry in seen)
        ballast.drop()
        soon(lambda id=id: house.store.job(id).state == "completed")
        house.worker.stopping.set()
        thread.join(10)
        said = capsys.readouterr().out
        met.append("disk is full" in said or "No space left" in said)
        assert "Traceback" not in said or met[-1], said
        assert house.store.job(id).attempts == 1
        assert house.client.get(f"/v1/videos/{id}/content").status_code == 200
        house.client.delete(f"/v1/videos/{id}")
        assert not [path for path in disk.rglob("*") if path.name.endswith((".part", ".old"))]
        if done and pages > 4:
            break
        pages += 1
        assert pages < 200
    assert sum(met) >= 3, met  # it did meet the end of the disk in the middle of a video


@pytest.mark.slow
@pytest.mark.parametrize("upload", [False, True])
def test_a_request_that_meets_a_full_disk_at_its_nth_write_is_answered_with_507_and_leaves_nothing(
    disk, served, upload
):
    house = served(folder=disk, database=f"sqlite:///{disk / 'jobs.sqlite'}", archive=disk / "archive")
    body = {"data": {"prompt": "wait", "model": "patience"}, "files": png()} if upload else {"json": {"prompt": "wait"}}
    house.ask()
    ballast, pages, answers = Ballast(disk), 0, []
    while 200 not in answers:
        before = house.store.counts(), sorted(path.name for path in house.archive.uploads.iterdir())
        ballast.leave(pages)
        answer = house.client.post("/v1/videos", **body)
        ballast.drop()
        answers.append(answer.status_code)
        if answer.status_code != 200:
            house.refused(answer, 507, "disk_full")
            after = house.store.counts(), sorted(path.name for path in house.archive.uploads.iterdir())
            assert after == before
        pages += 1
        assert pages < 200
    assert answers.count(507) >= 1
    assert house.client.post("/v1/videos", **body).status_code == 200
