"""A durable queue in a database: jobs that wait, run under a lease, and are finished once.

    store = Store.open("sqlite:///jobs.sqlite")
    job = store.submit(Draft(engine="render", request=describe("render").request("a red ball moving left")))
    held = store.claim("worker 1")

SQLite and PostgreSQL keep the same promises. A job is never lost: a worker that dies lets its lease run out, and the
job is given to another one. It is never finished twice: whoever changes it must hold the token of its latest lease.
"""

from kinetograph.jobs.database import Database
from kinetograph.jobs.job import Draft, Job, Page, Preview, Worker
from kinetograph.jobs.keys import Key, Keys
from kinetograph.jobs.store import Store

__all__ = ["Database", "Draft", "Job", "Key", "Keys", "Page", "Preview", "Store", "Worker"]
