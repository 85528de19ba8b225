"""The store: every step in the life of a job, each one transaction."""

import secrets
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row, Select
from sqlalchemy.dialects import postgresql, sqlite

from kinetograph.errors import Conflict, LeaseLost, QuotaExceeded, UnknownJob
from kinetograph.jobs.database import Clock, Database
from kinetograph.jobs.job import FINAL, WAITING, Draft, Job, Page, Preview, Worker
from kinetograph.jobs.tables import clock, jobs, owners, previews, workers

MOST_ATTEMPTS = 3
LEASE = 30.0  # seconds without a sign of life after which a job is given to somebody else
REPEATED = 120.0  # seconds in which a request that a client sends once more is the same request
FORGOTTEN = 86_400.0  # seconds after which nothing at all is left of a deleted job
LISTED = 1_000  # jobs whose place in the queue is worked out


class Store:
    """The queue. Every method is safe to call from any thread and any process, and again after an error."""

    def __init__(self, database: Database, *, lease: float = LEASE, most_attempts: int = MOST_ATTEMPTS) -> None:
        self.database, self.lease, self.most_attempts = database, lease, most_attempts

    @classmethod
    def open(cls, url: str, *, clock: Clock | None = None, patience: float = 5.0, **settings: Any) -> "Store":
        """The store in a database, whose tables are made or upgraded. Raises StoreError."""
        return cls(Database.open(url, clock=clock, patience=patience), **settings)

    def close(self) -> None:
        """Let the connections go."""
        self.database.close()

    # --- asking ---

    def submit(
        self, draft: Draft, *, most_queued: int | None = None, most_daily: int | None = None, repeated: bool = False
    ) -> Job:
        """Put a job into the queue, durably. The same idempotency key, or the same draft, is the same job.

        With `repeated`, the client says that it sends something once more: a job of the last minutes that asks for the
        same is taken for it. Raises Conflict where a key comes back with another request, QuotaExceeded.
        """

        def work(tx: Connection) -> Job:
            # Whoever submits for one owner waits here: keys are looked for, and jobs counted, one after the other.
            tx.execute(_missing(tx, owners, {"owner": draft.owner, "rank": 0, "served": _next_revision()}))
            tx.execute(sa.select(owners.c.owner).where(owners.c.owner == draft.owner).with_for_update())
            known = self._known(tx, draft, repeated)
            if known is not None:
                return known
            now = float(tx.execute(sa.select(self.database.now())).scalar_one())
            _check_quota(tx, draft.owner, now, most_queued, most_daily)
            revision = _tick(tx)
            row = tx.execute(jobs.insert().values(_fresh(draft, revision, now)).returning(*jobs.c)).one()
            return _job(row)

        return self.database.run(work)

    def _known(self, tx: Connection, draft: Draft, repeated: bool) -> Job | None:
        """The job that a draft is already, if it is one."""
        same = [jobs.c.id == draft.id]
        if draft.idempotency_key is not None:
            same += [(jobs.c.owner == draft.owner) & (jobs.c.idempotency_key == draft.idempotency_key)]
        elif repeated:
            recent = jobs.c.created_at > self.database.now() - REPEATED
            alike = (jobs.c.owner == draft.owner) & (jobs.c.digest == draft.digest) & (jobs.c.idempotency_key.is_(None))
            same += [alike & recent & (jobs.c.state != "deleted")]
        row = tx.execute(sa.select(*jobs.c).where(sa.or_(*same)).order_by(jobs.c.seq.desc()).limit(1)).one_or_none()
        if row is not None and row.id != draft.id and row.digest != draft.digest:
            message = "this idempotency key was used for another request"
            raise Conflict(message, code="idempotency_key_reused", hint="take a new key for a new request")
        return None if row is None else _job(row)

    def job(self, id: str, owner: str | None = None) -> Job:
        """One job. Raises UnknownJob, for somebody else's just as for none. With no owner it may be anybody's."""
        return self.database.run(lambda tx: _found(tx, id, owner), reading=True)

    def jobs(
        self,
        owner: str | None = None,
        *,
        after: str | None = None,
        limit: int = 20,
        newest_first: bool = True,
        states: Sequence[str] = (),
        engine: str | None = None,
        words: str = "",
    ) -> Page:
        """Some jobs in the order in which they came; `after` is the last of the page before.

        `words` must all be in the prompt. Raises UnknownJob for an `after` that is none.
        """

        def work(tx: Connection) -> Page:
            query = sa.select(*jobs.c).where(jobs.c.state != "deleted")
            if owner is not None:
                query = query.where(jobs.c.owner == owner)
            if states:
                query = query.where(jobs.c.state.in_(states))
            if engine is not None:
                query = query.where(jobs.c.engine == engine)
            for word in words.split():
                query = query.where(jobs.c.prompt.icontains(word, autoescape=True))
            if after is not None:
                last = _found(tx, after, owner, deleted=True).seq
                query = query.where(jobs.c.seq < last if newest_first else jobs.c.seq > last)
            query = query.order_by(jobs.c.seq.desc() if newest_first else jobs.c.seq).limit(limit + 1)
            rows = tx.execute(query).all()
            return Page(tuple(map(_job, rows[:limit])), more=len(rows) > limit)

        return self.database.run(work, reading=True)

    # --- working ---

    def claim(self, worker: str, engines: Sequence[str] = ()) -> Job | None:
        """The next job, leased to a worker, or None; with `engines`, only one for these.

        Owners of a higher rank go first, then whoever was served longest ago; among the jobs of one owner the priority
        decides, then their order.
        """

        def work(tx: Connection) -> Job | None:
            now = float(tx.execute(sa.select(self.database.now())).scalar_one())
            row = _next(tx, now, engines)
            if row is None:
                return None
            tx.execute(owners.update().where(owners.c.owner == row.owner).values(served=_next_revision()))
            began = {"started_at": now, "lease_until": now + self.lease, "worker": worker}
            fresh = {"attempts": row.attempts + 1, "token": secrets.token_hex(16), "step": 0, "steps": 0}
            return _changed(tx, row.id, state="in_progress", **began, **fresh)

        return self.database.run(work) if self._anything(engines) else None

    def _anything(self, engines: Sequence[str]) -> bool:
        """Whether there is anything to claim: asking that takes no lock."""
        query = sa.select(jobs.c.id).where(_waiting(self.database.now(), engines)).limit(1)
        return self.database.run(lambda tx: tx.execute(query).first(), reading=True) is not None

    def beat(self, held: Job, step: int = 0, steps: int = 0, preview: bytes | None = None) -> None:
        """A sign of life: the lease begins anew, progress and preview are told. Raises LeaseLost."""

        def work(tx: Connection) -> None:
            _held(tx, held)
            job = _changed(tx, held.id, lease_until=self.database.now() + self.lease, step=step, steps=steps)
            if preview is not None:
                shown = {"revision": job.revision, "step": step, "steps": steps, "image": preview}
                _put(tx, previews, {"job": held.id}, shown)

        self.database.run(work)

    def check(self, held: Job) -> None:
        """Raise LeaseLost if a job was cancelled, deleted or given away."""
        same = (jobs.c.id == held.id) & (jobs.c.token == held.token) & (jobs.c.state == "in_progress")
        if self.database.run(lambda tx: tx.execute(sa.select(jobs.c.id).where(same)).first(), reading=True) is None:
            raise LeaseLost(f"{held.id} is no longer this worker's")

    def finish(
        self, held: Job, media: Mapping[str, Any], warnings: Sequence[str] = (), keep: float | None = None
    ) -> Job:
        """A video is in the archive, under the lease's token: the job is completed. Raises LeaseLost.

        `keep` is after how many seconds it is deleted; None never.
        """

        def work(tx: Connection) -> Job:
            row = _row(tx, held.id)
            if row is not None and row.state == "completed" and row.token == held.token:
                return _job(row)  # done before the connection broke
            _held(tx, held)
            now = self.database.now()
            expires = None if keep is None else now + keep
            _forget_preview(tx, held.id)
            all_of_them = sa.case((jobs.c.steps > 0, jobs.c.steps), else_=1)  # none where it was done within a pulse
            done = {"step": all_of_them, "steps": all_of_them, "media": dict(media)}
            done |= {"finished_at": now, "expires_at": expires, "warnings": list(warnings)}
            return _changed(tx, held.id, state="completed", lease_until=None, **done)

        return self.database.run(work)

    def fail(self, held: Job, code: str, message: str, *, traceback: str = "", keep: float | None = None) -> Job:
        """A job cannot be made: it is not tried again. Raises LeaseLost."""

        def work(tx: Connection) -> Job:
            row = _row(tx, held.id)
            if row is not None and row.state == "failed" and row.token == held.token:
                return _job(row)
            _held(tx, held)
            return self._failed(tx, held.id, code, message, traceback, keep)

        return self.database.run(work)

    def _failed(
        self, tx: Connection, id: str, code: str, message: str, traceback: str = "", keep: float | None = None
    ) -> Job:
        now = self.database.now()
        said = {"error_code": code, "error_message": message, "traceback": traceback}
        times = {"finished_at": now, "expires_at": None if keep is None else now + keep, "lease_until": None}
        _forget_preview(tx, id)
        return _changed(tx, id, state="failed", **said, **times)

    def release(self, held: Job, *, after: float = 0.0, counted: bool = False) -> None:
        """Give a job back, unfinished: it goes first. Unless `counted`, as if it had never been begun.

        Raises LeaseLost.
        """

        def work(tx: Connection) -> None:
            row = _held(tx, held)
            later = self.database.now() + after if after else 0.0
            back = {"available_at": later, "attempts": row.attempts - (not counted), "token": ""}
            _forget_preview(tx, held.id)
            _changed(tx, held.id, state="queued", lease_until=None, started_at=None, step=0, steps=0, **back)

        self.database.run(work)

    def reclaim(self) -> int:
        """Take jobs away from workers that gave no sign of life, and queue them again; how many they were.

        A job that was begun `most_attempts` times fails: it is likely to be what kills its workers. A lease that ends
        later than any could was written before the clock was put back.
        """
        now = self.database.now()
        over = (jobs.c.lease_until < now) | (jobs.c.lease_until > now + 2 * self.lease)
        expired = (jobs.c.state == "in_progress") & over
        found = self.database.run(
            lambda tx: tx.execute(sa.select(jobs.c.id).where(expired)).scalars().all(), reading=True
        )

        def work(tx: Connection, id: str) -> bool:
            row = tx.execute(sa.select(*jobs.c).where(expired & (jobs.c.id == id)).with_for_update()).one_or_none()
            if row is None:
                return False
            if row.attempts >= self.most_attempts:
                said = f"its worker was lost {row.attempts} times while making it"
                self._failed(tx, id, "worker_lost", said)
            else:
                _forget_preview(tx, id)
                _changed(tx, id, state="queued", lease_until=None, token="", step=0, steps=0)
            return True

        return sum(self.database.run(lambda tx, id=id: work(tx, id)) for id in found)  # type: ignore[misc]

    # --- changing one's mind ---

    def cancel(self, id: str, owner: str | None = None) -> Job:
        """Give a job up; whoever works on it loses the lease. Raises UnknownJob, and Conflict where it is over."""

        def work(tx: Connection) -> Job:
            job = _found(tx, id, owner, lock=True)
            if job.state == "cancelled":
                return job
            _allow(job, "cancelled", *WAITING, "in_progress")
            _forget_preview(tx, id)
            said = {"error_code": "cancelled", "error_message": "cancelled by its owner"}
            over = {"finished_at": self.database.now(), "lease_until": None, "token": ""}
            return _changed(tx, id, state="cancelled", **said, **over)

        return self.database.run(work)

    def delete(self, id: str, owner: str | None = None) -> Job:
        """Forget a job and what it made; whoever works on it loses the lease. The job as it was. Raises UnknownJob."""

        def work(tx: Connection) -> Job:
            job = _found(tx, id, owner, lock=True)
            _forget_preview(tx, id)
            empty: dict[str, Any] = {
                "prompt": "",
                "request": {},
                "warnings": [],
                "traceback": "",
                "error_message": "",
                "media": None,
            }
            over = {"finished_at": self.database.now(), "lease_until": None, "token": "", "idempotency_key": None}
            _changed(tx, id, state="deleted", start="", digest="", **empty, **over)
            return job

        return self.database.run(work)

    def pause(self, id: str, owner: str | None = None) -> Job:
        """Hold a waiting job back. Raises UnknownJob, Conflict."""
        return self._moved(id, owner, "paused", ("queued", "paused"))

    def resume(self, id: str, owner: str | None = None) -> Job:
        """Let a job that was held back wait with the others. Raises UnknownJob, Conflict."""
        return self._moved(id, owner, "queued", ("paused", "queued"))

    def _moved(self, id: str, owner: str | None, state: str, allowed: Sequence[str]) -> Job:
        def work(tx: Connection) -> Job:
            job = _found(tx, id, owner, lock=True)
            _allow(job, "paused" if state == "paused" else "resumed", *allowed)
            return job if job.state == state else _changed(tx, id, state=state)

        return self.database.run(work)

    def retry(self, id: str, owner: str | None = None) -> Job:
        """Queue a job that failed or was cancelled again, from the beginning. Raises UnknownJob, Conflict."""

        def work(tx: Connection) -> Job:
            job = _found(tx, id, owner, lock=True)
            if job.state in WAITING:
                return job
            _allow(job, "tried again", "failed", "cancelled")
            clean = {"error_code": "", "error_message": "", "traceback": "", "token": "", "warnings": []}
            times = {"started_at": None, "finished_at": None, "expires_at": None, "available_at": 0.0}
            return _changed(tx, id, state="queued", attempts=0, step=0, steps=0, **clean, **times)

        return self.database.run(work)

    def move(self, id: str, owner: str | None = None, *, before: str | None = None, after: str | None = None) -> Job:
        """Put a waiting job before or after another one of the same owner; with neither, before all of them.

        It takes the other's priority. Raises UnknownJob, Conflict.
        """

        def work(tx: Connection) -> Job:
            job = _found(tx, id, owner, lock=True)
            _allow(job, "moved", *WAITING)
            other = before or after
            if other == id:
                return job
            mine = (jobs.c.owner == job.owner) & jobs.c.state.in_(WAITING) & (jobs.c.id != id)
            if other is None:
                first = tx.execute(
                    sa.select(jobs.c.priority, jobs.c.position)
                    .where(mine)
                    .order_by(jobs.c.priority.desc(), jobs.c.position)
                    .limit(1)
                ).one_or_none()
                if first is None:
                    return job
                return _changed(tx, id, priority=max(first.priority, job.priority), position=first.position - 1)
            target = _found(tx, other, job.owner)
            _allow(target, "a neighbour", *WAITING)
            return _changed(tx, id, priority=target.priority, position=_between(tx, mine, target, bool(before)))

        return self.database.run(work)

    def last(self, id: str, owner: str | None = None) -> Job:
        """Put a waiting job behind all others of its owner. Raises UnknownJob, Conflict."""

        def work(tx: Connection) -> Job:
            job = _found(tx, id, owner, lock=True)
            _allow(job, "moved", *WAITING)
            mine = (jobs.c.owner == job.owner) & jobs.c.state.in_(WAITING) & (jobs.c.id != id)
            least, end = tx.execute(
                sa.select(sa.func.min(jobs.c.priority), sa.func.max(jobs.c.position)).where(mine)
            ).one()
            return job if end is None else _changed(tx, id, priority=min(least, job.priority), position=end + 1)

        return self.database.run(work)

    # --- watching ---

    def changed(self, since: int, owner: str | None = None, job: str | None = None, most: int = 500) -> list[Job]:
        """The jobs that changed after a revision, in the order of their changes, deleted ones too."""
        query = sa.select(*jobs.c).where(jobs.c.revision > since).order_by(jobs.c.revision).limit(most)
        if owner is not None:
            query = query.where(jobs.c.owner == owner)
        if job is not None:
            query = query.where(jobs.c.id == job)
        return [_job(row) for row in self.database.run(lambda tx: tx.execute(query).all(), reading=True)]

    def previews(self, since: int) -> list[Preview]:
        """The previews that changed after a revision."""
        query = sa.select(*previews.c).where(previews.c.revision > since).order_by(previews.c.revision)
        return [Preview(**row._mapping) for row in self.database.run(lambda tx: tx.execute(query).all(), reading=True)]

    def revision(self) -> int:
        """The number of the latest change."""
        return int(self.database.run(lambda tx: tx.execute(sa.select(clock.c.revision)).scalar_one(), reading=True))

    def order(self) -> list[str]:
        """The waiting jobs in the order in which they would be claimed if nothing else came, the first thousand."""
        query = _in_turn(self.database.now()).limit(LISTED)
        rows = self.database.run(lambda tx: tx.execute(query).all(), reading=True)
        return _taking_turns(rows)

    def counts(self) -> dict[str, int]:
        """How many jobs there are in each state."""
        query = sa.select(jobs.c.state, sa.func.count()).group_by(jobs.c.state)
        return {row[0]: row[1] for row in self.database.run(lambda tx: tx.execute(query).all(), reading=True)}

    def usual_seconds(self, engine: str) -> float | None:
        """How long the latest videos of an engine took, the middle of them; None where there are none."""
        took = jobs.c.finished_at - jobs.c.started_at
        query = sa.select(took).where((jobs.c.state == "completed") & (jobs.c.engine == engine))
        query = query.order_by(jobs.c.seq.desc()).limit(9)
        rows = sorted(self.database.run(lambda tx: tx.execute(query).scalars().all(), reading=True))
        return rows[len(rows) // 2] if rows else None

    # --- the whole queue ---

    def paused(self) -> bool:
        """Whether the whole queue is held back: what runs runs on, nothing new is begun."""
        return bool(self.database.run(lambda tx: tx.execute(sa.select(clock.c.paused)).scalar_one(), reading=True))

    def set_paused(self, paused: bool) -> None:
        """Hold the whole queue back, or let it go on."""
        self.database.run(lambda tx: tx.execute(clock.update().values(paused=paused)))

    def rank(self, owner: str, rank: int) -> None:
        """Let an owner's jobs go before those of a lower rank."""
        self.database.run(lambda tx: _put(tx, owners, {"owner": owner}, {"rank": rank}, {"served": 0}))

    def seen(self, worker: str, engines: Sequence[str] = (), job: str = "") -> None:
        """A worker says that it is alive, and which job it has."""

        def work(tx: Connection) -> None:
            now = self.database.now()
            said = {"seen_at": now, "job": job, "engines": list(engines)}
            _put(tx, workers, {"id": worker}, said, {"started_at": now})

        self.database.run(work)

    def gone(self, worker: str) -> None:
        """A worker says goodbye."""
        self.database.run(lambda tx: tx.execute(workers.delete().where(workers.c.id == worker)))

    def workers(self) -> list[tuple[Worker, float]]:
        """The workers that were seen within the time of a lease, and how many seconds ago.

        One that was seen later than a lease from now was seen before the clock was put back: who lives says so anew.
        """
        now = self.database.now()
        lately = (workers.c.seen_at > now - self.lease) & (workers.c.seen_at < now + self.lease)
        query = sa.select(*workers.c, (now - workers.c.seen_at).label("ago")).where(lately)
        rows = self.database.run(lambda tx: tx.execute(query.order_by(workers.c.id)).all(), reading=True)
        return [(Worker(row.id, row.engines, row.started_at, row.seen_at, row.job), max(0.0, row.ago)) for row in rows]

    def expired(self) -> list[Job]:
        """The jobs whose time is over."""
        over = (jobs.c.expires_at < self.database.now()) & jobs.c.state.in_(FINAL) & (jobs.c.state != "deleted")
        query = sa.select(*jobs.c).where(over).order_by(jobs.c.seq).limit(LISTED)
        return [_job(row) for row in self.database.run(lambda tx: tx.execute(query).all(), reading=True)]

    def forget(self) -> None:
        """Remove what is left of jobs that were deleted a day ago, and workers that left long ago."""

        def work(tx: Connection) -> None:
            long_ago = self.database.now() - FORGOTTEN
            tx.execute(jobs.delete().where((jobs.c.state == "deleted") & (jobs.c.finished_at < long_ago)))
            far = self.database.now() + FORGOTTEN  # seen before the clock was put back
            tx.execute(workers.delete().where((workers.c.seen_at < long_ago) | (workers.c.seen_at > far)))

        self.database.run(work)

    def known(self, tokens: Iterable[str]) -> set[str]:
        """Which of these are the tokens of jobs that run or are completed: what the archive keeps."""
        asked = list(tokens)
        kept = jobs.c.token.in_(asked) & jobs.c.state.in_(("in_progress", "completed"))
        query = sa.select(jobs.c.token).where(kept)
        return set(self.database.run(lambda tx: tx.execute(query).scalars().all(), reading=True))

    def used(self, starts: Iterable[str]) -> set[str]:
        """Which of these uploads belong to a job."""
        query = sa.select(jobs.c.start).where(jobs.c.start.in_(list(starts)))
        return set(self.database.run(lambda tx: tx.execute(query).scalars().all(), reading=True))


# --- rows ---------------------------------------------------------------------------------------------------


def _job(row: Row[Any]) -> Job:
    return Job(**row._mapping)


def _row(tx: Connection, id: str, *, lock: bool = True) -> Row[Any] | None:
    query = sa.select(*jobs.c).where(jobs.c.id == id)
    return tx.execute(query.with_for_update() if lock else query).one_or_none()


def _found(tx: Connection, id: str, owner: str | None, *, lock: bool = False, deleted: bool = False) -> Job:
    row = _row(tx, id, lock=lock)
    if row is None or (owner is not None and row.owner != owner) or (row.state == "deleted" and not deleted):
        raise UnknownJob(f"no video has the id {id!r}")
    return _job(row)


def _held(tx: Connection, held: Job) -> Row[Any]:
    row = _row(tx, held.id)
    if row is None or row.state != "in_progress" or row.token != held.token:
        raise LeaseLost(f"{held.id} is no longer this worker's")
    return row


def _tick(tx: Connection) -> int:
    """The next revision. Its row stays locked until the commit, so whoever reads a revision has seen all before it."""
    return int(
        tx.execute(clock.update().values(revision=clock.c.revision + 1).returning(clock.c.revision)).scalar_one()
    )


def _next_revision() -> Any:
    return sa.select(clock.c.revision + 1).scalar_subquery()


def _changed(tx: Connection, id: str, **values: Any) -> Job:
    """Write a job anew. Rows are locked in one order, the job and then the clock, so that nobody waits in a ring."""
    change = jobs.update().where(jobs.c.id == id).values(revision=_tick(tx), **values)
    return _job(tx.execute(change.returning(*jobs.c)).one())


def _allow(job: Job, done: str, *states: str) -> None:
    if job.state not in states:
        hint = f"only what is {' or '.join(states)} can be"
        raise Conflict(f"{job.id} is {job.state}: it cannot be {done}", code=f"video_{job.state}", hint=hint)


def _fresh(draft: Draft, revision: int, now: float) -> dict[str, Any]:
    said = {name: getattr(draft, name) for name in ("id", "owner", "kind", "source", "start", "engine", "priority")}
    said |= {"idempotency_key": draft.idempotency_key, "digest": draft.digest, "prompt": draft.request.prompt}
    said |= {"request": draft.request.to_dict(), "seq": revision, "revision": revision, "position": float(revision)}
    said |= {"state": "queued", "created_at": now, "available_at": 0.0, "attempts": 0, "worker": "", "token": ""}
    return said | {"step": 0, "steps": 0, "warnings": [], "error_code": "", "error_message": "", "traceback": ""}


def _check_quota(tx: Connection, owner: str, now: float, most_queued: int | None, most_daily: int | None) -> None:
    def count(*where: Any) -> int:
        return int(tx.execute(sa.select(sa.func.count()).where(jobs.c.owner == owner, *where)).scalar_one())

    if most_queued is not None and count(jobs.c.state.in_((*WAITING, "in_progress"))) >= most_queued:
        raise QuotaExceeded(f"{most_queued} videos are waiting or in the making", retry_after=30, hint="wait for one")
    if most_daily is not None and count(jobs.c.created_at > now - 86_400) >= most_daily:
        raise QuotaExceeded(f"{most_daily} videos were asked for within a day", retry_after=3600, hint="wait")


def _waiting(now: Any, engines: Sequence[str] = ()) -> Any:
    """Whether a job may be begun now."""
    running = sa.select(clock.c.id).where(clock.c.paused.is_(False)).exists()
    waits = (jobs.c.state == "queued") & (jobs.c.available_at <= now) & running
    return waits & jobs.c.engine.in_(engines) if engines else waits


def _next(tx: Connection, now: float, engines: Sequence[str]) -> Row[Any] | None:
    """The job whose turn it is, locked. First the owner, then the job: so an index finds both, however many wait."""
    some = sa.select(jobs.c.id).where(jobs.c.owner == owners.c.owner, _waiting(now, engines)).exists()
    turns = sa.select(owners.c.owner).where(some).order_by(owners.c.rank.desc(), owners.c.served, owners.c.owner)
    for owner in tx.execute(turns).scalars().all():
        query = sa.select(*jobs.c).where(jobs.c.owner == owner, _waiting(now, engines))
        query = query.order_by(jobs.c.priority.desc(), jobs.c.position).limit(1)
        row = tx.execute(query.with_for_update(skip_locked=True, of=jobs)).one_or_none()
        if row is not None:  # else another worker is just taking this owner's last job
            return row
    return None


def _in_turn(now: Any) -> Select[Any]:
    """The jobs that wait: by the rank of their owners, then by when these were served, then each owner's in order."""
    query = sa.select(jobs.c.id, jobs.c.owner, owners.c.rank).join(owners, owners.c.owner == jobs.c.owner)
    query = query.where(_waiting(now))
    turn = (owners.c.rank.desc(), owners.c.served, owners.c.owner)
    return query.order_by(*turn, jobs.c.priority.desc(), jobs.c.position)


def _taking_turns(rows: Sequence[Row[Any]]) -> list[str]:
    """What `claim` would do one time after the other: the owners of one rank take turns."""
    ranks: dict[int, dict[str, deque[str]]] = defaultdict(lambda: defaultdict(deque))
    for row in rows:
        ranks[row.rank][row.owner].append(row.id)
    found = []
    for rank in sorted(ranks, reverse=True):
        waiting = deque(ranks[rank].values())
        while waiting:
            queue = waiting.popleft()
            found.append(queue.popleft())
            if queue:
                waiting.append(queue)
    return found


def _between(tx: Connection, mine: Any, target: Job, before: bool) -> float:
    """A position beside the target's: halfway to the one that is its neighbour now."""
    side = jobs.c.position < target.position if before else jobs.c.position > target.position
    edge: Callable[[Any], Any] = sa.func.max if before else sa.func.min
    near = tx.execute(
        sa.select(edge(jobs.c.position)).where(mine & side & (jobs.c.priority == target.priority))
    ).scalar()
    step = -1.0 if before else 1.0
    return target.position + step if near is None else (target.position + near) / 2


def _forget_preview(tx: Connection, id: str) -> None:
    tx.execute(previews.delete().where(previews.c.job == id))


def _missing(tx: Connection, table: sa.Table, row: Mapping[str, Any]) -> Any:
    """Insert a row unless there is one."""
    insert = postgresql.insert if tx.dialect.name == "postgresql" else sqlite.insert
    return insert(table).values(row).on_conflict_do_nothing()


def _put(
    tx: Connection,
    table: sa.Table,
    which: Mapping[str, Any],
    values: Mapping[str, Any],
    first: Mapping[str, Any] | None = None,
) -> None:
    """Insert a row, or change it where there is one; `first` is what only a new row gets."""
    insert: Any = postgresql.insert if tx.dialect.name == "postgresql" else sqlite.insert
    row = insert(table).values({**which, **values, **(first or {})})
    tx.execute(row.on_conflict_do_update(index_elements=list(which), set_=dict(values)))
