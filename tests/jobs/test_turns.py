"""Turns: a lock that is handed over in the order in which it was asked for."""

import threading
import time

from kinetograph.jobs.turns import Turns


def test_whoever_came_first_gets_it_first_and_nobody_is_in_it_beside_another():
    turns, order, inside = Turns(), [], []

    def work(number):
        assert turns.take(10)
        inside.append(number)
        assert len(inside) == 1
        order.append(number)
        inside.pop()
        turns.leave()

    assert turns.take(0)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for place, thread in enumerate(threads, start=1):
        thread.start()
        while len(turns._line) < place:
            time.sleep(0.001)
    turns.leave()
    for thread in threads:
        thread.join()
    assert order == list(range(8))
    assert turns.take(0)


def test_whoever_waits_too_long_leaves_the_line():
    turns = Turns()
    assert turns.take(0)
    assert not turns.take(0.01)
    turns.leave()
    assert turns.take(0)
