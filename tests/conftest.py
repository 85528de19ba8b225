"""What several test files need: databases, and an engine that takes its time."""

import importlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest

from kinetograph.shelf import ENGINES

MISSING = "PostgreSQL's programs (initdb, postgres) are not installed: apt-get install postgresql"


def _program(name):
    """Debian keeps the server's programs off the path."""
    beside = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4]))
    return str(beside[-1]) if beside else shutil.which(name)


@pytest.fixture(scope="session")
def cluster():
    """A PostgreSQL cluster of this session's own, on a socket in a folder that is gone afterwards."""
    if _program("initdb") is None:
        if os.environ.get("CI") == "true":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    folder = Path(tempfile.mkdtemp(prefix="kinetograph-pg-"))
    who = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to be root
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
        who = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    data = folder / "data"
    initdb = [_program("initdb"), "-D", data, "-A", "trust", "-U", "tests", "-E", "UTF8", "--locale=C", "--no-sync"]
    subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd=folder, **who)
    settings = {"listen_addresses": "", "unix_socket_directories": folder, "fsync": "off", "max_connections": 200}
    flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([_program("postgres"), "-D", data, *flags], stdout=log, stderr=log, cwd=folder, **who)
    try:
        _await(folder, server)
        yield folder
    finally:
        server.terminate()
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _await(folder, server):
    import time

    import psycopg

    for _ in range(200):
        try:
            psycopg.connect(host=str(folder), user="tests", dbname="postgres").close()
            return
        except psycopg.OperationalError:
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
    raise AssertionError((folder / "log").read_text())


@pytest.fixture
def postgresql_url(cluster):
    """The address of an empty database."""
    import psycopg

    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(host=str(cluster), user="tests", dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield f"postgresql+psycopg://tests@/{name}?host={cluster}"
    with psycopg.connect(host=str(cluster), user="tests", dbname="postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request, tmp_path):
    """The address of an empty database, of either kind."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql_url")
    return f"sqlite:///{tmp_path / 'jobs.sqlite'}"


PATIENCE = '''
"""An engine that takes its time, and does what its prompt says: fail, die, hang."""

import os
import time
from fractions import Fraction

import numpy as np
from pydantic import Field

from kinetograph.engine import EngineInfo, Options as Base, Progress, Sizes, Words
from kinetograph.video import Video


class Options(Base):
    steps: int = Field(4, ge=1, le=10_000)
    pause: float = Field(0.0, ge=0, le=3600)
    guidance: float = 1.0
    sharp: bool = False
    tags: list[Words] = []
    start: str = ""
    start_sha256: str = ""
    lora: str = ""


def info(weights):
    return EngineInfo(
        reference=f"patience:{weights}" if weights else "patience", summary="waits", licence="none", trained=False,
        width=32, height=32, frames=4, fps=Fraction(8), sizes=Sizes(minimum=16, maximum=4096),
        min_frames=1, max_frames=10_000, Options=Options,
    )


def load(weights, device):
    return Patience()


class Patience:
    device, weights_digest, versions = "cpu", "", {}

    def generate(self, request, on_progress):
        frames = np.full((request.frames, request.height, request.width, 3), request.seed % 256, np.uint8)
        steps = request.options["steps"]
        for step in range(1, steps + 1):
            time.sleep(request.options["pause"])
            if "die" in request.prompt:
                os._exit(9)
            if "hang" in request.prompt:
                time.sleep(3600)
            if "memory" in request.prompt:
                raise MemoryError
            if "fail" in request.prompt:
                raise RuntimeError("secret/path 0x7ffe1234")
            on_progress(Progress(step=step, steps=steps, preview=frames[-1]))
        return Video(frames, request.fps)
'''


@pytest.fixture
def patience(tmp_path_factory, monkeypatch):
    """Another distribution's engine `patience`, for this process and those that it starts; the folder it lies in."""
    folder = tmp_path_factory.mktemp("stranger")
    (folder / "patience_engine.py").write_text(PATIENCE)
    said = folder / "patience-1.0.dist-info"
    said.mkdir()
    (said / "METADATA").write_text("Metadata-Version: 2.1\nName: patience\nVersion: 1.0\n")
    (said / "entry_points.txt").write_text("[kinetograph.engines]\npatience = patience_engine\n")
    monkeypatch.syspath_prepend(str(folder))
    root = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(root)]))
    ENGINES.__dict__.pop("_strangers", None)
    yield folder
    ENGINES.__dict__.pop("_strangers", None)
    sys.modules.pop("patience_engine", None)
    importlib.invalidate_caches()
