"""Shelves: a file is a name; listing imports nothing."""

import os
import subprocess
import sys
import zipfile
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from kinetograph import shelf
from kinetograph.errors import PluginError, UnknownName
from kinetograph.shelf import ENGINES, METRICS, MODELS, WORLDS, Shelf


@pytest.fixture
def fruit(tmp_path, monkeypatch):
    """A package with two things, a private one, and one that cannot be imported."""
    folder = tmp_path / "fruit_shelf"
    folder.mkdir()
    for name in ("__init__", "apple", "pear", "_core"):
        (folder / f"{name}.py").write_text(f"NAME = {name!r}\n")
    (folder / "durian.py").write_text("raise ImportError('it smells')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return Shelf("fruit", "fruit_shelf")


def test_listing_names_files_and_imports_none_of_them(fruit):
    assert fruit.names() == tuple(fruit) == ("apple", "durian", "pear")
    assert "apple" in fruit
    assert "_core" not in fruit
    assert len(fruit) == 3
    assert "fruit_shelf.durian" not in sys.modules


def test_taking_one_imports_it(fruit):
    assert fruit["pear"].NAME == "pear"


def test_a_misspelt_name_is_told_its_neighbour(fruit):
    with pytest.raises(UnknownName, match="no fruit is called 'aple'") as refusal:
        fruit["aple"]
    assert "apple" in refusal.value.hint


@pytest.mark.parametrize("name", ["_core", "__init__", "", ".", "../pear", "pear.x", "os"])
def test_only_what_is_listed_can_be_taken(fruit, name):
    with pytest.raises(UnknownName):
        fruit[name]


def test_an_import_that_fails_says_so_itself(fruit):
    with pytest.raises(ImportError, match="it smells"):
        fruit["durian"]


def test_a_stranger_comes_in_by_entry_point_and_cannot_take_a_name_that_is_taken(fruit, monkeypatch):
    group = "kinetograph.fruit_shelf"
    points = [EntryPoint("mango", "json", group), EntryPoint("pear", "json", group)]
    monkeypatch.setattr(shelf, "entry_points", lambda *, group: points if group == "kinetograph.fruit_shelf" else [])
    assert fruit.names() == ("apple", "durian", "mango", "pear")
    assert fruit["mango"].__name__ == "json"
    assert fruit["pear"].NAME == "pear"


def test_a_package_that_is_not_there_is_an_empty_shelf():
    assert Shelf("ghost", "kinetograph.ghosts").names() == ()


def test_the_house_has_its_shelves():
    assert "render" in ENGINES
    assert "circle" in WORLDS
    assert [one.kind for one in (WORLDS, ENGINES, METRICS, MODELS)] == ["world", "engine", "metric", "model"]


def test_a_shelf_works_from_a_zip_file(tmp_path):
    root = Path(shelf.__file__).parent
    with zipfile.ZipFile(tmp_path / "k.zip", "w") as archive:
        for file in root.rglob("*.py"):
            archive.write(file, f"kinetograph/{file.relative_to(root)}")
    say = "import kinetograph.shelf as s; print(s.__file__, *s.ENGINES, s.WORLDS['circle'].FRAMES)"
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "k.zip")}
    out = subprocess.run([sys.executable, "-c", say], env=env, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "k.zip" in out.stdout
    assert "render" in out.stdout


@pytest.mark.parametrize("value", ["math:pi", "no_such_module_here", "json:no_such_name"])
def test_a_stranger_that_cannot_be_loaded_is_named_with_whoever_brought_it(fruit, monkeypatch, value):
    point = EntryPoint("stone", value, "kinetograph.fruit_shelf")
    monkeypatch.setattr(shelf, "entry_points", lambda *, group: [point])
    with pytest.raises(PluginError, match=r"the fruit 'stone' of another distribution") as error:
        fruit["stone"]
    assert value in error.value.hint
