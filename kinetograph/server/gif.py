"""A process of its own that writes a finished clip as a gif: `python -m kinetograph.server.gif FROM TO`."""

import sys
from pathlib import Path

from kinetograph.video import Video


def main(source: Path, target: Path) -> None:
    """Write the gif, of small clips four times enlarged, as the mp4 is."""
    video = Video.load(source)
    enlarge = video.provenance.enlarged if video.provenance else 1
    video.save(target, enlarge=enlarge, overwrite=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
