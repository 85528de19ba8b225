"""An autoencoder of pictures: what the pocket model's diffusion takes place in (Rombach et al. 2022).

It learns to tell a picture by one point for each cell of eight pixels square, and to draw it again. The worlds are flat
and their outlines sharp: beside the colours it is asked for their differences between neighbours. Latents are drawn
with a little noise and held near a normal distribution (Kingma & Welling 2014), so that a point nearby draws nearly the
same.

Left alone it tells a flat picture by latents that look like noise, in which diffusion loses small figures first. So
the first three latents are the picture itself, a cell to a pixel; what the others add is small, and noise covers it
before.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from kinetograph import files, media, weights
from kinetograph.neural import pixels
from kinetograph.neural.device import channels_last, noise
from kinetograph.neural.pictures import folder as loading
from kinetograph.neural.pictures import pocket, writing
from kinetograph.neural.training import batches, optimisers, run, stills
from kinetograph.neural.training.average import Average
from kinetograph.neural.training.rounding import rounded
from kinetograph.shelf import WORLDS

LOOKS = 64  # pictures by which the spread of latents is measured
SMALL = 3  # latents that are the picture itself, a cell to a pixel
# Its brightness, blue to red, and magenta to green, each with a spread of 1 in the worlds' pictures; and their means.
OPPONENT = ((0.8, 0.8, 0.8), (1.9, 0.0, -1.9), (-2.0, 4.0, -2.0))
MEAN = (0.77, -0.42, 0.0)


@dataclass(frozen=True, kw_only=True)
class Recipe(run.Recipe):
    """Everything that a run depends on; `worlds` maps each to its share. Of `batch` scenes, `moments` pictures each."""

    worlds: dict[str, float]
    model: str = "pocket"
    size: int = 128
    moments: int = 2
    rate: float = 1e-3
    start: str = ""  # whose weights this one begins with, instead of chance: a run's folder, or a name of the package
    decoder: bool = False  # alone learns: latents stay what they are, for models that were trained in them
    latent_noise: float = 0.0  # that is added, up to so much: what a network has drawn is not quite what is encoded
    outlines: float = 0.5  # weight of the differences between neighbours
    detail: float = 20.0  # how much more counts what lies where neighbours differ: figures, not the sky
    small: float = 0.3  # weight of the first latents' being the picture, a cell to a pixel
    normal: float = 2e-3  # weight of how far latents are from a normal distribution, each
    spread: float = 0.5  # of that distribution, for all latents but the first
    average: float = 0.998  # decay of the weights that are kept

    def train(self, folder: Path, **how: Any) -> None:
        """Run this recipe in a folder: see `run.train`."""
        run.train(Trainer, self, folder, **how)


class Network(nn.Module):
    """Pictures (n, 3, h, w), noise of the latents' shape, and how much of it is added to their own (n, 1, 1, 1) -> the
    pictures drawn again, the latents' means, and the logarithms of their variances."""

    def __init__(self, coder: Any) -> None:
        super().__init__()
        self.coder = coder

    def forward(self, pictures: Tensor, e: Tensor, added: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        told = self.coder.encode(pictures).latent_dist
        return self.coder.decode(told.mean + (told.std + added) * e).sample, told.mean, told.logvar


class Trainer(run.Trainer):
    """The autoencoder, its optimiser and the kept average."""

    recipe: Recipe

    def __init__(self, recipe: Recipe, where: torch.device, processes: run.Processes) -> None:
        self.recipe, self.where, self.processes = recipe, where, processes
        self.kind = recipe.numbers(where)
        self.worlds: dict[str, ModuleType] = {name: WORLDS[name] for name in recipe.worlds}
        torch.manual_seed(recipe.seed)  # the same first weights in every process
        start = recipe.start and Path(weights.path_of(recipe.start))
        self.network = Network(load(start) if start else pocket.autoencoder(recipe.model))
        self.network.to(where)
        if recipe.decoder:
            self.network.coder.encoder.requires_grad_(False)
            self.network.coder.quant_conv.requires_grad_(False)
        channels_last(self.network)
        self.average = Average(self.network, recipe.average)
        self.optimisers = optimisers.of([self.network], recipe.rate)

    @property
    def parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Everything that the next step depends on, by name."""
        return {"network": self.network, "average": self.average.model, **optimisers.numbered(self.optimisers)}

    def kept(self) -> nn.Module:
        """The averaged autoencoder."""
        return self.average.model

    def step(self, step: int) -> dict[str, float]:
        """Take step `step` (counted from 1) and return its figures."""
        run.set_rate(self.optimisers, self.recipe, step)
        true = self._draw(step)
        recipe = self.recipe
        found, mean, logvar = self._drawn_again(true, step)
        colours, outlines = off(found, true, recipe.detail)
        small = (mean[:, :SMALL] - seen_small(true)).square().mean()
        normal = divergence(mean, logvar, recipe.spread)
        loss = colours + recipe.outlines * outlines + recipe.small * small + recipe.normal * normal
        optimisers.descend(loss, self.optimisers, self.processes, [self.network], self.network)
        self.average.follow(self.network, step)
        figures = {"loss": loss, "colours": colours, "outlines": outlines, "small": small, "normal": normal}
        return {name: float(value.detach()) for name, value in figures.items()}

    def _draw(self, step: int) -> Tensor:
        """The pictures of this process at this step."""
        recipe = self.recipe
        where = batches.places(recipe.batch, self.processes.rank, self.processes.ranks)
        sizes = (recipe.moments, recipe.size)
        found = stills.draw(self.worlds, recipe.worlds, recipe.seed, step, where, *sizes, self.where)
        return pixels.signed(found.pictures)

    def _drawn_again(self, true: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """What the network makes of pictures, computed with numbers of one kind; what learns stays in float32."""
        where = batches.places(self.recipe.batch, self.processes.rank, self.processes.ranks)
        shape = (self.recipe.moments, self._channels, *(side // pocket.CELL for side in true.shape[2:]))
        e = torch.cat([noise(self.recipe.seed, step, place, shape=shape) for place in where]).to(self.where, self.kind)
        seen = true.to(self.kind).contiguous(memory_format=torch.channels_last)
        chances = [batches.source(self.recipe.seed + 1, step, place).random(self.recipe.moments) for place in where]
        added = self.recipe.latent_noise * torch.from_numpy(np.concatenate(chances))[:, None, None, None].to(e)
        found, mean, logvar = functional_call(self.network, rounded(self.network, self.kind), (seen, e, added))
        return found.float(), mean.float(), logvar.float()

    @property
    def _channels(self) -> int:
        return int(pocket.AUTOENCODERS[self.recipe.model]["latent_channels"])

    def draw_samples(self, path: Path, kept: nn.Module) -> None:
        """A contact sheet: pictures of scenes that training never sees, above what is drawn again of them."""
        true = self._unseen(8)
        with torch.no_grad():
            coder = cast(Network, kept).coder
            found = coder.decode(coder.encode(true).latent_dist.mean).sample
        rows = [pixels.to_frames(some[:, :, None])[:, 0] for some in (true, found)]
        media.write_contact_sheet(path, rows, ["drawn by the world", "drawn again"], scale=1)

    def _unseen(self, count: int) -> Tensor:
        """Pictures (count, 3, h, w) of held-out scenes of every world in turn, always the same ones."""
        names, found = list(self.worlds), []
        for place in range(count):
            world, rng = self.worlds[names[place % len(names)]], batches.source(7, 0, place)
            scene = world.sample(rng, split="heldout")
            clip = world.draw([scene], 3, self.recipe.size, self.recipe.size, xp=torch, device=self.where)
            found.append(pixels.to_model(clip)[0, :, 1])
        return torch.stack(found)

    def save_checkpoint(self, folder: Path, kept: nn.Module, history: dict[str, Any]) -> None:
        """Write the kept autoencoder in diffusers' format, with the measure of its latents, and how it was made."""
        coder = cast(Network, kept).coder
        if not self.recipe.decoder:
            with torch.no_grad():
                latents = coder.encode(self._unseen(LOOKS)).latent_dist.mean
            coder.register_to_config(scaling_factor=round(1 / float(latents.std()), 4))
        writing.write_part(folder / "vae", coder, torch.float16 if self.recipe.bfloat16 else torch.float32)
        files.write(folder / "made.json", json.dumps({"recipe": asdict(self.recipe)} | history, indent=2) + "\n")


def off(found: Tensor, true: Tensor, detail: float) -> tuple[Tensor, Tensor]:
    """How far pictures (n, 3, h, w) are from the true ones on average: in colours, and in the differences between
    neighbours across and down. `detail` adds to the weight of what lies in lively surroundings."""
    wrong = found - true
    weight = 1 + detail * liveliness(true)
    across, down = wrong.diff(dim=3).abs() * weight[..., 1:], wrong.diff(dim=2).abs() * weight[:, :, 1:]
    return (wrong.abs() * weight).mean(), (across.mean() + down.mean()) / 2


def seen_small(pictures: Tensor) -> Tensor:
    """Pictures (n, 3, h, w) a cell to a pixel, in opponent colours: (n, 3, h / 8, w / 8)."""
    cells = F.avg_pool2d(pictures, pocket.CELL)
    turned = torch.einsum("oc,nchw->nohw", torch.tensor(OPPONENT, device=cells.device), cells)
    return turned - torch.tensor(MEAN, device=cells.device)[:, None, None]


def divergence(mean: Tensor, logvar: Tensor, spread: float) -> Tensor:
    """How far latents (n, c, h, w) are on average from a normal distribution: of spread 1 for the first SMALL, of
    `spread` for the others."""
    scale = torch.full((mean.shape[1], 1, 1), spread, device=mean.device)
    scale[:SMALL] = 1.0
    relative = logvar - 2 * scale.log()
    return ((mean / scale).square() + relative.exp() - 1 - relative).mean() / 2


def liveliness(pictures: Tensor, around: int = 9) -> Tensor:
    """How much neighbours differ around each pixel of pictures (n, 3, h, w) on average: (n, 1, h, w)."""
    across = F.pad(pictures.diff(dim=3).abs(), (0, 1))
    down = F.pad(pictures.diff(dim=2).abs(), (0, 0, 0, 1))
    return F.avg_pool2d((across + down).mean(1, keepdim=True), around, 1, around // 2, count_include_pad=False)


def load(folder: Path) -> Any:
    """The autoencoder that a run left in a folder. Raises WeightsError."""
    from diffusers import AutoencoderKL

    with loading.understood(folder), loading.quiet():
        return AutoencoderKL.from_pretrained(folder / "vae", local_files_only=True)
