"""Executors: who makes many videos, several processes of this machine or a Ray cluster, in any order.

What goes out is an order, plain data; what comes back is the file's bytes, so that nobody needs a folder in common. An
order that is interrupted is simply given out again by whoever keeps the books (`batch`).
"""

import itertools
import multiprocessing
import os
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinetograph.engine import generate
from kinetograph.errors import InvalidRequest, KinetographError, MissingExtra, Unreachable
from kinetograph.request import VideoRequest

AHEAD = 2  # orders that are given out for each processor: enough that nobody waits, few enough to stop soon
KNOCK = 5.0  # seconds that an address has to answer
TRIES = 3  # times that an order is begun again when the process that had it dies


@dataclass(frozen=True, kw_only=True)
class Order:
    """One video, and how its file is to be written; `suffix` is the format."""

    index: int
    engine: str
    request: VideoRequest
    suffix: str
    device: str = "auto"
    provenance: bool = True
    enlarge: int | None = None


@dataclass(frozen=True, kw_only=True)
class Made:
    """What came of an order: the file's `content` and the seconds it took, or an `error` and its hint."""

    index: int
    content: bytes = b""
    seconds: float = 0.0
    error: str = ""
    hint: str = ""
    warnings: tuple[str, ...] = ()


Executor = Callable[[Iterable[Order]], Iterator[Made]]


def make(order: Order) -> Made:
    """Make one video, here. What cannot be made is told, not raised: it crosses borders better."""
    with warnings.catch_warnings(record=True) as heard, tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        try:
            video = generate(order.engine, order.request, device=order.device)
            path = Path(folder) / f"clip{order.suffix}"
            video.save(path, provenance=order.provenance, enlarge=order.enlarge)
        except KinetographError as error:
            return Made(index=order.index, error=str(error), hint=error.hint)
        seconds = video.provenance.seconds if video.provenance else 0.0
        said = tuple(str(one.message) for one in heard)
        return Made(index=order.index, content=path.read_bytes(), seconds=seconds, warnings=said)


# --- processes --------------------------------------------------------------------------------------------------------


def processes(count: int) -> Executor:
    """So many processes of this machine. Raises InvalidRequest for none, KinetographError where one of them dies."""
    if count < 1:
        raise InvalidRequest(f"{count} processes make nothing", field="workers", hint="nearest: 1")

    def execute(orders: Iterable[Order]) -> Iterator[Made]:
        context = multiprocessing.get_context("spawn")  # a fork of a process that has threads may hang
        pool = ProcessPoolExecutor(count, mp_context=context)
        try:
            yield from _flowing(pool, iter(orders), count * AHEAD)
        except BrokenProcessPool as error:
            hint = "it was killed, or there was no memory left; the same command goes on where it stopped"
            raise KinetographError("a process died while it made a video", hint=hint) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    return execute


def _flowing(pool: ProcessPoolExecutor, orders: Iterator[Order], most: int) -> Iterator[Made]:
    """Never more than `most` orders out at a time."""
    out: set[Future[Made]] = {pool.submit(make, order) for order in itertools.islice(orders, most)}
    while out:
        done, out = wait(out, return_when=FIRST_COMPLETED)
        out |= {pool.submit(make, order) for order in itertools.islice(orders, len(done))}
        for future in done:
            yield future.result()


# --- a Ray cluster ----------------------------------------------------------------------------------------------------


def cluster(address: str, device: str = "auto") -> Executor:
    """A Ray cluster that makes everything, as `joined` understands its address. Raises MissingExtra, Unreachable."""
    _library()

    def execute(orders: Iterable[Order]) -> Iterator[Made]:
        with joined(address) as ray:
            yield from _spread(ray, iter(orders), device)

    return execute


@contextmanager
def joined(address: str, *, heard: bool = False) -> Iterator[Any]:
    """Belong to a Ray cluster for a while: `auto` is the one that this machine belongs to, `local` a new one of this
    machine alone, else its address. With `heard`, what its processes print is printed here.

    Every node needs this package. Who may reach a cluster may run code on it: keep it in a private network, with
    RAY_AUTH_MODE=token. Raises MissingExtra, and Unreachable where there is none.
    """
    ray = _library()
    ours = not ray.is_initialized()
    if ours:
        _join(ray, address, heard)
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


def _library() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told that it is used
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a task without a card keeps the environment
    try:
        import ray
    except ImportError as error:
        hint = "pip install 'kinetograph[ray]'"
        raise MissingExtra("clusters are spoken to by ray, which is not installed", hint=hint) from error
    return ray


def _join(ray: Any, address: str, heard: bool) -> None:
    quiet = {"log_to_driver": heard, "logging_level": "ERROR"}
    hint = "begin one with `ray start --head`, or take --ray local"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what ray will do one day
            if address == "local":
                ray.init(include_dashboard=False, **quiet)
            else:
                if _knock(ray, os.environ.get("RAY_ADDRESS", "") if address == "auto" else address):
                    hint = "something answers there: for a cluster with a token, set RAY_AUTH_MODE=token"
                ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        said = str(error).splitlines()[0][:200]
        raise Unreachable(f"there is no Ray cluster at {address}: {said}", hint=hint) from error


def _knock(ray: Any, address: str) -> bool:
    """Whether an address can be asked, and somebody listens there. Raises OSError where nobody does: ray itself tries
    for minutes, and says so in a log of its own.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return False
    host = host.strip("[]")
    try:
        socket.create_connection((host, int(port)), KNOCK).close()
    except OSError:
        if host not in ("localhost", "127.0.0.1"):
            raise
        socket.create_connection((ray.util.get_node_ip_address(), int(port)), KNOCK).close()  # as ray understands it
    return True


def _spread(ray: Any, orders: Iterator[Order], device: str) -> Iterator[Made]:
    """Never more orders out than the cluster has room for, twice; one whose process dies is begun again."""
    cards = ray.cluster_resources().get("GPU", 0)
    needs_card = device.startswith("cuda") or (device == "auto" and cards > 0)
    remote = ray.remote(max_retries=TRIES, num_cpus=1, num_gpus=1 if needs_card else 0)(make)
    room = cards if needs_card else ray.cluster_resources().get("CPU", 1)
    out: dict[Any, Order] = {}
    for order in itertools.islice(orders, max(1, int(room)) * AHEAD):
        out[remote.remote(order)] = order
    try:
        while out:
            (done,), _ = ray.wait(list(out), num_returns=1)
            order = out.pop(done)
            for following in itertools.islice(orders, 1):
                out[remote.remote(following)] = following
            yield _fetched(ray, done, order)
    finally:
        for waiting in out:
            ray.cancel(waiting, force=True)


def _fetched(ray: Any, done: Any, order: Order) -> Made:
    try:
        made: Made = ray.get(done)
        return made
    except ray.exceptions.RayError as error:
        said = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        return Made(index=order.index, error=f"the cluster could not make it ({said})", hint="the next run tries again")
