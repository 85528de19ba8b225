"""What the server costs and what it survives: tables.

    python benchmarks/server.py                                  the short run: seconds, 20 kills
    python benchmarks/server.py --kills 200 --jobs 500           kill -9 of workers at random moments, on SQLite
    python benchmarks/server.py --only kills --database postgresql+psycopg://user@/empty_database
    python benchmarks/server.py --only restarts --minutes 20     a PostgreSQL that is stopped again and again

*Crashes*: workers are killed with SIGKILL while they have a job. A trigger in the database counts every completion, so
that one which happened twice cannot hide; every video that is called completed is opened and compared with its sha256.
*Restarts*: a PostgreSQL of its own is stopped, half the times as if it had crashed, while clients ask for videos.
*Costs*: how long status requests take while videos are made, how long a cancellation takes, and how much longer a video
takes through server, queue and worker than by the engine alone.
"""

import argparse
import random
import signal
import statistics
import tempfile
import threading
import time
import urllib.parse
from collections import Counter
from functools import partial
from pathlib import Path

import sqlalchemy as sa
from cluster import Cluster
from served import LEASE, PROMPT, Served, audited, completed_twice, left, milliseconds, row, together, worker

from kinetograph import describe, files, generate
from kinetograph.archive import Archive
from kinetograph.jobs import Draft, Store
from kinetograph.jobs.tables import jobs

# --- crashes ------------------------------------------------------------------------------------------------


def crashes(url, folder, *, count, kills, crew=3, seed=0, size=96, frames=40, patience=3600.0):
    """Kill workers while they make videos. How many jobs there were, were completed, lost, and completed twice."""
    store, archive, chance = (
        Store.open(url, lease=LEASE, most_attempts=100_000),
        Archive.open(folder),
        random.Random(seed),
    )
    audited(store)
    info = describe("render")
    for number in range(count):
        request = info.request(PROMPT, seed=number, width=size, height=size, frames=frames)
        store.submit(Draft(engine="render", request=request))
    members, killed, begun = [worker(url, folder) for _ in range(crew)], 0, time.monotonic()
    while killed < kills and time.monotonic() < begun + patience and left(store):
        time.sleep(chance.uniform(0.0, 0.15))
        busy = {job.worker.rpartition(":")[2] for job in store.jobs(states=("in_progress",), limit=100).jobs}
        victims = [member for member in members if str(member.pid) in busy and member.poll() is None]
        if victims:
            victim = chance.choice(victims)
            time.sleep(chance.uniform(0.0, 0.15))
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            members[members.index(victim)] = worker(url, folder)
            killed += 1
    while left(store) and time.monotonic() < begun + patience:
        time.sleep(0.1)
    for member in members:
        member.terminate()
    for member in members:
        member.wait()
    twice = completed_twice(store)
    done = [
        row for row in store.database.run(lambda tx: tx.execute(sa.select(*jobs.c)).all()) if row.state == "completed"
    ]
    unreadable = sum(not _readable(archive, row) for row in done)
    store.close()
    return {
        "jobs": count,
        "kills": killed,
        "completed": len(done),
        "lost": count - len(done),
        "completed twice": twice,
        "without a file": unreadable,
        "attempts": sum(row.attempts for row in done),
        "seconds": round(time.monotonic() - begun, 1),
    }


def _readable(archive, row):
    entry = archive.entry(row.token)
    return files.sha256(entry.video) == row.media["sha256"] == entry.facts["sha256"]


# --- restarts -----------------------------------------------------------------------------------------------


def restarts(folder, *, minutes, pause=(5.0, 40.0), away=(0.2, 9.0), crew=2, clients=4, rate=2.0, seed=0):
    """Stop the database again and again while clients ask for videos: what became of them, and what was answered."""
    chance, over, answers, asked, recovered = random.Random(seed), threading.Event(), Counter(), [], []
    with Cluster() as cluster:
        url = cluster.database()
        store = Store.open(url, lease=5.0)
        audited(store)
        words = [
            "--database",
            url,
            "--engine",
            "render",
            "--rate",
            "100000/minute",
            "--lease",
            "5",
            "--attempts",
            "1000",
        ]
        with Served(folder, *words, "--workers", str(crew)) as served:

            def client(number):
                count = 0
                while not over.is_set():
                    time.sleep(clients / rate)
                    key = {"idempotency-key": f"{number}-{count}"}
                    status, said = served.ask("POST", "/v1/videos", {"prompt": PROMPT, "model": "render"}, **key)
                    answers[status] += 1
                    if status == 200:  # until then it is asked again
                        asked.append(said["id"])
                        count += 1
                        answers[served.ask("GET", f"/v1/videos/{said['id']}")[0]] += 1

            def stopping():
                end = time.monotonic() + minutes * 60
                while time.monotonic() < end:
                    time.sleep(chance.uniform(*pause))
                    cluster.stop(chance.choice(["fast", "immediate"]))
                    time.sleep(chance.uniform(*away))
                    cluster.start()
                    began = time.monotonic()
                    while (status := served.ask("GET", "/v1/videos?limit=1")[0]) != 200:
                        answers[status] += 1
                    recovered.append(time.monotonic() - began)

            together([partial(client, number) for number in range(clients)], over, [stopping])
            while left(store):
                time.sleep(0.1)
        done = {job.id for job in store.changed(0, most=1_000_000) if job.state == "completed"}
        twice = completed_twice(store)
        store.close()
    return {
        "restarts": len(recovered),
        "jobs": len(asked),
        "completed": len(done),
        "lost": len(set(asked) - done),
        "completed twice": twice,
        "answers": " ".join(f"{status}: {count}" for status, count in sorted(answers.items())),
        "neither 200 nor 503": sum(count for status, count in answers.items() if status not in (200, 503)),
        "longest recovery": round(max(recovered), 2),
    }


# --- costs --------------------------------------------------------------------------------------------------


def latency(served, *, seconds, rate):
    """Status requests at a rate, while videos are made one after the other: seconds of each, and the videos made."""
    took, made, over = [], [], threading.Event()

    def making():
        while not over.is_set():
            made.append(served.make(model="render", size="128x128", frames=50))

    def asking():
        connection = served.connection()
        begun = time.perf_counter()
        for number in range(int(seconds * rate)):
            time.sleep(max(0.0, begun + number / rate - time.perf_counter()))
            sent = time.perf_counter()
            connection.request("GET", f"/v1/videos/{known}")
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            took.append(time.perf_counter() - sent)

    known = served.make(model="render")["id"]
    together([making], over, [asking])
    return took, made


def cancelling(served, times):
    """How long the answer to a cancellation takes, after which nothing of the video is to be seen: seconds."""
    took = []
    for _ in range(times):
        body = {"prompt": PROMPT, "model": "render", "frames": 100, "size": "128x128"}
        id = served.ask("POST", "/v1/videos", body)[1]["id"]
        while served.ask("GET", f"/v1/videos/{id}")[1]["state"] == "queued":
            time.sleep(0.01)
        begun = time.perf_counter()
        served.ask("POST", f"/v1/videos/{id}/cancel")
        took.append(time.perf_counter() - begun)
        served.make(model="render")  # nothing else is begun before the worker is free
    return took


def overhead(served, times):
    """The same videos by the engine alone, and through the server: seconds of each."""
    settings = {"width": 64, "height": 64, "frames": 10}
    info = describe("gan")
    generate("gan", info.request(PROMPT, seed=0, **settings))
    bare, through = [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(times):
            begun = time.perf_counter()
            generate("gan", info.request(PROMPT, seed=seed, **settings)).save(Path(folder) / f"{seed}.mp4")
            bare.append(time.perf_counter() - begun)
    served.make(model="gan")
    for seed in range(times):
        begun = time.perf_counter()
        served.make(model="gan", seed=seed)
        through.append(time.perf_counter() - begun)
    return bare, through


# --- the tables ---------------------------------------------------------------------------------------------


def costs(seconds, rate, times):
    """Print what the server costs."""
    with tempfile.TemporaryDirectory() as folder:
        served = Served(folder, "--engine", "gan", "--allow", "render", "--rate", "100000/minute")
        try:
            took, made = latency(served, seconds=seconds, rate=rate)
            cancelled = cancelling(served, times)
            bare, through = overhead(served, 4 * times)
        finally:
            served.stop()
    row("measured", "median", "p99", "of")
    row("---", "---", "---", "---")
    row(f"status while videos are made, {rate} a second", milliseconds(took, 0.5), milliseconds(took, 0.99), len(took))
    row("answer to a cancellation", milliseconds(cancelled, 0.5), milliseconds(cancelled, 0.99), len(cancelled))
    row("a clip by the engine alone, saved", milliseconds(bare, 0.5), milliseconds(bare, 0.99), len(bare))
    row("the same through server, queue, worker", milliseconds(through, 0.5), milliseconds(through, 0.99), len(through))
    row("what that adds", f"{(statistics.median(through) - statistics.median(bare)) * 1e3:.1f} ms", "", "")
    print(f"({len(made)} videos were made meanwhile)")


def table(figures):
    """A table of one line."""
    row(*figures)
    row(*["---"] * len(figures))
    row(*figures.values())
    print()


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["kills", "costs", "restarts"])
    parser.add_argument("--database", help="an empty PostgreSQL database; by default a SQLite file")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=1, help="of restarts")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=int, default=50)
    parser.add_argument("--times", type=int, default=5)
    given = parser.parse_args()
    if given.only in (None, "kills"):
        with tempfile.TemporaryDirectory() as folder:
            url = given.database or f"sqlite:///{Path(folder) / 'jobs.sqlite'}"
            figures = crashes(url, Path(folder) / "archive", count=given.jobs, kills=given.kills, crew=given.workers)
        table({"database": urllib.parse.urlsplit(url).scheme, **figures})
    if given.only in (None, "restarts"):
        with tempfile.TemporaryDirectory() as folder:
            table(restarts(Path(folder), minutes=given.minutes))
    if given.only in (None, "costs"):
        costs(given.seconds, given.rate, given.times)


if __name__ == "__main__":
    main()
