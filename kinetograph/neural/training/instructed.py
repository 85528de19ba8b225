"""Models of edits as companions of a picture model (InstructPix2Pix, Brooks et al. 2023): how one begins, learns from
pairs of pictures, draws and is written."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from kinetograph import files, hub
from kinetograph.neural import pixels
from kinetograph.neural.pictures import sharing, writing
from kinetograph.neural.pictures.folder import Pictures
from kinetograph.neural.pictures.words import Words
from kinetograph.neural.sampling import Levels
from kinetograph.neural.training import truths
from kinetograph.neural.zeroshot import editing, loop


@dataclass(frozen=True)
class Editors:
    """Those that are told what to change in a picture."""

    @property
    def what(self) -> str:
        """One of them, for its card."""
        return "An InstructPix2Pix UNet"

    @property
    def part(self) -> str:
        """Its weights are those of a UNet in a folder of their own."""
        return "unet"

    def draw(
        self, shares: Mapping[str, float], seed: int, step: int, where: range, size: int, device: torch.device
    ) -> truths.Stills:
        """What is learnt from at these places of a step."""
        return truths.edited(shares, seed, step, where, size, device)

    def begin(self, pictures: Pictures, slim: bool) -> nn.Module:
        """The model's UNet with as many channels again, which it does not heed yet."""
        from diffusers import UNet2DConditionModel

        net = UNet2DConditionModel.from_config({**pictures.network.config, "in_channels": 2 * pictures.channels})
        state = dict(pictures.network.state_dict())
        first = state["conv_in.weight"]
        state["conv_in.weight"] = torch.cat([first, torch.zeros_like(first)], dim=1)
        net.load_state_dict(state)
        return net

    def seen(self, pictures: Pictures, shown: Tensor, blind: Tensor) -> Tensor:
        """What it sees of the pictures before an edit, (n, 3, h, w) uint8: their latents; nothing where it is blind
        (n,)."""
        latents = pictures.encode(pixels.signed(shown), chunk=64, plain=True)
        return torch.where(blind[:, None, None, None], 0, latents)

    def said(self, model: nn.Module, own: Callable[..., Any], x: Tensor, shown: Tensor, told: dict[str, Any]) -> Tensor:
        """What it says of noised latents beside the latents that it is shown."""
        return cast(Tensor, own(torch.cat([x, shown], dim=1), **told)[0])

    def drawing(
        self, pictures: Pictures, network: nn.Module, shown: Tensor, words: Words, wordless: Words, levels: Levels
    ) -> tuple[nn.Module, loop.Predict, list[tuple[float, Words]]]:
        """How pictures are edited: the network that says what latents are, what is asked, and in which groups."""
        latents = self.seen(pictures, shown, torch.zeros(len(shown), dtype=torch.bool, device=shown.device))
        return network, pictures.predict, editing.instructed(words, wordless, latents, 5.0, 1.5)

    def write(self, folder: Path, net: nn.Module, source: Path, whole: bool) -> list[Path]:
        """Write its UNet and the other parts as they were or, shared, the name of the model in `source` that has them;
        return the files."""
        target = folder / "unet"
        writing.write_part(target, net, torch.float16)
        index = json.loads((source / hub.INDEX).read_text(encoding="utf-8"))
        index["_class_name"] = "StableDiffusionInstructPix2PixPipeline"
        written = [*target.iterdir(), folder / hub.INDEX]
        if not whole:
            sharing.write(folder, index, source, ["unet"])
            return [*written, folder / sharing.FILE]
        for part in hub.parts(index):
            if part != "unet" and not (folder / part).exists():
                writing.copy_part(source / part, folder / part)
        files.write(folder / hub.INDEX, json.dumps(index, indent=2) + "\n")
        return [*written, *folder.glob("*/*.safetensors")]
