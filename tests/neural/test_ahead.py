"""What helpers make for coming steps is what would have been made here, in its order."""

import os
import time

import pytest

from kinetograph.neural.training.ahead import EACH, Ahead


def squared(step):
    time.sleep(0.02 * (step % 3))  # later steps may be ready before earlier ones
    return step**2, os.getpid()


def failing(step):
    if step == 3:
        raise ValueError("step 3 cannot be made")
    return step


def test_helpers_make_what_is_made_here_in_other_processes():
    here, there = Ahead(squared, 0, 9), Ahead(squared, 2, 9)
    made = [there(step) for step in range(4, 10)]
    assert [number for number, _ in made] == [here(step)[0] for step in range(4, 10)] == [16, 25, 36, 49, 64, 81]
    assert os.getpid() not in {process for _, process in made}
    assert here(1)[1] == os.getpid()


def test_no_more_is_asked_of_helpers_than_is_needed_soon():
    asked = Ahead(squared, 1, 3)
    asked(1)
    assert sorted(asked._coming) == [2]
    asked(2)
    assert sorted(asked._coming) == [3]  # after the last step there is none
    assert EACH == 2


def test_what_goes_wrong_in_a_helper_is_raised_at_its_step():
    made = Ahead(failing, 1, 4)
    assert [made(1), made(2)] == [1, 2]
    with pytest.raises(ValueError, match="step 3"):
        made(3)
