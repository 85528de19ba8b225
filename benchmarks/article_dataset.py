"""Writing a data set: ours beside the script of the article on moving circles, the same number of clips, side by side.

    python benchmarks/article_dataset.py --count 10000

The article's script is rebuilt from its description: white pictures of 64x64, ten frames a clip, an 11 pixel wide blue
disc, the prompt chosen at random for each clip, each frame a png in the clip's own folder beside a prompt.txt. What
differs from it: the pngs are written by Pillow, where the article used OpenCV, which is no dependency of ours (writing
them to memory takes Pillow under a tenth of a millisecond each, so the file system decides either way). Its defects are
kept: rotating discs are drawn on a discarded picture, so those clips are blank, and the script writes everything twice,
the second pass over the first. One pass is measured as well: what the same code would take without that slip.

Ours is what `kinetograph dataset circle` does, from the first shard to the manifest, contact sheet, digests and start
of processes included: clips of 64x64 and ten frames too, each an npz and a json in a tar file, the npz an index and a
palette whose `palette[index]` are the frames exactly. Both are timed until the disk has them. The article's script is
one process, as it was written; ours is shown as one process and as the command runs, on every processor. Compare what
one run prints, on a machine that does nothing else.
"""

import argparse
import hashlib
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from kinetograph import dataset

SIZE, FRAMES, STEP, RADIUS = 64, 10, 5, 5
Law = Callable[[int], tuple[int, int]]
CENTRE = SIZE // 2


def _straight(x: int, y: int) -> Law:
    return lambda f: ((CENTRE + x * STEP * f) % SIZE, (CENTRE + y * STEP * f) % SIZE)


def _zigzag(f: int) -> int:
    return (
        CENTRE - STEP * f if f % 2 == 0 else CENTRE + STEP * f
    )  # leaves the picture towards the end: it does not wrap


PROMPTS: dict[str, Law] = {
    "circle moving down": _straight(0, 1),
    "circle moving left": _straight(-1, 0),
    "circle moving right": _straight(1, 0),
    "circle moving diagonally up-right": _straight(1, -1),
    "circle moving diagonally down-left": _straight(-1, 1),
    "circle moving diagonally up-left": _straight(-1, -1),
    "circle moving diagonally down-right": _straight(1, 1),
    "circle rotating clockwise": _straight(0, 0),
    "circle rotating counter-clockwise": _straight(0, 0),
    "circle bouncing vertically": lambda f: (CENTRE, CENTRE - abs(STEP * f - CENTRE)),
    "circle bouncing horizontally": lambda f: (CENTRE - abs(STEP * f - CENTRE), CENTRE),
    "circle zigzagging vertically": lambda f: (CENTRE, _zigzag(f)),
    "circle zigzagging horizontally": lambda f: (_zigzag(f), CENTRE),
    "circle moving up-left": _straight(-1, -1),
    "circle moving down-right": _straight(1, 1),
    "circle moving down-left": _straight(-1, 1),
}


def picture(prompt: str, frame: int) -> Image.Image:
    """One frame as the article's notebook draws it, the lost discs of the rotations included."""
    image = Image.new("RGB", (SIZE, SIZE), "white")
    draw = ImageDraw.Draw(image)
    x, y = PROMPTS[prompt](frame)
    if "rotating" in prompt:
        image = image.rotate(10 * frame * (1 if "counter" not in prompt else -1), fillcolor="white")
    draw.ellipse([x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS], fill=(0, 0, 255))
    return image


def write_article(count: int, out: Path) -> None:
    """One pass of the article's script: a folder a clip, made if it is not there."""
    for number in range(count):
        prompt = random.choice(list(PROMPTS))
        folder = out / f"video_{number}"
        os.makedirs(folder, exist_ok=True)
        for frame in range(FRAMES):
            picture(prompt, frame).save(folder / f"frame_{frame}.png")
        (folder / "prompt.txt").write_text(prompt)


def write_twice(count: int, out: Path) -> None:
    """The article's script as it was published: the second pass draws new prompts and overwrites the first."""
    write_article(count, out)
    write_article(count, out)


@dataclass(frozen=True)
class Result:
    """What one way of writing took and gave."""

    name: str
    seconds: float
    bytes: int
    files: int
    distinct: int
    count: int

    @property
    def speed(self) -> float:
        """Clips a second."""
        return self.count / self.seconds


def measure(name: str, count: int, write: Callable[[Path], object], distinct: Callable[[Path], int]) -> Result:
    """Time `write` into a fresh folder, the flush to the disk included, and look at what it left."""
    out = Path(tempfile.mkdtemp(prefix="kinetograph-benchmark-"))
    try:
        os.sync()
        start = time.perf_counter()
        write(out)
        os.sync()
        seconds = time.perf_counter() - start
        files = [path for path in out.rglob("*") if path.is_file()]
        return Result(name, seconds, sum(path.stat().st_size for path in files), len(files), distinct(out), count)
    finally:
        shutil.rmtree(out)


def distinct_folders(out: Path) -> int:
    """How many different clips there are among folders of png: by the bytes of their pngs, all of one encoder."""
    return len({b"".join(_digest(path.read_bytes()) for path in sorted(clip.glob("*.png"))) for clip in out.iterdir()})


def distinct_samples(out: Path) -> int:
    """How many different clips there are in a data set of ours: by their pixels."""
    return len({_digest(sample.frames.tobytes()) for sample in dataset.load(out)})


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def ours(name: str, count: int, format: str, workers: int | None = None) -> Result:
    """Measure our own writer."""
    return measure(
        name, count, lambda out: dataset.write("circle", count, out, format=format, workers=workers), distinct_samples
    )


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="clips in each data set")
    parser.add_argument("--mp4-count", type=int, default=200, help="clips in the mp4 data set, which is slow to write")
    count, mp4_count = (vars(parser.parse_args())[name] for name in ("count", "mp4_count"))
    once = measure("article, one pass", count, lambda out: write_article(count, out), distinct_folders)
    article = measure("article, as published", count, lambda out: write_twice(count, out), distinct_folders)
    rows = [article, once, ours("kinetograph, npz, one process", count, "npz", 1)]
    rows += [ours("kinetograph, npz", count, "npz"), ours("kinetograph, mp4", mp4_count, "mp4")]
    titles = f"{'clips':>8}{'clips/s':>10}{'ratio':>8}{'to one pass':>13}{'bytes/clip':>12}{'files':>8}{'distinct':>10}"
    print(f"{'':32}{titles}")
    for row in rows:
        ratios = f"{row.speed / article.speed:7.1f}x{row.speed / once.speed:12.1f}x"
        figures = f"{row.count:8}{row.speed:10.0f}{ratios}{row.bytes / row.count:12.0f}"
        print(f"{row.name:32}{figures}{row.files:8}{row.distinct:10}")


if __name__ == "__main__":
    main()
