"""Errors: one tree, told apart by name, carrying facts."""

import copy
import errno
import inspect
import pickle
from pathlib import Path

import pytest

from kinetograph import errors
from kinetograph.errors import (
    Cancelled,
    CannotWrite,
    InvalidRequest,
    KinetographError,
    OutputExists,
    UnknownName,
    UnsupportedFormat,
)

EVERY = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, KinetographError)]


@pytest.mark.parametrize("kind", EVERY)
def test_every_error_is_in_the_tree_that_the_module_draws(kind):
    assert kind.__name__ in errors.__doc__


@pytest.mark.parametrize("kind", [kind for kind in EVERY if kind is not UnknownName])
def test_the_message_is_the_text_and_the_hint_stands_beside_it(kind):
    error = kind("it broke", hint="mend it")
    assert (str(error), error.hint) == ("it broke", "mend it")


def test_an_unknown_name_suggests_the_nearest_spelling():
    error = UnknownName("engine", "zer0", ["gan", "zero"])
    assert (str(error), error.hint) == ("no engine is called 'zer0'", "did you mean 'zero'?")


def test_an_unknown_name_that_resembles_none_lists_them_all():
    assert UnknownName("engine", "xyzzy", ["zero", "gan"]).hint == "there are: gan, zero"
    assert UnknownName("engine", "xyzzy", []).hint == "there are none"


@pytest.mark.parametrize(
    "error",
    [
        UnknownName("engine", "zer0", ["zero"]),
        InvalidRequest("width is 0", field="width", hint="nearest: 1"),
        Cancelled(),
    ],
)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_crosses_process_borders_whole(error, copied):
    other = copied(error)
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert vars(other) == vars(error)


def test_exit_codes_tell_usage_from_failure_from_a_stop():
    usage = {InvalidRequest, UnknownName, UnsupportedFormat, OutputExists}
    usage |= {errors.MissingExtra, errors.UnknownJob, errors.Conflict}
    stops = {Cancelled, errors.Interrupted}
    assert {kind for kind in EVERY if kind.exit_code == 2} == usage
    assert {kind for kind in EVERY if kind.exit_code == 130} == stops
    assert {kind.exit_code for kind in EVERY} == {1, 2, 130}


def test_an_error_of_the_system_becomes_one_with_the_fact_and_the_folder():
    error = CannotWrite.because(Path("/videos/a.mp4"), OSError(errno.ENOSPC, "No space left on device"))
    assert str(error) == "cannot write /videos/a.mp4: No space left on device (folder /videos)"
    assert "disk is full" in error.hint
    assert error.full
    assert not CannotWrite.because(Path("/videos/a.mp4"), OSError(errno.EROFS, "Read-only file system")).full
