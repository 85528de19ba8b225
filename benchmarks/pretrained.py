"""What our engine costs beyond the bare pipeline: the same tiny Wan, the same request, side by side.

    python benchmarks/pretrained.py --steps 50 --rounds 5

Both are loaded before the clock starts, and take turns. The engine tells of progress and makes the provenance.
"""

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "pretrained"))


def main() -> None:
    """Time both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--frames", type=int, default=17)
    said = parser.parse_args()
    import diffusers
    import tiny
    import torch

    from kinetograph.engine import describe, generate
    from kinetograph.neural.pretrained.pipelines import quiet

    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as home:
        folder = tiny.save("wan", Path(home) / "wan")
        with quiet():
            bare = diffusers.WanPipeline.from_pretrained(str(folder))
        bare.set_progress_bar_config(disable=True)
        size = {"width": said.side, "height": said.side}
        request = describe(f"pretrained:{folder}").request(
            "a red ball", seed=3, frames=said.frames, options={"steps": said.steps}, **size
        )

        def plain() -> None:
            bare(
                request.prompt,
                num_frames=said.frames,
                num_inference_steps=said.steps,
                generator=torch.Generator().manual_seed(3),
                **size,
            )

        def ours() -> None:
            generate(f"pretrained:{folder}", request, device="cpu")

        seconds: dict[str, list[float]] = {"bare pipeline": [], "our engine": []}
        for round_ in range(said.rounds + 1):
            for name, run in (("bare pipeline", plain), ("our engine", ours)):
                begin = time.process_time()
                run()
                if round_:  # the first is for warming up
                    seconds[name].append(time.process_time() - begin)
    print("| | seconds of the processor, median | least |\n| --- | --- | --- |")
    for name, every in seconds.items():
        print(f"| {name} | {statistics.median(every):.3f} | {min(every):.3f} |")
    more = statistics.median(b / a for a, b in zip(seconds["bare pipeline"], seconds["our engine"])) - 1
    print(f"\noverhead: {more:+.1%} (median of {said.rounds} pairs)")


if __name__ == "__main__":
    main()
