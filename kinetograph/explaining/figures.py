"""Figures with axes. matplotlib draws them, without a display; it is an extra and imported here alone, late."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinetograph import files
from kinetograph.errors import CannotWrite

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
}


def check() -> None:
    """Refuse before the work what could not be drawn after it. Raises CannotWrite."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        hint = "pip install matplotlib; it comes with this package's extra 'explain'"
        raise CannotWrite("curves are drawn by matplotlib, which is not installed", hint=hint) from error


@contextmanager
def figure(path: Path, width: float, height: float) -> Iterator["Figure"]:
    """An empty figure (inches), written as a png when the block ends well. Raises CannotWrite."""
    check()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        drawn = Figure(figsize=(width, height), dpi=120, layout="constrained")
        yield drawn
        content = io.BytesIO()
        drawn.savefig(content, format="png")
    files.write(path, content.getvalue())
