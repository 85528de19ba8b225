"""ControlNets as companions of a picture model: how one begins, learns from control pictures, draws and is written."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from kinetograph.neural.pictures import families, writing
from kinetograph.neural.pictures.folder import Pictures
from kinetograph.neural.pictures.words import Words
from kinetograph.neural.sampling import Levels
from kinetograph.neural.training import truths
from kinetograph.neural.zeroshot import controlling, loop

HINTS = (8, 24, 48, 96, 192)  # channels of what is shown to a ControlNet, on its way down to the latents' cells


@dataclass(frozen=True)
class ControlNets:
    """Those that are shown one kind of control picture."""

    kind: str

    @property
    def what(self) -> str:
        """One of them, for its card."""
        return f"A ControlNet for {self.kind} pictures"

    @property
    def part(self) -> str:
        """Its weights lie in its folder itself."""
        return ""

    def draw(
        self, shares: Mapping[str, float], seed: int, step: int, where: range, size: int, device: torch.device
    ) -> truths.Stills:
        """What is learnt from at these places of a step."""
        return truths.controlled(self.kind, shares, seed, step, where, size, device)

    def begin(self, pictures: Pictures, slim: bool) -> nn.Module:
        """A ControlNet that begins as the model's own way down, and says nothing yet; `slim` leaves attention out."""
        from diffusers import ControlNetModel

        channels = HINTS[: int(np.log2(pictures.cell)) + 1]
        net = ControlNetModel.from_unet(pictures.network, conditioning_embedding_out_channels=channels)
        if not slim:
            return net
        plain = {
            "down_block_types": ["DownBlock2D"] * len(net.config.block_out_channels),
            "mid_block_type": "UNetMidBlock2D",
        }
        small = ControlNetModel.from_config({**net.config, **plain})
        own = small.state_dict()
        small.load_state_dict({name: net.state_dict().get(name, tensor) for name, tensor in own.items()})
        return small

    def seen(self, pictures: Pictures, shown: Tensor, blind: Tensor) -> Tensor:
        """What it sees of control pictures (n, 3, h, w) uint8: all of them, in [0, 1]."""
        return shown.float() / 255

    def said(self, model: nn.Module, own: Callable[..., Any], x: Tensor, shown: Tensor, told: dict[str, Any]) -> Tensor:
        """What the model says of noised latents with its help."""
        down, middle = own(x, **told, controlnet_cond=shown)
        more = {controlling.DOWN: down, controlling.MIDDLE: middle}
        return cast(Tensor, model(x, **told, **more)[0])

    def drawing(
        self, pictures: Pictures, network: nn.Module, shown: Tensor, words: Words, wordless: Words, levels: Levels
    ) -> tuple[nn.Module, loop.Predict, list[tuple[float, Words]]]:
        """How pictures are drawn with its help: the network that says what latents are, what is asked, and in which
        groups."""
        guide = controlling.Guide(network, shown.cpu())
        predict = controlling.controlled(
            pictures.predict, [guide], levels, pictures.time, lambda told: families.asked(pictures.family, told)
        )
        return pictures.network, predict, loop.guided(words, wordless, 3.0)

    def write(self, folder: Path, net: nn.Module, source: Path, whole: bool) -> list[Path]:
        """Write it as diffusers reads it, its files in the folder itself; return them."""
        aside = folder / ".network"
        writing.write_part(aside, net, torch.float16)
        written = [folder / path.name for path in sorted(aside.iterdir())]
        for path in written:
            os.replace(aside / path.name, path)
        aside.rmdir()
        return written
