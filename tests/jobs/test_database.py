"""The database under the queue: opened, upgraded, away, full, damaged."""

import sqlite3
import threading
import time

import pytest
import sqlalchemy as sa

from kinetograph.engine import describe
from kinetograph.errors import StoreError, StoreFull, StoreUnavailable
from kinetograph.jobs import Database, Draft, Store, migrations, tables

REQUEST = describe("render").request("a red ball moving left", seed=7)


def submit(store):
    return store.submit(Draft(engine="render", request=REQUEST))


def test_the_migrations_make_the_tables_that_the_code_speaks_of(database_url):
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    def mine(thing, name, kind, *_):
        return name != "jobs_in_turn"  # Alembic cannot compare an index that falls

    database = Database.open(database_url)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": mine})
        differences = compare_metadata(context, tables.metadata)
        indexes = {index["name"] for index in sa.inspect(connection).get_indexes("jobs")}
    database.close()
    assert differences == []
    assert "jobs_in_turn" in indexes


def test_what_is_opened_again_keeps_its_jobs(database_url):
    store = Store.open(database_url)
    job = submit(store)
    store.close()
    again = Store.open(database_url)
    assert again.job(job.id) == job
    again.close()


def test_the_tables_can_be_taken_back_and_made_again(database_url):
    database = Database.open(database_url)
    database.run(lambda tx: migrations.downgrade(tx, "base"))
    names = database.run(lambda tx: sa.inspect(tx).get_table_names())
    assert set(names) <= {"alembic_version"}
    database.run(migrations.upgrade)
    submit(Store(database))
    database.close()


def test_tables_of_a_newer_version_are_refused_and_left_alone(database_url):
    store = Store.open(database_url)
    store.database.run(lambda tx: tx.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="newer version") as refused:
        Store.open(database_url)
    assert "update kinetograph" in refused.value.hint
    store.close()


def test_several_processes_may_open_an_empty_database_at_once(database_url):
    opened, failures = [], []

    def open_it():
        try:
            opened.append(Store.open(database_url))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in opened:
        store.close()
    assert failures == []
    assert len(opened) == 4


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://somebody@somewhere/db", "no database"),
        ("nonsense", "no database"),
        ("sqlite:////nowhere/at/all.sqlite", "cannot be opened"),
    ],
)
def test_an_address_that_is_none_is_refused(url, said):
    with pytest.raises(StoreError, match=said):
        Store.open(url)


def test_a_database_that_does_not_answer_is_unavailable_and_not_an_error_of_somebody_else(tmp_path):
    url = f"postgresql+psycopg://tests@/none?host={tmp_path}"
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable, match="does not answer"):
        Store.open(url, patience=0.3)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("damage", ["not a database at all" * 100, None])
def test_a_damaged_file_is_refused_with_a_way_out(tmp_path, damage):
    path = tmp_path / "jobs.sqlite"
    if damage is None:
        store = Store.open(f"sqlite:///{path}")
        for _ in range(40):
            submit(store)
        store.close()
        content = bytearray(path.read_bytes())
        content[4096 * 3 : 4096 * 8] = b"\xff" * (4096 * 5)
        path.write_bytes(content)
    else:
        path.write_text(damage)
    with pytest.raises(StoreError, match="damaged") as refused:
        Store.open(f"sqlite:///{path}")
    assert "backup" in refused.value.hint


def test_a_lock_of_another_writer_is_waited_for(tmp_path):
    path = tmp_path / "jobs.sqlite"
    store = Store.open(f"sqlite:///{path}")
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(0.4, lambda: other.execute("ROLLBACK")).start()
    assert submit(store).state == "queued"
    other.close()
    store.close()


def test_a_lock_that_stays_is_unavailable_and_nothing_is_lost(tmp_path, monkeypatch):
    path = tmp_path / "jobs.sqlite"
    monkeypatch.setattr("kinetograph.jobs.database.BUSY", 0.1)
    store = Store.open(f"sqlite:///{path}", patience=0.3)
    kept = submit(store)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable):
        submit(store)
    assert [job.id for job in store.jobs().jobs] == [kept.id]  # reading goes on
    other.execute("ROLLBACK")
    other.close()
    submit(store)
    assert store.counts() == {"queued": 2}
    store.close()


def test_a_full_disk_is_said_to_be_full(tmp_path):
    store = Store.open(f"sqlite:///{tmp_path / 'jobs.sqlite'}")

    def limited(tx):
        pages = tx.exec_driver_sql("PRAGMA page_count").scalar()
        tx.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        tx.execute(tables.previews.insert().values(job="x", revision=0, step=0, steps=0, image=b"x" * 100_000))

    with pytest.raises(StoreFull):
        store.database.run(limited)
    store.close()


def test_work_goes_on_when_postgresql_cut_every_connection(postgresql_url):
    store = Store.open(postgresql_url)
    submit(store)

    def cut():
        engine = sa.create_engine(postgresql_url, poolclass=sa.pool.NullPool)
        with engine.connect() as connection:
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            connection.exec_driver_sql(f"{others} AND datname = current_database()")

    for _ in range(3):
        cut()
        submit(store)
    held = store.claim("w")
    cut()
    assert store.finish(held, {}).state == "completed"
    store.close()


def test_a_connection_that_breaks_in_the_middle_is_tried_again(postgresql_url):
    store, tries = Store.open(postgresql_url), []

    def work(tx):
        tries.append(1)
        if len(tries) < 3:
            tx.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
        return "done"

    assert store.database.run(work) == "done"
    assert len(tries) == 3
    store.close()


def test_postgresql_s_own_clock_decides_and_not_this_machine_s(postgresql_url, monkeypatch):
    store = Store.open(postgresql_url)
    monkeypatch.setattr(time, "time", lambda: 5.0)
    assert submit(store).created_at > 1e9
    store.close()
