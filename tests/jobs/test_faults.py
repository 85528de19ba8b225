"""Faults of the ground that a queue stands on: its schema, its clock, its network, its database."""

import contextlib
import selectors
import shutil
import socket
import threading
import time

import pytest
import sqlalchemy as sa
from served import audited, completed_twice, left, soon

from kinetograph.archive import Archive
from kinetograph.engine import describe
from kinetograph.errors import StoreError
from kinetograph.jobs import Draft, Store, migrations
from kinetograph.jobs.database import Database
from kinetograph.jobs.store import _fresh
from kinetograph.jobs.tables import clock, jobs, owners
from kinetograph.worker import Limits, Worker

REQUEST = describe("render").request("a red ball moving left", seed=7)


def submit(store, **options):
    request = describe("patience").request("wait", seed=7, options=options) if options else REQUEST
    return store.submit(Draft(engine="patience" if options else "render", request=request))


@contextlib.contextmanager
def working(*workers):
    """Workers in threads, until the end of the block."""
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.stopping.set()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)


# --- the schema ---------------------------------------------------------------------------------------------

NEXT = '''
"""What a later version might do: a column more."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    op.add_column("jobs", sa.Column("colour", sa.String(16), nullable=False, server_default="red"))


def downgrade():
    op.drop_column("jobs", "colour")
'''


@pytest.fixture
def thousand(database_url):
    """A database in which a thousand jobs are alive, and what is in it."""
    store = Store.open(database_url)
    rows = [_fresh(Draft(engine="render", request=REQUEST), number, 1e6) for number in range(1, 1001)]
    store.database.run(lambda tx: tx.execute(jobs.insert(), rows))
    running = {"state": "in_progress", "token": "t" * 32, "lease_until": time.time() + 3600}
    store.database.run(lambda tx: tx.execute(jobs.update().where(jobs.c.seq <= 100).values(running)))
    owner = {"owner": "local", "rank": 0, "served": 0}
    store.database.run(lambda tx: tx.execute(owners.insert().values(owner)))
    store.database.run(lambda tx: tx.execute(clock.update().values(revision=1000)))
    yield store, lambda: store.database.run(lambda tx: tx.execute(sa.select(*jobs.c).order_by(jobs.c.seq)).all())
    store.close()


def test_a_thousand_live_jobs_survive_a_newer_schema_and_the_way_back(thousand, tmp_path, monkeypatch):
    store, rows = thousand
    before = rows()
    shutil.copytree(migrations.HERE, tmp_path / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "migrations" / "versions" / "v0002.py").write_text(NEXT)
    with monkeypatch.context() as newer:
        newer.setattr(migrations, "HERE", tmp_path / "migrations")
        store.database.run(migrations.upgrade)
        colours = store.database.run(lambda tx: tx.exec_driver_sql("SELECT DISTINCT colour FROM jobs").scalars().all())
        assert colours == ["red"]
        assert rows() == before
    with pytest.raises(StoreError, match="newer version"):  # an older worker that is started now
        Database.open(str(store.database.engine.url.render_as_string(hide_password=False)))
    assert rows() == before
    with monkeypatch.context() as newer:
        newer.setattr(migrations, "HERE", tmp_path / "migrations")
        store.database.run(lambda tx: migrations.downgrade(tx, "0001"))
    assert rows() == before
    assert store.claim("w").id == before[100].id


def test_tables_are_not_taken_away_from_under_a_thousand_live_jobs(thousand):
    store, rows = thousand
    before = rows()
    with pytest.raises(StoreError, match="1000 jobs would be lost") as refused:
        store.database.run(lambda tx: migrations.downgrade(tx, "base"))
    assert "back them up" in refused.value.hint
    assert rows() == before


# --- the clock ----------------------------------------------------------------------------------------------


def test_workers_whose_clock_jumps_by_hours_complete_nothing_twice_and_lose_nothing(database_url, tmp_path, patience):
    """The one clock of everybody: on PostgreSQL the database's own, on SQLite this machine's."""
    shift = [0.0]
    store = Store.open(database_url, clock=lambda: time.time() + shift[0], lease=3.0, most_attempts=1000)
    audited(store)
    ids = [submit(store, steps=8, pause=0.05).id for _ in range(8)]
    archive = Archive.open(tmp_path / "archive")
    crew = [Worker(store, archive, name=name, limits=Limits(free=0)) for name in "ab"]
    with working(*crew):
        for jump in (3600.0, 0.0, -3600.0, 0.0, 3600.0, -3600.0):
            soon(lambda: store.counts().get("in_progress") or not left(store))
            shift[0] = jump
            time.sleep(0.3)
        soon(lambda: not left(store), 60)
    assert {store.job(id).state for id in ids} == {"completed"}
    assert completed_twice(store) == 0
    store.close()


def test_a_clock_that_is_put_back_holds_up_nobody(database_url):
    now = [1e6]
    store = Store.open(database_url, clock=lambda: now[0])
    submit(store)
    submit(store)
    dead = store.claim("a worker that dies")
    now[0] -= 3600
    assert store.claim("w").id != dead.id
    assert store.reclaim() == 1
    assert store.claim("w").id == dead.id
    store.close()


def test_a_clock_that_is_put_back_shows_no_dead_worker_as_alive(database_url):
    now = [1e6]
    store = Store.open(database_url, clock=lambda: now[0])
    store.seen("dead")
    store.seen("alive")
    now[0] -= 3600
    assert store.workers() == []  # until it says so again, within a third of a lease
    store.seen("alive")
    assert [(worker.id, ago) for worker, ago in store.workers()] == [("alive", 0)]
    now[0] -= 100_000
    store.forget()
    now[0] += 103_600
    assert store.workers() == []  # what is a day off is forgotten
    store.close()


# --- the network --------------------------------------------------------------------------------------------


class Proxy:
    """A network to PostgreSQL that can be lost: cut, where connections break, or silent, where nothing comes."""

    def __init__(self, folder):
        self._target = f"{folder}/.s.PGSQL.5432"
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._pairs, self.lost, self._over = [], None, False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def url(self, url):
        """The same database, through here."""
        return url.partition("?")[0].replace("@/", f"@127.0.0.1:{self.port}/")

    def _run(self):
        selector = selectors.DefaultSelector()
        selector.register(self._listening, selectors.EVENT_READ)
        while not self._over:
            if self.lost == "silent":
                time.sleep(0.05)
                continue
            for key, _ in selector.select(0.05):
                if key.fileobj is self._listening:
                    self._accept(selector)
                elif key.fileobj.fileno() >= 0:
                    self._pass_on(selector, key.fileobj, key.data)
            if self.lost == "cut":
                self._cut(selector)
        self._cut(selector)
        self._listening.close()

    def _accept(self, selector):
        near, _ = self._listening.accept()
        if self.lost == "cut":
            near.close()
            return
        far = socket.socket(socket.AF_UNIX)
        far.connect(self._target)
        selector.register(near, selectors.EVENT_READ, far)
        selector.register(far, selectors.EVENT_READ, near)
        self._pairs.append((near, far))

    def _pass_on(self, selector, source, target):
        with contextlib.suppress(OSError):
            said = source.recv(65536)
            if said:
                target.sendall(said)
                return
        for one in (source, target):
            with contextlib.suppress(KeyError, ValueError):
                selector.unregister(one)
            one.close()

    def _cut(self, selector):
        for pair in self._pairs:
            for one in pair:
                with contextlib.suppress(KeyError, ValueError):
                    selector.unregister(one)
                one.close()
        self._pairs = []

    def close(self):
        self._over = True
        self._thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cut", "silent"])
def test_a_worker_that_loses_its_network_loses_its_lease_and_the_job_is_run_once_more(
    cluster, postgresql_url, tmp_path, patience, how
):
    proxy, archive = Proxy(cluster.folder), Archive.open(tmp_path / "archive")
    store = Store.open(postgresql_url, lease=2.0)
    audited(store)
    far = Store.open(proxy.url(postgresql_url), lease=2.0, patience=0.5)
    job = submit(store, steps=40, pause=0.1)
    lonely = Worker(far, archive, name="lonely", limits=Limits(free=0))
    near = Worker(store, archive, name="near", limits=Limits(free=0))
    with working(lonely):
        soon(lambda: store.job(job.id).step > 1)
        first = store.job(job.id)
        proxy.lost = how
        soon(lambda: near.step())  # nothing before the lease has run out, then the job, to its end
        done = store.job(job.id)
        proxy.lost = None
        submit(store, steps=1)  # the network is there again, and the worker with it
        soon(lambda: not left(store))
    assert (first.worker, done.worker, done.state, done.attempts) == ("lonely", "near", "completed", 2)
    assert store.job(job.id) == done
    assert completed_twice(store) == 0
    assert [entry.name for entry in archive.entries() if entry.facts["job"] == job.id] == [done.token]
    far.close()
    store.close()
    proxy.close()


def test_a_network_that_says_nothing_is_given_up_after_seconds_and_not_after_hours(postgresql_url):
    """By the system, which alone can tell: so much is asked of it."""
    store = Store.open(postgresql_url)
    with store.database.engine.connect() as connection:
        said = connection.connection.driver_connection.info.get_parameters()
    store.close()
    assert (said["connect_timeout"], said["keepalives_idle"], said["tcp_user_timeout"]) == ("5", "10", "20000")
    other = Store.open(f"{postgresql_url}&connect_timeout=7")
    with other.database.engine.connect() as connection:
        assert connection.connection.driver_connection.info.get_parameters()["connect_timeout"] == "7"
    other.close()
