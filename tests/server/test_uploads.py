"""What strangers send: decoded elsewhere, within limits, or refused."""

import io
import json
import os
import subprocess
import sys
import time
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from kinetograph import media
from kinetograph.server import decoding, uploads

FIELDS = {"prompt": "wait", "model": "patience"}


def send(house, content, name="a.png"):
    return house.client.post("/v1/videos", data=FIELDS, files={"input_reference": (name, content, "image/png")})


def picture(form, size=(40, 24), **settings):
    buffer = io.BytesIO()
    Image.new("RGB", size, (10, 200, 30)).save(buffer, form, **settings)
    return buffer.getvalue()


def film(codec="libx264", container="mp4", frames=5, size=(32, 32), pixels="yuv420p"):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        for n in range(frames):
            frame = np.full((size[1], size[0], 3), n % 13 * 20, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode(None))
    return buffer.getvalue()


def bomb(width, height):
    """A PNG of a few bytes that says it is huge."""

    def chunk(name, content):
        return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_pictures_are_taken(house, form):
    answer = send(house, picture(form))
    assert answer.json()["size"] == "40x24"
    job = house.store.job(answer.json()["id"])
    assert job.start.endswith(".png")
    frames = media.read_frames(house.archive.upload(job.start))
    assert np.abs(frames[0, 0, 0].astype(int) - [10, 200, 30]).max() < 8


@pytest.mark.parametrize(
    ("codec", "container"), [("libx264", "mp4"), ("mpeg4", "mp4"), ("libvpx-vp9", "webm"), ("libvpx", "webm")]
)
def test_clips_are_taken_with_their_rate(house, codec, container):
    body = {"prompt": "wait", "seconds": "1"}
    files = {"video": (f"a.{container}", film(codec, container), "video/mp4")}
    said = house.client.post("/v1/videos/extensions", data=body, files=files).json()
    assert (said["request"]["fps"], said["request"]["frames"], said["size"]) == ("10", 15, "32x32")
    house.worker.step()
    assert house.get(said["id"])["status"] == "completed"


HOSTILE = {
    "nothing": b"",
    "one byte": b"\x89",
    "words": b"hello",
    "cut short": picture("PNG", (200, 200))[:60],
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://169.254.169.254/"/></svg>',
    "a playlist": b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/a.ts\n",
    "a gif": picture("GIF"),
    "a bmp": picture("BMP"),
    "a tiff": picture("TIFF"),
    "81 million pixels": bomb(9000, 9000),
    "400 million pixels": bomb(20_000, 20_000),
    "two thousand million pixels on a side": bomb(2**31 - 1, 2**31 - 1),
    "an empty mp4": b"\0\0\0\x20ftypisom" + b"\0" * 20,
    "half an mp4": film()[:400],
    "an mp4 of noise": b"\0\0\0\x20ftypisom" + os.urandom(5000),
    "a webm of noise": b"\x1a\x45\xdf\xa3" + os.urandom(5000),
    "jpeg 2000 in mp4": film("jpeg2000", pixels="rgb24"),
    "a clip of too many frames": film(frames=1001, size=(16, 16)),
    "a page that is a picture too": picture("PNG")[:40] + b"<script>alert(1)</script>",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_hostile_is_refused_soon_and_leaves_nothing(house, name):
    begun = time.monotonic()
    answer = send(house, HOSTILE[name])
    message = house.refused(answer, 400, param="input_reference")
    assert time.monotonic() - begun < 20
    assert "0x7f" not in message
    assert "/" not in message.replace("and/or", "")
    assert list(house.archive.uploads.iterdir()) == []
    assert house.store.counts() == {}


def test_a_picture_with_a_page_behind_it_comes_back_without_it(house):
    answer = send(house, picture("PNG") + b"<script>alert(1)</script>")
    job = house.store.job(answer.json()["id"])
    assert b"script" not in house.archive.upload(job.start).read_bytes()


@pytest.mark.parametrize("name", ["../../../../tmp/evil.png", "/etc/passwd", "a\\..\\b.png", "x" * 300, "CON", ""])
def test_a_name_that_a_client_gives_is_never_a_path(house, name):
    answer = send(house, picture("PNG"), name or "a")
    assert answer.status_code == 200
    [path] = house.archive.uploads.iterdir()
    assert len(path.name) == 36


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
def test_the_process_that_decodes_has_little_memory_and_little_time(tmp_path):
    code = (
        "import resource, runpy, sys\n"
        "from kinetograph.server import decoding\n"
        "decoding.limit()\n"
        "limits = resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE\n"
        "print([resource.getrlimit(what)[0] for what in limits])\n"
        "try:\n    bytearray(4 * 2**30)\nexcept MemoryError:\n    print('no')\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")
    assert json.loads(said[0]) == [decoding.MEMORY, decoding.SECONDS, decoding.FILE]
    assert said[1] == "no"


def test_the_process_that_decodes_gets_no_secret_of_the_server(house, monkeypatch):
    monkeypatch.setenv("KINETOGRAPH_DATABASE", "postgresql://secret")
    seen = []
    run = subprocess.run
    monkeypatch.setattr(uploads.subprocess, "run", lambda *a, **k: (seen.append(k["env"]), run(*a, **k))[1])
    assert send(house, picture("PNG")).status_code == 200
    assert "KINETOGRAPH_DATABASE" not in seen[0]


def test_a_decoder_that_hangs_is_given_up(house, monkeypatch):
    monkeypatch.setattr(uploads, "PATIENCE", 0.05)
    house.refused(send(house, picture("PNG")), 400, param="input_reference")
    assert list(house.archive.uploads.iterdir()) == []


def test_base64_that_is_none_is_refused(house):
    body = {**FIELDS, "input_reference": "data:image/png;base64,%%%"}
    house.refused(house.client.post("/v1/videos", json=body), 400, param="input_reference")
    body = {**FIELDS, "input_reference": "{not json"}
    house.refused(house.client.post("/v1/videos", json=body), 400, param="input_reference")
