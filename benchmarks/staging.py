"""Where clips go wrong: true stills of held-out scenes set in motion, step by step with what the network tells.

    python benchmarks/staging.py flow --count 60

Each world draws held-out scenes; the still of one random moment becomes a clip again. `law` puts true layers together
along true courses: what is lost there no network can mend. `layers` are those that the network finds in the still,
along true courses; `courses` are those that the network samples for the sentence, with true layers; `both` is what
users get, but for the still. The figures are how many clips show everything that the sentence says. Below the table
stands what the wrong ones of `both` were to do, and how many principal components the courses of a subject have.
"""

import argparse
from collections import Counter
from typing import cast

import numpy as np
import torch
from torch import Tensor

from kinetograph import layers as names
from kinetograph.engines import flow as engine
from kinetograph.motions import times
from kinetograph.neural import animating, layers, pixels, seeing
from kinetograph.neural.device import noise
from kinetograph.neural.training import batches
from kinetograph.shelf import WORLDS

WAYS = ("law", "layers", "courses", "both")


def main() -> None:
    """Print a table."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("checkpoint")
    ask.add_argument("--count", type=int, default=60, help="scenes of each world")
    ask.add_argument("--guidance", type=float, default=animating.Settings().guidance)
    ask.add_argument("--steps", type=int, default=animating.Settings().steps)
    ask.add_argument("--worlds", default="circle,shapes,critters")
    said = ask.parse_args()
    seen = cast(seeing.Animated, engine.load(said.checkpoint, "cpu")._seen["float32"])
    settings = animating.Settings(guidance=said.guidance, steps=said.steps)
    print(f"| world | {' | '.join(WAYS)} |\n|---|{'---|' * len(WAYS)}")
    wrong = {}
    for name in said.worlds.split(","):
        asked, right = zip(*(judged(seen, settings, name, place) for place in range(said.count)), strict=True)
        shares = " | ".join(f"{100 * share:.0f} %" for share in np.mean(right, axis=0))
        print(f"| {name} | {shares} |", flush=True)
        wrong[name] = Counter(what for what, one in zip(asked, right, strict=True) if not one[-1])
    for name, counts in wrong.items():
        print(f"\n{name}, wrong: {', '.join(f'{what} {count}' for what, count in counts.most_common())}")
    spread = seen.network.courses.components[names.FIGURES[0]].spread
    print(f"\n{int((spread > 0.05).sum())} of {len(spread)} components of a subject's course spread by more than 0.05")


@torch.inference_mode()
def judged(seen: seeing.Animated, settings: animating.Settings, name: str, place: int) -> tuple[str, list[bool]]:
    """What is to be done in a scene, and whether its clips in all `WAYS` show what its sentence says."""
    world, rng = WORLDS[name], batches.source(21, 0, place)
    scene = world.sample(rng, split="heldout")
    caption, moment = world.caption(scene, rng, {}), np.array([[rng.random()]])
    picture, behind = (
        pixels.to_model(draw([scene], 1, 128, 128, xp=torch, moments=moment))[:, :, 0]
        for draw in (world.draw, world.behind)
    )
    then = torch.tensor(world.courses([scene], moment), dtype=torch.float32)[:, :, 0]
    mattes = world.mattes([scene], 1, 128, 128, moments=moment)[:, :, 0]
    shown = torch.from_numpy(names.visible(mattes, then[..., names.ORDER].numpy()))
    found = animating.staged(seen.network, picture, seen.ids([caption, ""]), seen.frames, given=False)
    true = staged(found, layers.Still(layers.coloured(picture, shown, behind), shown, behind), then)
    courses = torch.tensor(world.courses([scene], times(seen.frames)[None]), dtype=torch.float32)
    e = noise(21, place, shape=(1, len(names.LAYERS), seen.frames, len(layers.STEPS)))
    asked = world.parse(caption)

    def law(stage: animating.Staged) -> Tensor:
        facing = then[..., names.FACING].nan_to_num(1.0).sign()
        return layers.steps(courses, then, stage.seen.middles, facing).nan_to_num()

    clips = [
        true.clip(law(true)),
        found.clip(law(found)),
        true.clip(true.sample(e, settings)),
        found.clip(found.sample(e, settings)),
    ]
    read = [world.read(pixels.to_frames(clip)[0]) for clip in clips]
    what = next(asked[key] for key in ("relation", "action", "motion") if key in asked)
    return what.split(" ")[0], [all(one.get(key) == value for key, value in asked.items()) for one in read]


def staged(found: animating.Staged, still: layers.Still, then: Tensor) -> animating.Staged:
    """The same stage with true layers instead of found ones."""
    seen = layers.measured(still.mattes)
    seen = seen._replace(there=seen.there & then[..., names.X].isfinite())
    facing = then[..., names.FACING].nan_to_num(1.0).sign()
    nothing = torch.zeros(1, found.known.numbers.shape[2], dtype=torch.bool)
    middles = torch.zeros(*found.known.numbers.shape[:3], 2)
    return animating.Staged(found.network, found.said, still, seen, layers.known(seen, facing, nothing, middles))


if __name__ == "__main__":
    main()
