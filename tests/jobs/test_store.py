"""The queue: what it promises, on both databases."""

import threading
import time
from dataclasses import replace

import pytest
import sqlalchemy as sa

from kinetograph.engine import describe
from kinetograph.errors import Conflict, LeaseLost, QuotaExceeded, UnknownJob
from kinetograph.jobs import Draft, Store
from kinetograph.jobs.store import _fresh
from kinetograph.jobs.tables import clock, jobs, owners

REQUEST = describe("render").request("a red ball moving left", seed=7)
NOBODY = "video_" + "0" * 32


@pytest.fixture
def store(database_url):
    opened = Store.open(database_url)
    yield opened
    opened.close()


@pytest.fixture
def times(database_url):
    """A store whose clock is a list of one number."""
    now = [1_000_000.0]
    opened = Store.open(database_url, clock=lambda: now[0])
    yield opened, now
    opened.close()


def draft(**others):
    return Draft(**{"engine": "render", "request": REQUEST, "digest": "same", **others})


def submit(store, **others):
    return store.submit(draft(**others))


# --- the life of a job --------------------------------------------------------------------------------------


def test_a_job_waits_runs_and_is_finished(store):
    job = submit(store)
    assert (job.state, job.progress, job.asked) == ("queued", 0, REQUEST)
    held = store.claim("a worker")
    assert (held.id, held.state, held.attempts, held.worker) == (job.id, "in_progress", 1, "a worker")
    store.beat(held, 1, 4, b"jpeg")
    assert store.job(job.id).progress == 25
    assert [(p.job, p.step, p.image) for p in store.previews(0)] == [(job.id, 1, b"jpeg")]
    done = store.finish(held, {"bytes": 5}, ["odd word"], keep=60)
    assert (done.state, done.progress, done.media, done.warnings) == ("completed", 100, {"bytes": 5}, ["odd word"])
    assert done.expires_at - done.finished_at == pytest.approx(60, abs=0.01)
    assert store.previews(0) == []
    assert store.claim("a worker") is None


def test_what_is_finished_twice_by_one_lease_is_finished_once(store):
    submit(store)
    held = store.claim("w")
    first = store.finish(held, {"bytes": 1})
    assert store.finish(held, {"bytes": 2}) == first


def test_progress_is_not_complete_before_the_file_is_there(store):
    submit(store)
    held = store.claim("w")
    store.beat(held, 4, 4)
    assert store.job(held.id).progress == 99


def test_a_failure_says_why_and_keeps_the_traceback(store):
    submit(store)
    failed = store.fail(store.claim("w"), "engine_error", "it failed", traceback="line 1")
    assert (failed.state, failed.error_code, failed.error_message, failed.traceback) == (
        *("failed", "engine_error", "it failed"),
        "line 1",
    )


def test_a_job_that_is_given_back_is_as_if_it_had_never_been_begun(store):
    submit(store)
    store.release(store.claim("w"))
    again = store.claim("other")
    assert (again.attempts, again.worker) == (1, "other")


def test_a_job_that_is_given_back_for_later_waits(times):
    store, now = times
    submit(store)
    store.release(store.claim("w"), after=10)
    assert store.claim("w") is None
    now[0] += 11
    assert store.claim("w") is not None


# --- leases -------------------------------------------------------------------------------------------------


def test_a_lease_that_ran_out_is_another_s_and_the_first_worker_cannot_finish(times):
    store, now = times
    submit(store)
    first = store.claim("slow")
    now[0] += store.lease + 1
    assert store.reclaim() == 1
    second = store.claim("quick")
    assert second.attempts == 2
    for late in (lambda: store.finish(first, {}), lambda: store.beat(first), lambda: store.fail(first, "x", "y")):
        with pytest.raises(LeaseLost):
            late()
    assert store.finish(second, {}).state == "completed"
    with pytest.raises(LeaseLost):
        store.finish(first, {})


def test_a_sign_of_life_keeps_the_lease(times):
    store, now = times
    submit(store)
    held = store.claim("w")
    for _ in range(5):
        now[0] += store.lease * 0.9
        store.beat(held)
        assert store.reclaim() == 0
    store.check(held)


def test_a_job_that_loses_three_workers_fails(times):
    store, now = times
    job = submit(store)
    for _ in range(3):
        assert store.claim("w").id == job.id
        now[0] += store.lease + 1
        store.reclaim()
    lost = store.job(job.id)
    assert (lost.state, lost.error_code) == ("failed", "worker_lost")


def test_a_clock_that_jumps_back_and_forth_finishes_nothing_twice(times):
    store, now = times
    submit(store)
    first = store.claim("w")
    now[0] += 3600
    store.reclaim()
    now[0] -= 7200
    second = store.claim("w")
    with pytest.raises(LeaseLost):
        store.finish(first, {})
    store.finish(second, {})


def test_many_workers_never_hold_one_job_together(store):
    ids = [submit(store).id for _ in range(30)]
    held, failures = [], []

    def work(name):
        try:
            while (job := store.claim(name)) is not None:
                held.append(job.id)
                store.finish(job, {})
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert sorted(held) == sorted(ids)


# --- one request, one job -----------------------------------------------------------------------------------


def test_the_same_idempotency_key_is_the_same_job(store):
    first = submit(store, idempotency_key="k")
    assert submit(store, idempotency_key="k").id == first.id
    assert submit(store, idempotency_key="k", owner="another").id != first.id
    assert store.counts() == {"queued": 2}


def test_an_idempotency_key_cannot_be_used_for_something_else(store):
    submit(store, idempotency_key="k")
    with pytest.raises(Conflict, match="another request"):
        submit(store, idempotency_key="k", digest="different")


def test_many_who_send_one_key_at_once_get_one_job(store):
    found = []
    threads = [threading.Thread(target=lambda: found.append(submit(store, idempotency_key="k").id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_draft_that_is_submitted_again_after_a_broken_connection_is_one_job(store):
    one = draft()
    assert store.submit(one).seq == store.submit(one).seq


def test_what_a_client_says_it_repeats_is_the_job_of_the_last_minutes(times):
    store, now = times
    first = submit(store)
    assert store.submit(draft(), repeated=True).id == first.id
    assert store.submit(draft(digest="other"), repeated=True).id != first.id
    now[0] += 300
    assert store.submit(draft(), repeated=True).id != first.id


# --- whose turn it is ---------------------------------------------------------------------------------------


def claimed(store, count):
    return [store.claim("w").id for _ in range(count)]


def test_first_come_first_served(store):
    ids = [submit(store).id for _ in range(3)]
    assert store.order() == ids
    assert claimed(store, 3) == ids


def test_a_higher_priority_goes_first_among_the_jobs_of_one_owner(store):
    low, high = submit(store).id, submit(store, priority=5).id
    assert claimed(store, 2) == [high, low]


def test_owners_take_turns_however_many_jobs_one_of_them_has_and_however_urgent(store):
    flood = [submit(store, owner="a", priority=9).id for _ in range(4)]
    other = [submit(store, owner="b").id for _ in range(2)]
    expected = [flood[0], other[0], flood[1], other[1], flood[2], flood[3]]
    assert store.order() == expected
    assert claimed(store, 6) == expected


def test_an_owner_of_a_higher_rank_goes_first(store):
    submit(store, owner="a")
    store.rank("b", 1)
    second = submit(store, owner="b")
    assert store.claim("w").id == second.id


def test_a_worker_takes_only_what_it_can_make(store):
    submit(store, engine="gan")
    mine = submit(store, engine="render")
    assert store.claim("w", ["render"]).id == mine.id
    assert store.claim("w", ["render"]) is None


def test_a_queue_that_is_held_gives_nothing_out(store):
    submit(store)
    store.set_paused(True)
    assert store.paused()
    assert store.claim("w") is None
    store.set_paused(False)
    assert store.claim("w") is not None


# --- changing one's mind ------------------------------------------------------------------------------------


def test_a_waiting_job_can_be_moved(store):
    a, b, c = (submit(store).id for _ in range(3))
    store.move(c)
    assert store.order() == [c, a, b]
    store.move(c, after=a)
    assert store.order() == [a, c, b]
    store.move(b, before=c)
    assert store.order() == [a, b, c]
    store.last(a)
    assert store.order() == [b, c, a]
    store.move(a, before=a)
    assert store.order() == [b, c, a]


def test_moving_respects_priorities_and_owners(store):
    low, high = submit(store).id, submit(store, priority=3).id
    other = submit(store, owner="b").id
    store.move(low, before=high)
    assert store.job(low).priority == 3
    assert [id for id in store.order() if id != other] == [low, high]
    with pytest.raises(UnknownJob):
        store.move(low, before=other)


def test_a_job_can_be_held_back_and_let_go(store):
    job = submit(store)
    assert store.pause(job.id).state == store.pause(job.id).state == "paused"
    assert store.claim("w") is None
    assert store.resume(job.id).state == "queued"
    assert store.claim("w").id == job.id
    with pytest.raises(Conflict, match="in_progress"):
        store.pause(job.id)


@pytest.mark.parametrize("running", [False, True])
def test_a_job_that_is_cancelled_is_nobody_s(store, running):
    job = submit(store)
    held = store.claim("w") if running else None
    assert store.cancel(job.id).state == "cancelled"
    assert store.cancel(job.id).state == "cancelled"
    assert store.claim("w") is None
    if held:
        with pytest.raises(LeaseLost):
            store.check(held)
        with pytest.raises(LeaseLost):
            store.finish(held, {})
    assert store.job(job.id).error_code == "cancelled"


def test_what_is_finished_cannot_be_cancelled(store):
    submit(store)
    done = store.finish(store.claim("w"), {})
    with pytest.raises(Conflict, match="completed") as refused:
        store.cancel(done.id)
    assert refused.value.code == "video_completed"


def test_a_job_that_failed_can_be_tried_again_with_all_its_attempts(store):
    job = submit(store)
    store.fail(store.claim("w"), "engine_error", "no")
    again = store.retry(job.id)
    assert (again.state, again.error_code, again.finished_at) == ("queued", "", None)
    held = store.claim("w")
    assert (held.id, held.attempts) == (job.id, 1)
    with pytest.raises(Conflict):
        store.retry(job.id)


def test_a_deleted_job_is_unknown_and_what_it_said_is_gone(store):
    job = submit(store, idempotency_key="k")
    held = store.claim("w")
    store.delete(job.id)
    for ask in (store.job, store.cancel, store.delete, store.retry):
        with pytest.raises(UnknownJob):
            ask(job.id)
    with pytest.raises(LeaseLost):
        store.finish(held, {})
    assert store.jobs().jobs == ()
    assert [(j.state, j.prompt, dict(j.request)) for j in store.changed(0)] == [("deleted", "", {})]
    assert submit(store, idempotency_key="k").id != job.id


def test_somebody_else_s_job_is_unknown(store):
    job = submit(store, owner="a")
    for ask in (store.job, store.cancel, store.delete, store.pause, store.resume, store.retry, store.move, store.last):
        with pytest.raises(UnknownJob):
            ask(job.id, "b")
    assert store.job(job.id, "a") == job


# --- lists --------------------------------------------------------------------------------------------------


def test_a_list_has_pages(store):
    ids = [submit(store).id for _ in range(5)]
    first = store.jobs(limit=2)
    assert ([job.id for job in first.jobs], first.more) == ([ids[4], ids[3]], True)
    second = store.jobs(limit=3, after=ids[3])
    assert ([job.id for job in second.jobs], second.more) == ([ids[2], ids[1], ids[0]], False)
    assert [job.id for job in store.jobs(newest_first=False, after=ids[3]).jobs] == [ids[4]]


def test_a_page_goes_on_after_a_job_that_was_deleted(store):
    ids = [submit(store).id for _ in range(3)]
    store.delete(ids[1])
    assert [job.id for job in store.jobs(after=ids[1]).jobs] == [ids[0]]
    with pytest.raises(UnknownJob):
        store.jobs(after=NOBODY)


def test_a_list_can_be_narrowed(store):
    other = replace(REQUEST, prompt="100% a BLUE_ball")
    red, blue = submit(store).id, submit(store, request=other, engine="gan").id
    assert [job.id for job in store.jobs(words="BALL red").jobs] == [red]
    assert [job.id for job in store.jobs(words="0% blue_").jobs] == [blue]
    assert [job.id for job in store.jobs(words="e%ball").jobs] == []
    assert [job.id for job in store.jobs(engine="gan").jobs] == [blue]
    assert [job.id for job in store.jobs(states=("failed",)).jobs] == []
    assert [job.id for job in store.jobs("nobody").jobs] == []


def test_changes_come_in_their_order_and_none_is_left_out(store):
    a, b = submit(store), submit(store)
    held = store.claim("w")
    assert held.id == a.id
    changed = store.changed(b.revision)
    assert [job.id for job in changed] == [a.id]
    store.pause(b.id)
    assert [job.id for job in store.changed(changed[-1].revision)] == [b.id]
    assert store.revision() == store.job(b.id).revision


# --- limits and time ----------------------------------------------------------------------------------------


def test_a_quota_counts_what_waits_and_what_came_in_a_day(times):
    store, now = times
    store.submit(draft(), most_queued=1)
    with pytest.raises(QuotaExceeded):
        store.submit(draft(), most_queued=1)
    store.submit(draft(owner="b"), most_queued=1)
    store.finish(store.claim("w"), {})
    with pytest.raises(QuotaExceeded):
        store.submit(draft(), most_daily=1)
    now[0] += 90_000
    store.submit(draft(), most_daily=1)


def test_what_is_kept_for_a_time_expires(times):
    store, now = times
    submit(store)
    done = store.finish(store.claim("w"), {}, keep=100)
    submit(store)
    store.finish(store.claim("w"), {})
    assert store.expired() == []
    now[0] += 101
    assert [job.id for job in store.expired()] == [done.id]
    store.delete(done.id)
    now[0] += 100_000
    store.forget()
    assert [job.state for job in store.changed(0)] == ["completed"]


def test_workers_are_those_that_were_seen_lately(times):
    store, now = times
    store.seen("a", ["render"])
    now[0] += store.lease / 2
    store.seen("b", [], "video")
    assert [(worker.id, worker.engines, worker.job, ago) for worker, ago in store.workers()] == [
        ("a", ["render"], "", store.lease / 2),
        ("b", [], "video", 0),
    ]
    now[0] += store.lease * 0.6
    assert [worker.id for worker, _ in store.workers()] == ["b"]
    store.gone("b")
    assert store.workers() == []


def test_the_usual_time_is_the_middle_of_the_latest(times):
    store, now = times
    assert store.usual_seconds("render") is None
    for seconds in (5, 1, 3):
        submit(store)
        held = store.claim("w")
        now[0] += seconds
        store.finish(held, {})
    assert store.usual_seconds("render") == 3


def filled(store, count):
    """A store in which so many jobs of ten owners wait."""
    rows = [_fresh(draft(owner=f"o{n % 10}"), n, 0.0) for n in range(1, count + 1)]
    names = [{"owner": f"o{n}", "rank": 0, "served": 0} for n in range(10)]
    store.database.run(lambda tx: (tx.execute(jobs.insert(), rows), tx.execute(owners.insert(), names)))
    store.database.run(lambda tx: tx.execute(clock.update().values(revision=count)))
    if not store.database.is_sqlite:
        store.database.run(lambda tx: tx.execute(sa.text("ANALYZE")))


def middle(work, times=15):
    """Seconds of the middle one of several calls."""
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        assert work()
        took.append(time.perf_counter() - begun)
    return sorted(took)[times // 2]


@pytest.mark.slow
def test_a_claim_and_a_list_take_no_longer_where_five_thousand_jobs_wait(database_url, tmp_path):
    few, many = Store.open(f"sqlite:///{tmp_path / 'few.sqlite'}"), Store.open(database_url)
    filled(few, 100)
    filled(many, 5_000)
    work = [(lambda s=s: s.claim("w"), lambda s=s: s.jobs("o1", limit=5).jobs) for s in (few, many)]
    figures = [[middle(step) for step in steps] for steps in work]
    few.close()
    many.close()
    assert figures[1][0] < 5 * figures[0][0] + 0.02
    assert figures[1][1] < 5 * figures[0][1] + 0.02
