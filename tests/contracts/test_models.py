"""What every network on the shelf promises."""

import dataclasses

import pytest

from kinetograph.shelf import MODELS


@pytest.fixture(params=MODELS.names())
def module(request):
    return MODELS[request.param]


def test_it_says_what_it_is_and_where_it_comes_from(module):
    assert len(module.__doc__) > 40


def test_its_configuration_is_frozen_data(module):
    assert dataclasses.is_dataclass(module.Config)
    assert module.Config.__dataclass_params__.frozen


def test_its_sizes_are_rows_and_one_is_tiny(module):
    names = {field.name for field in dataclasses.fields(module.Config)}
    if not hasattr(module, "PRESETS"):  # then it is made of parts that have some
        parts = [part for part in vars(module).values() if hasattr(part, "PRESETS") and part is not module]
        assert parts
        return
    assert "tiny" in module.PRESETS
    assert all(set(row) <= names for row in module.PRESETS.values())
