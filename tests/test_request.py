"""Requests: complete, frozen, and refused by name with the nearest legal value."""

import copy
import json
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinetograph.errors import InvalidRequest
from kinetograph.request import MAX_PIXELS, FrozenMapping, VideoRequest, parse_fps, parse_size

GOOD = {"prompt": "a red ball", "seed": 7, "width": 64, "height": 48, "frames": 10, "fps": Fraction(10)}


def ask(**changes):
    return VideoRequest(**{**GOOD, **changes})


ILLEGAL = [
    ("prompt", "", "say what"),
    ("prompt", " \u3000 ", "say what"),
    ("prompt", "x" * 2001, "2000"),
    ("prompt", "a\0b", "space"),
    ("prompt", "a\nb", "space"),
    ("prompt", "a\ud800b", "space"),
    ("prompt", None, ""),
    ("seed", -1, "nearest: 0"),
    ("seed", 2**63, f"nearest: {2**63 - 1}"),
    ("seed", True, ""),
    ("seed", 7.0, "nearest: 7"),
    ("seed", "7", ""),
    ("seed", None, ""),
    ("seed", 1e300, f"nearest: {2**63 - 1}"),
    ("width", 0, "nearest: 1"),
    ("width", 8193, "nearest: 8192"),
    ("height", -5, "nearest: 1"),
    ("height", float("nan"), ""),
    ("frames", 0, "nearest: 1"),
    ("frames", MAX_PIXELS, f"at most {MAX_PIXELS // (64 * 48)} frames"),
    ("fps", Fraction(0), "nearest: 1/1000"),
    ("fps", Fraction(-3), "nearest: 1/1000"),
    ("fps", 1001, "nearest: 1000"),
    ("fps", 29.97, "nearest: 2997/100"),
    ("fps", float("nan"), "Fraction"),
    ("fps", float("inf"), "Fraction"),
    ("fps", True, "Fraction"),
    ("fps", None, "Fraction"),
    ("fps", Fraction(10**9 + 7, 10**9), "nearest: 1"),
]


@pytest.mark.parametrize(("field", "value", "hint"), ILLEGAL)
def test_an_illegal_value_is_refused_by_name_with_the_nearest_legal_one(field, value, hint):
    with pytest.raises(InvalidRequest) as refusal:
        ask(**{field: value})
    assert refusal.value.field == field
    assert field in str(refusal.value)
    assert hint in refusal.value.hint


@pytest.mark.parametrize(("field", "value", "hint"), [row for row in ILLEGAL if "nearest: " in row[2]])
def test_the_nearest_value_that_a_refusal_names_is_legal(field, value, hint):
    with pytest.raises(InvalidRequest) as refusal:
        ask(**{field: value})
    ask(**{field: Fraction(refusal.value.hint.removeprefix("nearest: ")) if field == "fps" else int(hint[9:])})


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": "a red ball 🔴 и 日本 👩‍🚀"},
        {"prompt": "x" * 2000},
        {"seed": 2**63 - 1},
        {"width": 1, "height": 1, "frames": 1},
        {"width": 63, "height": 47},
        {"fps": Fraction(30000, 1001)},
        {"width": np.int64(32)},
        {"options": {"steps": 4, "scale": 1.5, "names": ["a", "b"], "on": True}},
    ],
)
def test_a_legal_request_survives_json_pickle_and_copying(changes):
    request = ask(**changes)
    assert VideoRequest.from_dict(json.loads(json.dumps(request.to_dict()))) == request
    assert pickle.loads(pickle.dumps(request)) == request
    assert copy.deepcopy(request) == request
    assert hash(copy.deepcopy(request)) == hash(request)


@pytest.mark.parametrize("field", ["seed", "width", "frames", "fps", "options"])
def test_a_number_too_long_to_be_printed_is_refused_all_the_same(field):
    value = {"x": 10**5000} if field == "options" else 10**5000
    with pytest.raises(InvalidRequest, match="very many digits"):
        ask(**{field: value})


def test_a_whole_number_is_a_rate():
    assert ask(fps=10).fps == Fraction(10)


def test_the_options_cannot_be_changed_from_outside_or_inside():
    given_options = {"names": ["a"]}
    request = ask(options=given_options)
    given_options["names"].append("b")
    assert request.options == {"names": ("a",)}
    with pytest.raises(TypeError):
        request.options["names"] = ()
    with pytest.raises(AttributeError):
        request.options._pairs = ()


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), {"a": 1}, object(), [None], 2**63])
def test_an_option_that_json_cannot_hold_is_refused(value):
    with pytest.raises(InvalidRequest, match="option x"):
        ask(options={"x": value})


@pytest.mark.parametrize("options", [[1], "x", {1: 2}])
def test_options_are_names_and_values(options):
    with pytest.raises(InvalidRequest):
        ask(options=options)


def test_from_dict_refuses_strangers_and_gaps_by_name():
    data = ask().to_dict()
    with pytest.raises(InvalidRequest, match="no field 'widht'") as refusal:
        VideoRequest.from_dict({**data, "widht": 3})
    assert "width" in refusal.value.hint
    del data["seed"]
    with pytest.raises(InvalidRequest, match="lacks its seed"):
        VideoRequest.from_dict(data)


def test_sizes_are_read_as_people_write_them():
    assert parse_size("64x48") == parse_size(" 64 X 48 ") == parse_size("64×48") == (64, 48)


@pytest.mark.parametrize("text", ["", "64", "64x", "-1x5", "6.5x4", "64x48x3", "٣x٣", "9" * 5000 + "x1", "0x5"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InvalidRequest):
        parse_size(text)


def test_rates_are_exact():
    assert parse_fps("29.97") == Fraction(2997, 100)
    assert parse_fps("30000/1001") == Fraction(30000, 1001)
    assert parse_fps(" 10 ") == 10


@pytest.mark.parametrize("text", ["", "0", "1/0", "nan", "inf", "1e3", "-5", "1001", "10/", "a", "9" * 5000])
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(InvalidRequest):
        parse_fps(text)


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=5))
def test_a_frozen_mapping_is_the_mapping_it_was_made_from(content):
    frozen = FrozenMapping(content)
    assert frozen == content
    assert len(frozen) == len(content)
    assert list(frozen) == sorted(content)
    assert frozen == pickle.loads(pickle.dumps(frozen))
