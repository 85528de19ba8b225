"""The page about the zero-shot engine: its table of defects is complete, and the tests that it names exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "zero-shot.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| ([CD]\d+) \| (.+) \|$", PAGE, re.M))
TESTS = {
    name
    for file in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)
}


def test_every_defect_of_the_official_code_and_of_the_port_has_a_row():
    assert list(ROWS) == [*(f"C{number}" for number in range(1, 41)), *(f"D{number}" for number in range(1, 13))]


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+)`", PAGE))))
def test_a_test_that_the_page_names_exists(name):
    assert name in TESTS


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_each_names_a_test_or_gives_a_reason(row):
    what, proof = row.split(" | ")
    assert what.strip()
    assert "`test_" in proof or len(proof.split()) >= 5
