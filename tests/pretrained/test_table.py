"""The table of the docs says what was tried, for every family."""

import cases
import pytest
import table

EVERY = [
    pytest.param(case, id=case.name, marks=[] if case.name == "wan" else [pytest.mark.slow]) for case in cases.CASES
]


@pytest.mark.parametrize("case", EVERY)
def test_the_table_says_what_works_for_a_family(case, home):
    assert table.row(case, home) == table.lines()[case.name]


def test_the_table_has_a_line_for_every_family_and_no_other():
    assert set(table.lines()) == set(cases.BY_NAME)
