"""A server as people start it, its workers, and what the measurements of it have in common."""

import http.client
import importlib
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from kinetograph.shelf import ENGINES

PROMPT = "a red ball moving left"
LEASE = 2.0
HERE = Path(__file__).parent
PYTHON = [sys.executable, "-m", "kinetograph"]

TRIGGERS = {
    "sqlite": """
CREATE TRIGGER audited AFTER UPDATE OF state ON jobs WHEN NEW.state = 'completed'
BEGIN INSERT INTO audit VALUES (NEW.id); END""",
    "postgresql": """
CREATE FUNCTION audited() RETURNS trigger AS $$
BEGIN IF NEW.state = 'completed' THEN INSERT INTO audit VALUES (NEW.id); END IF; RETURN NEW; END $$ LANGUAGE plpgsql;
CREATE TRIGGER audited AFTER UPDATE OF state ON jobs FOR EACH ROW EXECUTE FUNCTION audited()""",
}


def audited(store):
    """Let the database itself count completions, so that one that happens twice cannot hide."""
    for statement in ("CREATE TABLE audit (job VARCHAR(64))", TRIGGERS[store.database.engine.dialect.name]):
        store.database.run(lambda tx, statement=statement: tx.exec_driver_sql(statement))


def completed_twice(store):
    """How often something was completed that had been completed already."""
    audit = [row[0] for row in store.database.run(lambda tx: tx.exec_driver_sql("SELECT job FROM audit").all())]
    return len(audit) - len(set(audit))


def soon(condition, seconds=30.0):
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def left(store):
    """How many jobs wait or are being made."""
    counts = store.counts()
    return counts.get("queued", 0) + counts.get("in_progress", 0)


def announce(folder, name, module):
    """Say in a folder, as if another distribution had been installed there, that an engine of this name is a module."""
    said = folder / f"{name}-1.0.dist-info"
    said.mkdir(parents=True)
    (said / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (said / "entry_points.txt").write_text(f"[kinetograph.engines]\n{name} = {module}\n")


def stranger(folder):
    """Put the engine `sleeping` on the shelf, of this process and of those that it starts."""
    announce(folder, "sleeping", "sleeping")
    sys.path[:0] = [str(folder), str(HERE)]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), str(HERE), str(HERE.parent)])
    ENGINES.__dict__.pop("_strangers", None)
    importlib.invalidate_caches()


def worker(url, folder, *words):
    """A worker process over a queue and an archive."""
    said = ["--archive", str(folder), "--lease", str(LEASE), "--attempts", "100000", "--free", "0", *words]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([*PYTHON, "worker", *said], env={**os.environ, "KINETOGRAPH_DATABASE": url}, **quiet)


class Served:
    """A server in a process of its own, over a folder of its own. It has one worker unless `words` say otherwise."""

    def __init__(self, folder, *words):
        command = [*PYTHON, "serve", "--port", "0", "--folder", str(folder), "--free", "0", *words]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        self.address = re.search(r"http://([\d.]+:\d+)", line)[1]
        lonely = "--workers" in words and words[words.index("--workers") + 1] == "0"
        while not lonely and self.ask("GET", "/readyz")[0] != 200:
            time.sleep(0.1)

    def connection(self):
        """A connection that may be kept."""
        return http.client.HTTPConnection(self.address, timeout=60)

    def ask(self, method, path, body=None, **headers):
        """One request on a connection of its own: status and content."""
        connection = self.connection()
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"content-type": "application/json", **headers})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, json.loads(content) if content[:1] in (b"{", b"[") else content

    def make(self, headers=None, **fields):
        """Ask for a video, wait for it, and give back its object."""
        status, said = self.ask("POST", "/v1/videos", {"prompt": PROMPT, **fields}, **(headers or {}))
        assert status == 200, said
        while said["status"] in ("queued", "in_progress"):
            time.sleep(0.02)
            said = self.ask("GET", f"/v1/videos/{said['id']}", **(headers or {}))[1]
        return said

    def workers(self):
        """The ids of its worker processes."""
        words = ["ps", "-o", "pid=", "--ppid", str(self.process.pid)]
        return [int(pid) for pid in subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()]

    def stop(self):
        """End it."""
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def together(beside, over, work):
    """Run `work` in threads to its end, with others beside it that stop when `over` is set.

    What one of them raises is raised here: whoever gave up has not been answered well.
    """
    with ThreadPoolExecutor(len(beside) + len(work)) as crew:
        around, middle = ([crew.submit(one) for one in group] for group in (beside, work))
        wait(middle)
        over.set()
    for one in (*around, *middle):
        one.result()


def megabytes(pid):
    """The memory of a process that is really there (resident), in megabytes. Linux only."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def handles(pid):
    """How many files, sockets and pipes a process has open. Linux only."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def row(*cells):
    """One line of a table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def quantile(values, part):
    """The value below which a part of them lies."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def milliseconds(values, part):
    """A quantile of seconds, in words."""
    return f"{quantile(values, part) * 1e3:.1f} ms"
