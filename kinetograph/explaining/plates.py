"""Pictures with numbers beside them, as frames of a clip: Pillow draws them, no plotting library is needed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kinetograph import media
from kinetograph.explaining import numbers
from kinetograph.media import INK, PAPER, Frames

if TYPE_CHECKING:
    from kinetograph.neural.sampling import Level

SIDE, PANEL, MARGIN, LINE = 256, 176, 12, 20  # pixels: height of the pictures, width of the panel, border, line of text
FAINT, STRONG = (185, 185, 185), (205, 60, 40)


def plate(pictures: Sequence[Frames], level: "Level", path: Sequence["Level"], words: str = "") -> Frames:
    """One frame: pictures (h, w, 3) in a row, the numbers of their level, and where it lies on its schedule's path."""
    shown = [media.enlarged(picture, max(1, SIDE // picture.shape[0])) for picture in pictures]
    high = max(SIDE, *(picture.shape[0] for picture in shown))
    wide = sum(picture.shape[1] + media.GAP for picture in shown)
    sheet = Image.new("RGB", (wide + PANEL, high), PAPER)
    left = 0
    for picture in shown:
        sheet.paste(Image.fromarray(picture), (left, 0))
        left += picture.shape[1] + media.GAP
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    for row, text in enumerate([*([words] if words else []), *numbers.lines(level)]):
        draw.text((left + MARGIN, MARGIN // 2 + row * LINE), text, INK, font=font)
    _draw_plane(draw, (left + MARGIN, high - MARGIN), level, path)
    return np.asarray(sheet)


def _draw_plane(draw: ImageDraw.ImageDraw, corner: tuple[int, int], level: "Level", path: Sequence["Level"]) -> None:
    """The plane of alpha (to the right) and sigma (up), the path of a schedule through it, and one level as a dot."""
    x, y = corner
    length = 96

    def place(one: "Level") -> tuple[float, float]:
        return x + length * one.alpha, y - length * min(one.sigma, 1.2)

    draw.line([(x, y - 1.2 * length), (x, y), (x + 1.2 * length, y)], FAINT)
    font = ImageFont.load_default(size=11)
    draw.text((x + 4, y - 1.25 * length), "sigma", FAINT, font=font)
    draw.text((x + 1.25 * length, y - 8), "alpha", FAINT, font=font)
    draw.line([place(one) for one in path], FAINT, width=2)
    draw.circle(place(level), 5, STRONG)
