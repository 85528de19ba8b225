"""What lies in examples/ is what its scripts make."""

import runpy
from pathlib import Path

import numpy as np

from kinetograph import media
from kinetograph.worlds.critters import drawing

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_pictures_of_the_dog_are_what_their_script_draws(monkeypatch):
    monkeypatch.setattr(drawing, "COATS", dict(drawing.COATS))
    drawn = runpy.run_path(str(EXAMPLES / "dreambooth" / "draw.py"))["pictures"]()
    files = sorted((EXAMPLES / "dreambooth").glob("*.png"))
    assert len(files) == len(drawn) == 5
    for path, picture in zip(files, drawn, strict=True):
        assert np.array_equal(media.read_frames(path)[0], picture)
