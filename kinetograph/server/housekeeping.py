"""Housekeeping: what nobody asks for and somebody must do, now and then."""

import threading
import traceback

from kinetograph.archive import MAX_AGE, Archive
from kinetograph.errors import KinetographError
from kinetograph.jobs import Store

EVERY = 30.0  # seconds


class Housekeeper:
    """A thread that takes jobs away from dead workers, deletes what is kept no longer, and sweeps the archive.

    Several servers may do so over one database: each step is right when it is done twice.
    """

    def __init__(self, store: Store, archive: Archive, *, every: float = EVERY) -> None:
        self._store, self._archive, self._every = store, archive, every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._every):
            try:
                once(self._store, self._archive)
            except (KinetographError, OSError):
                traceback.print_exc()


def once(store: Store, archive: Archive, *, age: float = MAX_AGE) -> None:
    """Do everything once. `age` is how many seconds something may lie in the archive that belongs to no job."""
    store.reclaim()
    for job in store.expired():
        store.delete(job.id)
        archive.forget(job.token if job.state == "completed" else "", "")
    store.forget()
    entries, uploads = archive.lying_about(age)
    for name in set(entries) - store.known(entries):
        archive.remove(name)
    for name in set(uploads) - store.used(uploads):
        archive.forget("", name)
    archive.sweep(age)
