"""Where clips go wrong: true stills of held-out scenes set in motion, step by step with what the network tells.

    python benchmarks/staging.py flow --count 60

Each world draws held-out scenes; the still of one random moment becomes a clip again. `law` puts true layers together
along true courses: what is lost there no network can mend. `layers` are those that the network finds in the still,
along true courses; `courses` are those that the network samples for the sentence, with true layers; `both` is what
comes of a still that is given but may stand elsewhere; `drawn` is what users get. The figures are how many clips show
everything that the sentence says. Below the table stands what the wrong ones of `drawn` were to do, and how many
principal components the courses of a subject have.
"""

import argparse
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor

from kinetograph import layers as names
from kinetograph.engines import flow as engine
from kinetograph.motions import times
from kinetograph.neural import animating, flow, layers, pixels, seeing
from kinetograph.neural.device import noise
from kinetograph.neural.models import layered
from kinetograph.neural.models.layered import taken_apart
from kinetograph.neural.training import batches
from kinetograph.shelf import WORLDS

WAYS = ("law", "layers", "courses", "both", "drawn")


def main() -> None:
    """Print a table."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("checkpoint")
    ask.add_argument("--count", type=int, default=60, help="scenes of each world")
    ask.add_argument("--guidance", type=float, default=animating.COURSES.guidance)
    ask.add_argument("--steps", type=int, default=animating.COURSES.steps)
    ask.add_argument("--worlds", default="circle,shapes,critters")
    said = ask.parse_args()
    seen = cast(seeing.Layered, engine.load(said.checkpoint, "cpu")._seen["float32"])
    settings = replace(animating.COURSES, guidance=said.guidance, steps=said.steps)
    print(f"| world | {' | '.join(WAYS)} |\n|---|{'---|' * len(WAYS)}")
    wrong = {}
    for name in said.worlds.split(","):
        asked, right = zip(*(judged(seen, settings, name, place) for place in range(said.count)), strict=True)
        shares = " | ".join(f"{100 * share:.0f} %" for share in np.mean(right, axis=0))
        print(f"| {name} | {shares} |", flush=True)
        wrong[name] = Counter(what for what, one in zip(asked, right, strict=True) if not one[-1])
    for name, counts in wrong.items():
        print(f"\n{name}, wrong: {', '.join(f'{what} {count}' for what, count in counts.most_common())}")
    spread = seen.model.courses.components[names.FIGURES[0]].spread
    print(f"\n{int((spread > 0.05).sum())} of {len(spread)} components of a subject's course spread by more than 0.05")


@torch.inference_mode()
def judged(seen: seeing.Layered, settings: flow.Settings, name: str, place: int) -> tuple[str, list[bool]]:
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
    frames, ids = seen.model.config.frames, seen.ids([caption, ""])
    still, facing = taken_apart(picture, seen.model.find(picture, ids[:1]))
    found = staged(seen.model, ids, still, layers.measured(still.mattes), facing)
    then_facing = then[..., names.FACING].nan_to_num(1.0).sign()
    here = layers.measured(shown)
    here = here._replace(there=here.there & then[..., names.X].isfinite())
    true = staged(
        seen.model, ids, layers.Still(layers.coloured(picture, shown, behind), shown, behind), here, then_facing
    )
    drawn = animating.drawn(seen.model, ids, frames, (128, 128), partial(chance, place))
    courses = torch.tensor(world.courses([scene], times(frames)[None]), dtype=torch.float32)
    e = noise(21, place, shape=(1, len(names.LAYERS), frames, len(layers.STEPS)))
    asked = world.parse(caption)

    def law(seen: layers.Seen) -> Tensor:
        return layers.steps(courses, then, seen.middles, then_facing).nan_to_num()

    clips = [
        true.clip(law(here)),
        found.clip(law(layers.measured(still.mattes))),
        *(stage.clip(stage.sample(e, settings)) for stage in (true, found, drawn)),
    ]
    read = [world.read(pixels.to_frames(clip)[0]) for clip in clips]
    what = next(asked[key] for key in ("relation", "action", "motion") if key in asked)
    return what.split(" ")[0], [all(one.get(key) == value for key, value in asked.items()) for one in read]


def staged(
    model: layered.Model, ids: Tensor, still: layers.Still, seen: layers.Seen, facing: Tensor
) -> animating.Staged:
    """Layers of a still that need not stand where it shows them."""
    count = model.config.frames
    nothing, middles = torch.zeros(1, count, dtype=torch.bool), torch.zeros(1, len(names.LAYERS), count, 2)
    known = layers.known(seen, facing, nothing, middles)
    return animating.Staged(model.courses, model.read(ids), animating.Given(still, seen), known)


def chance(place: int, *shape: int) -> Tensor:
    """The noise by which layers are drawn."""
    return noise(21, place, 1, shape=shape)


if __name__ == "__main__":
    main()
