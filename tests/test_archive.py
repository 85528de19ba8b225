"""The archive: entries are whole or not there, and can be found again."""

import io
import os
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from kinetograph import archive as archives
from kinetograph import describe, files, generate
from kinetograph.archive import Archive
from kinetograph.errors import CannotRead, CannotWrite, UnsupportedFormat
from kinetograph.video import Video

NAME = "0f" * 16


@pytest.fixture
def archive(tmp_path):
    return Archive.open(tmp_path / "archive")


@pytest.fixture(scope="module")
def video():
    return generate("render", describe("render").request("a red ball moving left", seed=7, frames=20))


def clip(width, height, frames=3):
    return Video(np.full((frames, height, width, 3), 99, np.uint8), Fraction(5))


def test_an_entry_has_a_clip_its_pictures_and_how_it_was_made(archive, video):
    entry = archive.keep(NAME, video, {"job": "video_1"})
    assert {path.name for path in entry.folder.iterdir()} == {
        *("video.mp4", "thumbnail.webp", "spritesheet.jpg", "entry.json"),
    }
    again = archive.entry(NAME)
    assert again.facts == entry.facts
    assert again.facts["job"] == "video_1"
    assert again.facts["sha256"] == files.sha256(again.video)
    assert again.provenance["request"]["prompt"] == "a red ball moving left"
    assert Video.load(again.video).provenance.request == video.provenance.request


def test_the_pictures_show_the_clip(archive, video):
    entry = archive.keep(NAME, video)
    thumbnail = np.asarray(Image.open(entry.thumbnail).convert("RGB"))
    assert thumbnail.shape == (512, 512, 3)
    middle = np.asarray(archives.thumbnail(video.frames))
    assert np.abs(thumbnail.astype(int) - middle).mean() < 4
    with Image.open(entry.spritesheet) as sheet:
        assert sheet.size == (1024, 1024)
        tile = np.asarray(sheet.crop((0, 0, 256, 256))).astype(int)
    assert np.abs(tile[::4, ::4] - video.frames[0]).mean() < 8


@pytest.mark.parametrize(("width", "height", "frames"), [(1, 1, 1), (31, 17, 2), (301, 200, 3), (600, 40, 17)])
def test_any_size_makes_a_thumbnail_and_a_spritesheet(archive, width, height, frames):
    entry = archive.keep(NAME, clip(width, height, frames))
    for path, most in ((entry.thumbnail, 512), (entry.spritesheet, 1024)):
        with Image.open(path) as picture:
            assert max(picture.size) <= most
    assert Video.load(entry.video).frames.shape[:3] in {
        (frames, height, width),
        (frames, height * archives.scale(width, height), width * archives.scale(width, height)),
    }


def test_a_size_that_no_mp4_holds_is_refused_before_it_is_made():
    archives.check_size(301, 200)
    with pytest.raises(UnsupportedFormat):
        archives.check_size(8190, 9001)


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", "0F" * 16, "0f" * 15, "0f" * 16 + "/..", "\0" * 32])
def test_only_names_that_are_names_reach_the_disk(archive, name):
    for ask in (archive.entry, archive.place, archive.upload, archive.remove):
        with pytest.raises(CannotRead):
            ask(name)


def test_what_is_removed_is_gone_and_can_be_removed_again(archive, video):
    archive.keep(NAME, video)
    archive.remove(NAME)
    archive.remove(NAME)
    with pytest.raises(CannotRead):
        archive.entry(NAME)
    assert list(archive.entries()) == []
    assert list((archive.folder / "videos").glob("*/*")) == []


@pytest.mark.parametrize("step", ["mp4", "thumbnail", "spritesheet", "facts", "rename"])
def test_a_fault_at_any_step_leaves_nothing_behind(archive, video, step, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    where = {
        "mp4": (archives.Video, "save"),
        "thumbnail": (archives, "thumbnail"),
        "spritesheet": (archives, "spritesheet"),
        "facts": (archives.files, "write"),
        "rename": (archives.Path, "rename"),
    }[step]
    with monkeypatch.context() as patch:
        patch.setattr(*where, fail)
        with pytest.raises(CannotWrite, match="No space left"):
            archive.keep(NAME, video)
    assert [path for path in archive.folder.rglob("*") if path.is_file()] == []
    archive.keep(NAME, video)


def test_what_was_begun_and_never_finished_is_swept_when_it_is_old(archive, video):
    archive.keep(NAME, video)
    left = archive.place("1f" * 16).with_name(".left.part")
    left.mkdir(parents=True)
    (archive.uploads / ".raw").write_bytes(b"x")
    archive.sweep()
    assert left.exists()
    for path in (left, archive.uploads / ".raw"):
        os.utime(path, (0, 0))
    archive.sweep()
    assert not left.exists()
    assert not (archive.uploads / ".raw").exists()
    assert [entry.name for entry in archive.entries()] == [NAME]


def test_old_entries_and_uploads_are_named_so_that_somebody_can_claim_them(archive, video):
    archive.keep(NAME, video)
    upload = archive.upload(f"{NAME}.png")
    picture = io.BytesIO()
    Image.new("RGB", (2, 2)).save(picture, "PNG")
    upload.write_bytes(picture.getvalue())
    assert archive.lying_about() == ([], [])
    assert archive.lying_about(age=-1) == ([NAME], [f"{NAME}.png"])


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="file"):
        Archive.open(tmp_path / "file" / "archive")
