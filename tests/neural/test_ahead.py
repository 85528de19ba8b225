"""What helpers make for coming steps is what would have been made here, in its order."""

import dataclasses
import json
import os
import signal
import time

import pytest
import torch

from kinetograph.errors import TrainingError
from kinetograph.neural.training import recipes
from kinetograph.neural.training.ahead import EACH, Ahead, drawing


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


def dying(step):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_helper_that_is_ended_is_told_and_so_is_a_number_that_cannot_be():
    with pytest.raises(TrainingError, match="was ended") as told:
        Ahead(dying, 1, 4)(1)
    assert "--resume" in told.value.hint
    with pytest.raises(TrainingError, match="-1 helpers") as told:
        Ahead(squared, -1, 4)
    assert told.value.hint


def test_ctrl_c_leaves_helpers_alone():
    made = Ahead(squared, 1, 9)
    _, helper = made(1)
    os.kill(helper, signal.SIGINT)
    assert [made(step)[0] for step in (2, 3, 4, 5)] == [4, 9, 16, 25]


def test_helpers_draw_where_there_is_no_gpu():
    gpu = torch.device("cuda", 1)
    assert drawing(0, gpu) == gpu
    assert drawing(3, gpu) == torch.device("cpu")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["layered-tiny", "pocket-edge"])
def test_a_run_with_helpers_takes_the_very_steps_of_one_without(name, tmp_path):
    changes = {"steps": 3, "save_every": 3, "sample_every": 99, "log_every": 1, "warmup": 1, "bfloat16": False}
    if name == "pocket-edge":
        changes |= {"batch": 2, "noises": 1}
    for helpers in (0, 1):
        recipe = dataclasses.replace(recipes.get(name), helpers=helpers, **changes)
        recipe.train(tmp_path / str(helpers), device="cpu")
    with_none, with_one = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()] for name in "01"
    )
    for rows in zip(with_none, with_one, strict=True):
        here, there = ({key: value for key, value in row.items() if key != "hours"} for row in rows)
        assert here == there
