"""Every family of pretrained models, behind the same request: frames, progress, cancel, seed, reproduction.

A family's engine is loaded once for all of its tests, which share what it made.
"""

import cases
import pytest
import table

from kinetograph.engine import describe, reproduce, warm
from kinetograph.errors import InvalidRequest
from kinetograph.video import fingerprint

EVERY = [pytest.param(case, id=case.name, marks=[] if case.quick else [pytest.mark.slow]) for case in cases.CASES]
pytestmark = pytest.mark.filterwarnings("ignore:the card of")


@pytest.fixture(scope="module", params=EVERY)
def family(request, home):
    """Each family in turn, with all tests of one before the next."""
    yield cases.Family(request.param, home)
    warm.clear()


@pytest.fixture(autouse=True)
def forgotten():
    """Here engines outlive their tests."""


def test_a_family_makes_what_was_asked_for_tells_of_every_step_and_makes_it_again(family):
    (video, told), case = family.first, family.case
    assert video.frames.shape == (case.frames, case.side, case.side, 3)
    steps = [progress.step for progress in told]
    assert steps == list(range(1, told[-1].steps + 1))
    assert len(steps) >= 1
    made = video.provenance
    assert made.trained
    assert len(made.weights) == 64
    assert {"torch", "diffusers", "transformers"} <= set(made.versions)
    assert reproduce(video, device="cpu").same


def test_a_family_can_be_given_up_within_its_first_step(family):
    assert [progress.step for progress in family.given_up] == [1]


def test_another_seed_is_another_clip(family):
    assert fingerprint(family.first[0].frames) != fingerprint(family.make(seed=4).frames)


def test_what_a_family_cannot_make_is_refused_with_the_nearest_that_it_can(family):
    info, case = describe(family.reference), family.case
    if info.frame_step > 1:
        with pytest.raises(InvalidRequest, match="frames") as error:
            info.request("a ball", frames=info.min_frames + 1, width=case.side, height=case.side)
        assert error.value.hint.startswith("nearest: ")
    with pytest.raises(InvalidRequest) as error:
        info.request("a ball", width=case.side + 1, height=case.side, frames=case.frames)
    assert "nearest" in error.value.hint
    assert info.request("a ball").frames >= info.min_frames  # its defaults are legal


def test_the_table_says_what_works_for_a_family(family):
    assert table.steady(table.row(family)) == table.steady(table.lines()[family.case.name])


def test_the_table_has_a_line_for_every_family_and_no_other():
    assert set(table.lines()) == set(cases.BY_NAME)
