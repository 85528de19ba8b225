"""Five pictures of one dog with a coat that no animal of the world has, for `kinetograph train dreambooth` to learn.

    python examples/dreambooth/draw.py

The pictures beside this file are what it draws.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from kinetograph.worlds import critters
from kinetograph.worlds.critters import drawing

HERE = Path(__file__).parent
TEAL = ((38, 170, 160), (255, 214, 92), (22, 116, 118), (10, 52, 56))  # body, belly and muzzle, far legs, lid
ACTIONS = ("walks", "runs", "sits", "jumps", "walks")
MOMENTS = (0.35, 0.5, 0.5, 0.5, 0.7)


def pictures(side: int = 128) -> np.ndarray:
    """The five pictures, uint8 (5, side, side, 3), each in another place."""
    drawing.COATS["teal"] = TEAL
    scenes = []
    for seed, (action, place) in enumerate(zip(ACTIONS, critters.ATTRIBUTES["place"], strict=True)):
        wanted = {"animal": "dog", "action": action, "place": place}
        scenes.append(replace(critters.sample(np.random.default_rng(seed), wanted), coat="teal"))
    return np.asarray(critters.draw(scenes, 1, side, side, moments=np.array(MOMENTS)[:, None]))[:, 0]


def main() -> None:
    """Write rex-1.png to rex-5.png."""
    for number, picture in enumerate(pictures(), start=1):
        Image.fromarray(picture).save(HERE / f"rex-{number}.png")


if __name__ == "__main__":
    main()
