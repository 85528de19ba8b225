"""The pool: workers on a Ray cluster, which die and are replaced, and lose no job."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kinetograph import executors, pool
from kinetograph.archive import Archive
from kinetograph.cli.commands import app
from kinetograph.engine import describe
from kinetograph.errors import CannotRead, InvalidRequest, Unreachable
from kinetograph.jobs import Draft, Store

LEASE = 3.0


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


@pytest.fixture(scope="module")
def cluster_of_one(patience_folder):
    """A cluster that `ray start` began on loopback, with a token, and a folder and processes of its own: its address,
    and the token.

    Who belongs to it is another process than that of the tests: ray remembers a token for as long as it is imported.
    """
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    port, token = free_port(), secrets.token_hex(32)
    with contextlib.ExitStack() as until_the_last_test:
        with pytest.MonkeyPatch.context() as patch:
            admit(patch, token)
            patch.setenv("PYTHONPATH", os.pathsep.join([str(patience_folder), str(Path(__file__).parents[1])]))
            until_the_last_test.enter_context(
                node("--head", f"--port={port}", "--include-dashboard=false", "--num-gpus=1")
            )
        yield f"127.0.0.1:{port}", token


def admit(patch, token):
    patch.setenv("RAY_AUTH_MODE", "token")
    patch.setenv("RAY_AUTH_TOKEN", token)


@pytest.fixture
def ray_address(cluster_of_one, patience, monkeypatch):
    address, token = cluster_of_one
    admit(monkeypatch, token)
    return address


@contextlib.contextmanager
def node(*words):
    """One node of a cluster, with four processors as far as it knows; lost when `with` ends."""
    folder = tempfile.mkdtemp(prefix="kg-ray-")  # short: sockets lie in it
    command = [Path(sys.executable).parent / "ray", "start", "--block", "--num-cpus=4", "--node-ip-address=127.0.0.1"]
    command += ["--object-store-memory=100000000", "--disable-usage-stats", *words]
    command += [f"--temp-dir={folder}"] if "--head" in words else []
    with Path(folder, "said").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        said = Path(folder, "said").read_text
        soon(lambda: "Ray runtime started" in said() or process.poll() is not None, 60, told=said)
        assert process.poll() is None, said()
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def store(tmp_path):
    opened = Store.open(f"sqlite:///{tmp_path / 'jobs.sqlite'}", lease=LEASE)
    yield opened
    opened.close()


@contextlib.contextmanager
def started(folder, *words):
    """A pool in a process of its own; its log is the file `said`."""
    command = [sys.executable, "-m", "kinetograph", "worker", "--folder", folder, "--lease", str(LEASE)]
    with (folder / "said").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--free", "0", "--device", "cpu", *words], stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def soon(condition, seconds=90.0, told=lambda: ""):
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it did not happen: {told()}"
        time.sleep(0.1)


def submit(store, count, **options):
    request = describe("patience").request("wait", seed=7, options=options)
    return [store.submit(Draft(engine="patience", request=request)).id for _ in range(count)]


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_no_job_is_lost_or_made_twice(ray_address, store, tmp_path):
    said = lambda: (tmp_path / "said").read_text()  # noqa: E731
    ids = submit(store, 6, steps=20, pause=0.1)
    with started(tmp_path, "--ray", ray_address, "--count", "2", "--gpus", "0.5") as process:
        soon(lambda: store.counts().get("in_progress") == 2, told=said)
        victim = next(worker.id for worker, _ in store.workers() if worker.job)
        os.kill(int(victim.rpartition(":")[2]), signal.SIGKILL)
        soon(lambda: store.counts() == {"completed": 6}, told=said)
        soon(lambda: said().count("works") == 3, told=said)
        assert said().count("ended, the next one begins") == 1
        assert sum(store.job(id).attempts for id in ids) == 7
        tokens = sorted(entry.name for entry in Archive.open(tmp_path / "archive").entries())
        assert tokens == sorted(store.job(id).token for id in ids)

        [long] = submit(store, 1, steps=1000, pause=0.1)
        soon(lambda: store.job(long).state == "in_progress", told=said)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, said()
    assert (store.job(long).state, store.job(long).attempts) == ("queued", 0)
    assert store.workers() == []
    assert not list((tmp_path / "archive").glob(".*"))


@pytest.mark.slow
def test_the_job_of_a_lost_node_is_made_elsewhere_and_its_worker_waits_for_a_new_node(
    ray_address, postgresql_url, tmp_path
):
    said = lambda: (tmp_path / "said").read_text()  # noqa: E731
    store = Store.open(postgresql_url, lease=LEASE)
    words = ("--ray", ray_address, "--count", "2", "--cpus", "4", "--gpus", "0", "--database", postgresql_url)
    with contextlib.closing(store), contextlib.ExitStack() as second:
        second.enter_context(node(f"--address={ray_address}"))
        with started(tmp_path, *words) as process:
            soon(lambda: said().count("works") == 2, told=said)
            submit(store, 4, steps=30, pause=0.1)
            soon(lambda: store.counts().get("in_progress") == 2, told=said)
            second.close()
            soon(lambda: store.counts() == {"completed": 4}, told=said)
            soon(lambda: "the cluster has no room" in said(), told=said)
            second.enter_context(node(f"--address={ray_address}"))
            soon(lambda: said().count("works") == 3, told=said)
            assert any(alive(worker.id) for worker, _ in store.workers())
            process.kill()
            soon(lambda: not any(alive(worker.id) for worker, _ in store.workers()), told=said)


def alive(worker):
    """Whether the process of a worker of this machine is there."""
    try:
        os.kill(int(worker.rpartition(":")[2]), 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_a_pool_of_this_machine_alone_is_stopped_by_ctrl_c(patience, store, tmp_path):
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    said = lambda: (tmp_path / "said").read_text()  # noqa: E731
    [short] = submit(store, 1)
    with started(tmp_path, "--ray", "local") as process:
        soon(lambda: store.job(short).state == "completed", told=said)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, said()


@pytest.mark.slow
def test_a_batch_is_made_on_the_cluster_that_auto_finds_and_only_with_its_token(ray_address, tmp_path):
    (tmp_path / "asked.txt").write_text("a red circle moving left\na blue ball at rest\n")

    def run(address, **more):
        words = f"batch asked.txt --out-dir clips --engine render --format npz --device cpu --json --ray {address}"
        command = [sys.executable, "-m", "kinetograph", *words.split()]
        return subprocess.run(command, cwd=tmp_path, env={**os.environ, **more}, capture_output=True, text=True)

    refused = run(ray_address, RAY_AUTH_MODE="disabled")
    assert refused.returncode == 1
    assert "RAY_AUTH_MODE=token" in refused.stdout
    made = run("auto", RAY_ADDRESS=ray_address)
    assert json.loads(made.stdout)["made"] == 2, made.stderr
    kept = run(ray_address)
    assert json.loads(kept.stdout)["kept"] == 2, kept.stderr


def test_an_address_where_nothing_listens_is_refused_at_once():
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    begun = time.monotonic()
    for address in (f"127.0.0.1:{free_port()}", f"ray://localhost:{free_port()}"):
        with pytest.raises(Unreachable, match="no Ray cluster") as caught:
            next(executors.cluster(address)(iter(())))
        assert "ray start" in caught.value.hint
    assert time.monotonic() - begun < 20


def command(folder, *words):
    return CliRunner().invoke(app, ["worker", "--folder", str(folder), *words])


def test_without_ray_the_worker_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    refused = command(tmp_path, "--ray", "auto")
    assert refused.exit_code == 2
    assert "kinetograph[ray]" in refused.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--count", "2"], "--count is for a pool"),
        (["--gpus", "1"], "--gpus is for a pool"),
        (["--ray", "local", "--count", "0"], "0 workers make nothing"),
        (["--ray", "local", "--gpus", "1.5"], "cannot ask for 1.5 gpus"),
        (["--ray", "local", "--cpus", "-1"], "cannot ask for -1 cpus"),
    ],
)
def test_a_pool_that_makes_no_sense_is_refused(words, said, tmp_path):
    refused = command(tmp_path, *words)
    assert refused.exit_code == 2
    assert said in refused.output


def test_a_node_that_sees_another_archive_does_not_work_for_the_pool(tmp_path):
    task = pool.Task(database=f"sqlite:///{tmp_path / 'jobs.sqlite'}", archive=tmp_path / "elsewhere", mark=".pool-1")
    with pytest.raises(CannotRead, match="not the pool's archive on this node"):
        pool.Hand(task)
    assert not (tmp_path / "elsewhere").exists()


class Nodes:
    """A cluster of two machines, as far as the pool asks."""

    @staticmethod
    def nodes():
        return [{"Alive": True}, {"Alive": True}, {"Alive": False}]


def test_sqlite_is_refused_where_the_cluster_has_several_machines(tmp_path):
    task = pool.Task(database="sqlite:///jobs.sqlite", archive=tmp_path)
    with pytest.raises(InvalidRequest, match="2 nodes") as caught:
        pool._check_database(Nodes, task)
    assert "postgresql" in caught.value.hint
