"""The database under the queue: SQLite or PostgreSQL, opened, upgraded, and patient when it does not answer."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError

from kinetograph.errors import StoreError, StoreFull, StoreUnavailable
from kinetograph.jobs import migrations
from kinetograph.jobs.turns import Turns

T = TypeVar("T")
Clock = Callable[[], float]

BUSY = 5.0  # seconds that SQLite itself waits for a lock, each time
UPGRADING = 7_146_255_021  # the advisory lock under which PostgreSQL's tables are upgraded
NETWORK = {  # a network that is gone says nothing: after so long nobody believes in it (libpq's words, seconds)
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # of unanswered bytes; milliseconds
}
PASSING = ("locked", "busy", "deadlock", "could not serialize", "starting up", "shutting down", "disk I/O error")


@dataclass(frozen=True)
class Database:
    """A database that holds the tables of this version. `patience` is for how many seconds an answer is awaited."""

    engine: Engine
    clock: Clock | None = None  # instead of the database's own
    patience: float = 5.0
    writing: Turns = field(default_factory=Turns, repr=False, compare=False)

    @classmethod
    def open(cls, url: str, *, clock: Clock | None = None, patience: float = 5.0) -> "Database":
        """Connect, and make or upgrade the tables. Raises StoreError, and StoreUnavailable for no answer."""
        database = cls(_engine(url), clock, patience)
        try:
            database.run(_upgraded)
        except BaseException:
            database.close()
            raise
        return database

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file on this machine."""
        return self.engine.dialect.name == "sqlite"

    def close(self) -> None:
        """Let the connections go."""
        self.engine.dispose()

    def now(self) -> Any:
        """The time as SQL: PostgreSQL's own clock, so that machines need not agree on it; else this process's."""
        if self.clock is not None or self.is_sqlite:
            return sa.literal((self.clock or time.time)(), sa.Double)
        return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)

    def run(self, work: Callable[[Connection], T], *, reading: bool = False) -> T:
        """Do some work in one transaction; again, while the database does not answer, until patience ends.

        A connection may break after the commit and before its answer, so work must be right when it is done twice.
        Raises StoreUnavailable, StoreFull or StoreError.
        """
        end, pause = time.monotonic() + self.patience, 0.05
        while True:
            try:
                with self._turn(reading, end), self.engine.connect() as plain:
                    connection = plain.execution_options(reading=reading)
                    with connection.begin():
                        return work(connection)
            except DBAPIError as error:
                problem = _problem(error)
                if problem is None:
                    raise
                if not isinstance(problem, StoreUnavailable) or time.monotonic() + pause > end:
                    raise problem from error
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, 1.0)

    @contextmanager
    def _turn(self, reading: bool, end: float) -> Iterator[None]:
        """SQLite has one writer at a time, and those that wait ask again and again: of many, some never get it.

        Here the threads of one process stand in line; only the first of them asks.
        """
        if reading or not self.is_sqlite:
            yield
            return
        if not self.writing.take(max(0.0, end - time.monotonic())):
            raise StoreUnavailable("the database does not answer (others write)", hint="try again later")
        try:
            yield
        finally:
            self.writing.leave()


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            return _sqlite(parsed)
        if parsed.get_backend_name() == "postgresql":
            patient = {name: value for name, value in NETWORK.items() if name not in parsed.query}
            return sa.create_engine(parsed, pool_pre_ping=True, pool_size=10, max_overflow=20, connect_args=patient)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError, ValueError) as error:
        raise StoreError(f"no database is called {url!r}", hint=str(error).splitlines()[0]) from error
    hint = "sqlite:///jobs.sqlite or postgresql+psycopg://user@host/name"
    raise StoreError(f"{parsed.get_backend_name()} is no database for jobs", hint=hint)


def _sqlite(url: sa.URL) -> Engine:
    engine = sa.create_engine(url, connect_args={"timeout": BUSY, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver's own rules
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):  # FULL: what was promised survives a power cut
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        # Whoever will write says so first: a lock that is asked for in the middle cannot be waited for.
        reading = connection.get_execution_options().get("reading")
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _upgraded(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        said = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
        if said != "ok":
            raise StoreError(f"the database is damaged: {said.splitlines()[0]}", hint=RESTORE)
    else:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(UPGRADING)))
    migrations.upgrade(connection)


RESTORE = "restore a backup, or move the file away to begin with an empty queue; finished videos are in the archive"


def _problem(error: DBAPIError) -> StoreError | None:
    """The error of a driver in our words; None where it is no fault of the database."""
    said = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
    if "disk is full" in said or "No space left" in said or "DiskFull" in type(error.orig).__name__:
        return StoreFull(f"the disk of the database is full ({said})", hint="free some space")
    if error.connection_invalidated or any(word in said for word in PASSING):
        return StoreUnavailable(f"the database does not answer ({said})", hint="try again later")
    if isinstance(error, OperationalError | InterfaceError):
        if "unable to open" in said or "readonly" in said:
            return StoreError(f"the database cannot be opened: {said}", hint="is its folder there, and writable?")
        return StoreUnavailable(f"the database does not answer ({said})", hint="is it running? try again later")
    if type(error) is DatabaseError and ("malformed" in said or "not a database" in said):
        return StoreError(f"the database is damaged: {said}", hint=RESTORE)
    return None
