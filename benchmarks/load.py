"""What the server holds: nine loads, each with its figure beside its target.

    python benchmarks/load.py                              every load at full size: about four hours
    python benchmarks/load.py --only L1 --minutes 1        one load, for less time
    python benchmarks/load.py --only L6 --jobs 400         one load, of fewer jobs

L1 reads under a generation, L2 a burst of submissions, L3 a long queue, L4 listeners, L5 an endurance run, L6 several
workers over one PostgreSQL (which is started for it), L7 range reads, L9 a batch that is killed, L10 two tenants. L8,
the start of the command line, is a test. Memory and open files are read where Linux keeps them. The last column says
what else the machine was doing: how many of its processors other programs used meanwhile.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import sqlalchemy as sa
from cluster import Cluster
from served import (
    PROMPT,
    PYTHON,
    Served,
    audited,
    completed_twice,
    handles,
    left,
    megabytes,
    milliseconds,
    quantile,
    stranger,
    together,
    worker,
)
from served import row as line

from kinetograph import describe
from kinetograph.jobs import Draft, Keys, Store
from kinetograph.jobs.tables import jobs

FREELY = ("--rate", "1000000/minute")
FAST = ("--engine", "render", *FREELY)
SLEEPING = ("--engine", "sleeping", *FREELY)
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Figure:
    """One thing that was measured, and what it should be; without a target, it is told to explain the others."""

    measured: str
    value: float
    target: float | None = None
    unit: str = ""
    most: bool = True  # whether the target is the most that it may be, or the least

    @property
    def held(self):
        """Whether it is what it should be, in a word."""
        if self.target is None:
            return ""
        return "yes" if (self.value <= self.target if self.most else self.value >= self.target) else "**no**"

    @property
    def wanted(self):
        """The target, in words."""
        return "" if self.target is None else f"{'<=' if self.most else '>='} {self.target:g}{self.unit}"


def ms(measured, values, part, target):
    """A quantile of times as a figure."""
    name = "median" if part == 0.5 else f"p{part * 100:g}" if part < 1 else "longest"
    return Figure(f"{measured}, {name}", quantile(values, part) * 1e3, target, " ms")


# --- L1: status requests while a video is made ------------------------------------------------------------------


def reading(folder, *, minutes=10.0, rate=300, crew=16):
    """Status reads at a rate while videos are made; times count from when a request was due, not when it was sent."""
    took, bad, over = [], [], threading.Event()
    wanted = {"model": "render", "size": "128x128", "frames": 50}
    with Served(folder, *FAST) as served:
        known = served.make(model="render")["id"]
        idle = [_timed(lambda: served.ask("GET", f"/v1/videos/{known}"))[0] for _ in range(300)]
        alone = [served.make(**wanted)["media"]["generation_seconds"] for _ in range(9)]
        under, spent, begun = [], worked(served.process.pid), time.perf_counter() + 0.5

        def making():
            while not over.is_set():
                under.append(served.make(**wanted)["media"]["generation_seconds"])

        def asking(first):
            connection = served.connection()
            for number in range(first, int(minutes * 60 * rate), crew):
                due = begun + number / rate
                time.sleep(max(0.0, due - time.perf_counter()))
                connection.request("GET", f"/v1/videos/{known}")
                answer = connection.getresponse()
                answer.read()
                took.append(time.perf_counter() - due)
                if answer.status != 200:
                    bad.append(answer.status)
            connection.close()

        together([making], over, [lambda n=n: asking(n) for n in range(crew)])
        spent = worked(served.process.pid) - spent
    slower = statistics.median(under) / statistics.median(alone) - 1
    return [
        ms(f"{len(took)} status reads, {rate}/s", took, 0.99, 150),
        ms("one after the other, with nothing else to do", idle, 0.99, None),
        Figure("answers other than 200", len(bad), 0),
        Figure("of a processor, the server took for each", 1e3 * spent / len(took), unit=" ms"),
        Figure(f"a generation is slower by (of {len(under)})", 100 * slower, 15, " %"),
    ]


# --- L2: a burst ------------------------------------------------------------------------------------------------


def burst(folder, *, count=1000, clients=50, seconds=30.0):
    """Many clients submit at once; nothing is answered that is not a yes, or a no that says when to come again."""
    took, answers, ids = [], [], []
    with Served(folder, *FAST, "--most-queued", str(count)) as served:
        begun = time.perf_counter()

        def submitting(first):
            for number in range(first, count, clients):
                time.sleep(max(0.0, begun + number * seconds / count - time.perf_counter()))
                with suppress(OSError, HTTPException):  # no answer at all, which is counted below
                    submit(number)

        def submit(number):
            sent, connection = time.perf_counter(), served.connection()  # a new one: an idle one is closed
            said = json.dumps({"prompt": PROMPT, "seed": number})
            connection.request("POST", "/v1/videos", said, {"content-type": "application/json"})
            answer = connection.getresponse()
            content = json.loads(answer.read())
            took.append(time.perf_counter() - sent)
            answers.append((answer.status, answer.getheader("retry-after")))
            if answer.status == 200:
                ids.append(content["id"])
            connection.close()

        spent = worked(served.process.pid)
        together([], threading.Event(), [lambda n=n: submitting(n) for n in range(clients)])
        spent = worked(served.process.pid) - spent
        store = Store.open(f"sqlite:///{folder / 'jobs.sqlite'}")
        known = set(store.database.run(lambda tx: tx.execute(sa.select(jobs.c.id)).scalars().all(), reading=True))
        store.close()
    wrong = [status for status, again in answers if status != 200 and not (status in (429, 503) and again)]
    return [
        Figure("submissions answered otherwise than with yes, or no and when", len(wrong) + count - len(answers), 0),
        Figure(f"of {len(ids)} taken, not in the database", len(set(ids) - known) + len(ids) - len(set(ids)), 0),
        ms(f"{count} submissions of {clients} clients in {seconds:g} s", took, 0.99, 500),
        ms("the same", took, 0.5, None),
        Figure("of a processor, the server took for each", 1e3 * spent / count, unit=" ms"),
    ]


# --- L3: a long queue -------------------------------------------------------------------------------------------


def queue(folder, *, count=10_000, times=200):
    """A claim, and a page of a list, where many jobs of ten owners wait."""
    with Served(folder, *FAST, "--workers", "0") as served:
        store = Store.open(f"sqlite:///{folder / 'jobs.sqlite'}")
        request = describe("render").request(PROMPT, seed=7)
        owners = ["local", *(f"owner{number}" for number in range(9))]
        for number in range(count):
            store.submit(Draft(engine="render", request=request, owner=owners[number % len(owners)]))
        claims, spent = [], []
        for _ in range(times):
            before = time.thread_time()
            claims.append(_timed(lambda: store.claim("w"))[0])
            spent.append(time.thread_time() - before)
        pages, after, served_for = [], "", worked(served.process.pid)
        for _ in range(times):
            took, (status, page) = _timed(lambda after=after: served.ask("GET", f"/v1/videos?limit=20{after}"))
            assert status == 200, page
            pages.append(took)
            after = f"&after={page['last_id']}" if page["has_more"] else ""
        served_for = worked(served.process.pid) - served_for
        store.close()
    return [
        ms(f"a claim of {count} waiting", claims, 0.99, 20),
        ms("of a processor, a claim took", spent, 0.99, None),
        ms("a page of twenty", pages, 0.99, 100),
        ms("of a processor, the server took for a page", [served_for / times], 0.5, None),
    ]


def _timed(work):
    begun = time.perf_counter()
    said = work()
    return time.perf_counter() - begun, said


# --- L4: listeners ----------------------------------------------------------------------------------------------


class Listener:
    """One client that listens to all events, and comes back where its connection was cut."""

    def __init__(self, served):
        self._served, self.last, self.finished, self.returns = served, "0", set(), -1
        self.there = False

    async def listen(self, over, rests):
        """Listen until it is over, cutting the connection after each of some rests."""
        while not over.is_set():
            self.returns += 1
            with suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                async with asyncio.timeout(next(rests)):
                    await self._once(over)

    async def _once(self, over):
        host, _, port = self._served.address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=2**20)
        try:
            again = f"host: {host}\r\nlast-event-id: {self.last}"
            writer.write(f"GET /v1/events?previews=false HTTP/1.1\r\n{again}\r\n\r\n".encode())
            await writer.drain()
            number, kind = None, None
            while not over.is_set() and (said := await reader.readuntil(b"\n")):
                name, _, content = said.decode().strip().partition(": ")
                self.there = self.there or name == "retry"
                if name == "event":
                    kind = content
                elif name == "id":
                    number = content
                elif name == "data" and kind == "video":
                    video = json.loads(content)
                    if video["status"] == "completed":
                        self.finished.add(video["id"])
                elif not name and number is not None:  # the event is whole: only now it counts as heard
                    self.last = number
        finally:
            writer.close()


def listening(folder, *, minutes=30.0, listeners=200, pause=1.0):
    """Many listeners while videos are made one after the other; a third of them lose their connection now and then."""
    with Served(folder, *FAST) as served:
        served.make(model="render")
        before = megabytes(served.process.pid)
        made, most, crowd = asyncio.run(_listening(served, minutes * 60, listeners, pause))
    lost = sum(len(set(made) - listener.finished) for listener in crowd)
    return [
        Figure(f"final events lost, of {len(made)} for {listeners} listeners", lost, 0),
        Figure(
            f"the server's memory grows by ({sum(one.returns for one in crowd)} reconnections)",
            most - before,
            100,
            " MB",
        ),
    ]


async def _listening(served, seconds, count, pause):
    over, chance, crowd = asyncio.Event(), random.Random(0), [Listener(served) for _ in range(count)]

    def rests(number):
        while True:
            yield chance.uniform(2, 10) if number % 3 == 0 else seconds + 600

    tasks = [asyncio.create_task(one.listen(over, rests(number))) for number, one in enumerate(crowd)]
    while not all(one.there for one in crowd):
        await asyncio.sleep(0.1)
    made, most, end = [], 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        made.append((await asyncio.to_thread(served.make, model="render"))["id"])
        most = max(most, megabytes(served.process.pid))
        await asyncio.sleep(pause)
    await asyncio.sleep(12)  # longer than anybody's rest: whoever was away comes back
    over.set()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return made, most, crowd


# --- L5: endurance ----------------------------------------------------------------------------------------------


def enduring(folder, *, minutes=60.0, keep=60.0, warming=0.2):
    """Videos one after the other, read and then deleted by their age: what grows?"""
    with Served(folder, *FAST, "--retention", str(keep / 86_400)) as served:
        end, begun = time.monotonic() + minutes * 60, time.monotonic()
        (pid,) = served.workers()
        seen, number = [], 0
        while time.monotonic() < end:
            made = served.make(model="render", seed=number, size="64x64", frames=20)
            served.ask("GET", f"/v1/videos/{made['id']}/content")
            served.ask("GET", "/v1/videos?limit=20")
            number += 1
            if number % 10 == 0:
                seen.append((time.monotonic() - begun, *_state(served, pid)))
        while _videos(folder) and time.monotonic() < end + keep + 120:
            time.sleep(1)
        rest = _videos(folder)
        assert served.workers() == [pid], "the worker was another one in the end"
    warm = [one for one in seen if one[0] > warming * minutes * 60]
    span = 0.75 * (warm[-1][0] - warm[0][0]) / 3600  # hours, from the middle of one quarter to that of the other
    quarter = max(1, len(warm) // 4)

    def growth(column):  # of the last quarter over the first: single readings jump
        first, last = (statistics.median(one[column] for one in part) for part in (warm[:quarter], warm[-quarter:]))
        return last - first

    return [
        Figure(f"the worker's memory grows in an hour by ({number} videos)", growth(1) / span, 20, " MB"),
        Figure("the server's memory grows in an hour by", growth(2) / span, 20, " MB"),
        Figure("open files of the worker, more in the end", growth(3), 0),
        Figure("open files of the server, more in the end", growth(4), 0),
        Figure("videos left when their time is over", rest, 0),
    ]


def _state(served, pid):
    return megabytes(pid), megabytes(served.process.pid), handles(pid), handles(served.process.pid)


def _videos(folder):
    return len(list((folder / "archive" / "videos").glob("*/*")))


# --- L6: several workers ----------------------------------------------------------------------------------------


def sharing(folder, *, count=10_000, crew=4, seconds=1.0):
    """The same sleeping jobs by one worker and by several, over one PostgreSQL."""
    with Cluster() as cluster:
        few, alone, twice_alone = _shared(cluster.database(), folder / "one", max(10, count // (2 * crew)), 1, seconds)
        many, shared, twice = _shared(cluster.database(), folder / "many", count, crew, seconds)
    ratio = (many / shared) / (few / alone)
    return [
        Figure(f"completed twice, of {few + many}", twice + twice_alone, 0),
        Figure(
            f"{crew} workers are faster than one ({many / shared:.2f} jobs/s of {seconds:g} s)", ratio, 3.5, "x", False
        ),
    ]


def _shared(url, folder, count, crew, seconds):
    """How many jobs were made, in how many seconds, and how many twice. The clock begins when every worker works."""
    store = Store.open(url, lease=30.0)
    audited(store)
    request = describe("sleeping").request(PROMPT, seed=7, options={"sleep": seconds})
    for _ in range(count + crew):
        store.submit(Draft(engine="sleeping", request=request))
    members = [worker(url, folder, "--lease", "30") for _ in range(crew)]
    while store.counts().get("in_progress", 0) < crew:
        time.sleep(0.02)
    before, begun = store.counts().get("completed", 0), time.monotonic()
    while left(store) > crew:  # and it ends before the first of them has nothing to do
        time.sleep(0.05)
    made, took = store.counts()["completed"] - before, time.monotonic() - begun
    while left(store):
        time.sleep(0.05)
    for member in members:
        member.terminate()
    for member in members:
        member.wait()
    twice = completed_twice(store)
    store.close()
    return made, took, twice


# --- L7: range reads --------------------------------------------------------------------------------------------


def ranges(folder, *, count=100, size=20_000_000, rounds=5):
    """Parallel reads of parts of a large file; how long does the event loop take meanwhile to answer anything?"""
    with Served(folder, *FAST) as served:
        made = served.make(model="render")
        [file] = (folder / "archive" / "videos").glob("*/*/video.mp4")
        content = random.Random(0).randbytes(size)
        file.write_bytes(content)
        idle = [_timed(lambda: served.ask("GET", "/nothing"))[0] for _ in range(300)]
        before, most, over, stalls, wrong = megabytes(served.process.pid), [0.0], threading.Event(), [], []

        def looking():
            connection = served.connection()
            while not over.is_set():
                begun = time.perf_counter()
                connection.request("GET", "/nothing")  # no route, no thread: the loop itself says so
                connection.getresponse().read()
                stalls.append(time.perf_counter() - begun)
                most[0] = max(most[0], megabytes(served.process.pid))
                time.sleep(0.01)
            connection.close()

        def fetching(number):
            chance, connection = random.Random(number), served.connection()
            for _ in range(rounds):
                first = chance.randrange(size // 2)
                last = first + size // 4 - 1
                connection.request(
                    "GET", f"/v1/videos/{made['id']}/content", headers={"range": f"bytes={first}-{last}"}
                )
                answer = connection.getresponse()
                if answer.status != 206 or answer.read() != content[first : last + 1]:
                    wrong.append(number)
            connection.close()

        spent = worked(served.process.pid)
        together([looking], over, [lambda n=n: fetching(n) for n in range(count)])
        spent = worked(served.process.pid) - spent
    return [
        Figure(f"wrong answers, of {count * rounds} reads of {size / 4e6:g} MB by {count} at once", len(wrong), 0),
        Figure("the server's memory grows by", most[0] - before, 50, " MB"),
        ms("the event loop answers", stalls, 1, 100),
        ms("the event loop answers", stalls, 0.5, 100),
        ms("with nothing else to do", idle, 1, None),
        Figure(
            "of a processor, the server took for a megabyte", 1e3 * spent / (count * rounds * size / 4e6), unit=" ms"
        ),
    ]


# --- L9: a batch that is killed ---------------------------------------------------------------------------------


def batch(folder, *, count=10_000, kills=5):
    """A batch file that is killed at random moments and begun again: every clip once, few made anew."""
    folder.mkdir(parents=True)
    prompts, out, chance = folder / "prompts.txt", folder / "out", random.Random(0)
    prompts.write_text("".join(f"{PROMPT}\n" for _ in range(count)))
    words = ["batch", str(prompts), "--out-dir", str(out), "--engine", "render", "--seed", "1", "--format", "npz"]
    anew, made = 0, {}
    for number in range(kills + 1):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([*PYTHON, *words, "--frames", "4", "--size", "32x32"], **quiet)
        if number < kills:
            wanted = count * (number + chance.uniform(0.2, 1)) / (kills + 1)
            while process.poll() is None and len(list(out.glob("*.npz"))) < wanted:
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
        code = process.wait()
        now = {path.name: path.stat().st_mtime_ns for path in out.glob("*.npz")}
        anew += sum(now.get(name) != stamp for name, stamp in made.items())
        made = now
    rows = [json.loads(text) for text in (out / "manifest.jsonl").read_text().splitlines()]
    right = {entry["file"] for entry in rows if not entry["error"]} & set(made)
    return [
        Figure(f"of {count} clips, missing after {kills} kills", count - len(right), 0),
        Figure("clips too many", len(made) - len(right), 0),
        Figure("clips made anew", anew, kills),
        Figure("the last run ended with", code, 0),
    ]


# --- L10: two tenants -------------------------------------------------------------------------------------------


def tenants(folder, *, times=20, flood=200, seconds=1.0):
    """One floods the queue; how long does the other one wait for a video, and how long when it is alone?"""
    with Served(folder, *SLEEPING) as served:
        store = Store.open(f"sqlite:///{folder / 'jobs.sqlite'}")
        loud, quiet = ({"authorization": f"Bearer {Keys(store.database).add(name)}"} for name in ("loud", "quiet"))
        time.sleep(6)  # until the server has heard that keys are needed now
        wanted = {"model": "sleeping", "sleep": seconds}
        alone = [_timed(lambda: served.make(quiet, **wanted))[0] for _ in range(times)]
        for _ in range(flood):
            status, said = served.ask("POST", "/v1/videos", {"prompt": PROMPT, **wanted}, **loud)
            assert status == 200, said
        crowded = [_timed(lambda: served.make(quiet, **wanted))[0] for _ in range(times)]
        waiting = store.counts().get("queued", 0)
        store.close()
    assert waiting > 0, "the flood was over before the other one had all its videos"
    ratio = statistics.median(crowded) / statistics.median(alone)
    measured = f"a video of {seconds:g} s takes longer beside {flood} of another owner"
    return [Figure(f"{measured} ({milliseconds(alone, 0.5)} alone)", ratio, 2, "x")]


# --- the table --------------------------------------------------------------------------------------------------


def worked(pid):
    """Seconds that a process has had a processor."""
    said = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(said[11]) + int(said[12])) / TICKS


def processors():
    """Seconds that all processors worked, and that this process and its children that ended did."""
    said = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    times = os.times()
    return (
        sum(said) - said[3] - said[4]
    ) / TICKS, times.user + times.system + times.children_user + times.children_system


LOADS = {  # and which words of the command line each one knows, by its own name for them
    "L1": (reading, {"minutes": "minutes", "rate": "rate"}),
    "L2": (burst, {"count": "jobs", "clients": "clients", "seconds": "seconds"}),
    "L3": (queue, {"count": "jobs", "times": "times"}),
    "L4": (listening, {"minutes": "minutes", "listeners": "clients"}),
    "L5": (enduring, {"minutes": "minutes"}),
    "L6": (sharing, {"count": "jobs", "seconds": "seconds"}),
    "L7": (ranges, {"count": "clients", "rounds": "times"}),
    "L9": (batch, {"count": "jobs", "kills": "kills"}),
    "L10": (tenants, {"times": "times", "flood": "jobs", "seconds": "seconds"}),
}


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=LOADS, action="append", help="may be repeated; by default all of them")
    for name, kind in (("minutes", float), ("seconds", float), ("rate", int), ("jobs", int), ("clients", int)):
        parser.add_argument(f"--{name}", type=kind, help="by default the full size")
    parser.add_argument("--times", type=int)
    parser.add_argument("--kills", type=int)
    given = vars(parser.parse_args())
    line("load", "measured", "figure", "target", "held", "others used")
    line(*["---"] * 6)
    with tempfile.TemporaryDirectory() as folder:
        stranger(Path(folder) / "stranger")
        for name in given["only"] or LOADS:
            load, knows = LOADS[name]
            size = {mine: given[theirs] for mine, theirs in knows.items() if given[theirs] is not None}
            before, begun = processors(), time.monotonic()
            figures = load(Path(folder) / name, **size)
            all_of_them, ours = (after - earlier for after, earlier in zip(processors(), before, strict=True))
            others = f"{max(0.0, all_of_them - ours) / (time.monotonic() - begun):.1f} of {os.cpu_count()}"
            for figure in figures:
                line(name, figure.measured, f"{figure.value:.4g}{figure.unit}", figure.wanted, figure.held, others)


if __name__ == "__main__":
    main()
