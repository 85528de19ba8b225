"""The life of jobs against a model of it: whatever happens in whatever order, the promises hold."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

from kinetograph.engine import describe
from kinetograph.errors import Conflict, LeaseLost, UnknownJob
from kinetograph.jobs import Draft, Store

REQUEST = describe("render").request("a red ball moving left", seed=7)
TICK = 20.0


class Life(RuleBasedStateMachine):
    """A queue under a clock that only this machine moves, and what must be true of it.

    `state` is what each job should be; `holder` the token of the one lease that counts; `done` how often each was
    finished.
    """

    jobs, leases = Bundle("jobs"), Bundle("leases")
    url = ""

    def __init__(self):
        super().__init__()
        self.now, self.state, self.holder, self.until, self.attempts = 1e6, {}, {}, {}, {}
        self.done = {}
        self.folder = Path(tempfile.mkdtemp())
        self.store = Store.open(self.url or f"sqlite:///{self.folder / 'q.sqlite'}", clock=lambda: self.now)
        if self.url:
            self.store.database.run(lambda tx: [tx.exec_driver_sql(f"DELETE FROM {n}") for n in ("jobs", "owners")])

    def teardown(self):
        self.store.close()
        shutil.rmtree(self.folder)

    @rule(target=jobs, owner=st.sampled_from("ab"), priority=st.integers(-1, 1))
    def submit(self, owner, priority):
        job = self.store.submit(Draft(engine="render", request=REQUEST, owner=owner, priority=priority))
        self.state[job.id], self.attempts[job.id] = "queued", 0
        return job.id

    @rule(target=leases)
    def claim(self):
        held = self.store.claim("w")
        waiting = [id for id, state in self.state.items() if state == "queued"]
        if held is None:
            assert waiting == []
            return None
        assert self.state[held.id] == "queued"
        self.state[held.id], self.holder[held.id] = "in_progress", held.token
        self.until[held.id] = self.now + self.store.lease
        self.attempts[held.id] += 1
        return held

    def counts(self, held):
        return held and self.state[held.id] == "in_progress" and self.holder[held.id] == held.token

    @rule(held=leases)
    def beat(self, held):
        self.told(held, lambda: self.store.beat(held, 1, 2))
        if self.counts(held):
            self.until[held.id] = self.now + self.store.lease

    @rule(held=leases)
    def finish(self, held):
        counts = self.counts(held)
        if held and self.state[held.id] == "completed" and self.holder[held.id] == held.token:
            assert self.store.finish(held, {}).state == "completed"  # said again, and heard once
            return
        self.told(held, lambda: self.store.finish(held, {}))
        if counts:
            self.state[held.id] = "completed"
            self.done[held.id] = self.done.get(held.id, 0) + 1

    @rule(held=leases)
    def fail(self, held):
        if held and self.state[held.id] == "failed" and self.holder[held.id] == held.token:
            return
        counts = self.counts(held)
        self.told(held, lambda: self.store.fail(held, "x", "y"))
        if counts:
            self.state[held.id] = "failed"

    @rule(held=consumes(leases))
    def release(self, held):
        counts = self.counts(held)
        self.told(held, lambda: self.store.release(held))
        if counts:
            self.state[held.id] = "queued"
            self.attempts[held.id] -= 1

    def told(self, held, saying):
        if held is None:
            return
        counts = self.counts(held)
        try:
            saying()
        except LeaseLost:
            assert not counts
        else:
            assert counts

    @rule(times=st.integers(1, 2))
    def wait(self, times):
        self.now += TICK * times

    @rule()
    def reclaim(self):
        self.store.reclaim()
        for id, state in self.state.items():
            if state == "in_progress" and self.until[id] < self.now:
                self.state[id] = "queued" if self.attempts[id] < self.store.most_attempts else "failed"
                self.holder[id] = "nobody"

    @rule(id=jobs, step=st.sampled_from(["cancel", "delete", "pause", "resume", "retry", "move", "last"]))
    def change(self, id, step):
        state = self.state[id]
        allowed = {
            "cancel": ("queued", "paused", "in_progress", "cancelled"),
            "delete": ("queued", "paused", "in_progress", "completed", "failed", "cancelled"),
            "retry": ("queued", "paused", "failed", "cancelled"),
        }.get(step, ("queued", "paused"))
        try:
            getattr(self.store, step)(id)
        except Conflict:
            assert state not in allowed
            return
        except UnknownJob:
            assert state == "deleted"
            return
        assert state in allowed
        after = {"cancel": "cancelled", "delete": "deleted", "pause": "paused", "resume": "queued"}
        self.state[id] = after.get(step, state)
        if step == "retry" and state in ("failed", "cancelled"):
            self.state[id], self.attempts[id] = "queued", 0
        if self.state[id] != state:
            self.holder[id] = "nobody"

    @invariant()
    def every_job_is_where_the_model_says_and_none_is_lost(self):
        assert {job.id: job.state for job in self.store.changed(0, most=10_000)} == self.state

    @invariant()
    def nothing_is_finished_twice(self):
        assert all(times == 1 for times in self.done.values())

    @invariant()
    def the_order_names_everything_that_waits(self):
        assert sorted(self.store.order()) == sorted(id for id, state in self.state.items() if state == "queued")


def test_the_promises_hold_whatever_happens(database_url):
    Life.url = "" if database_url.startswith("sqlite") else database_url
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        Life, settings=settings(max_examples=12, stateful_step_count=20, deadline=None, suppress_health_check=checks)
    )
