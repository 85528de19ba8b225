"""DreamBooth: a model of pictures learns one thing from a handful of them, under a word that meant nothing before.

Each step shows the model noised pictures of the thing with its sentence, "a photo of sks dog", and, so that it does not
forget what dogs are, as many of its own pictures of the kind with theirs, "a photo of a dog": prior preservation (Ruiz
et al. 2022, eq. 2). Either the whole UNet learns, and a whole model is written; or only matrices of low rank beside its
attention (LoRA, Hu et al. 2021), and a small file is written that any such model can load.

Noise, times and crops are keyed by seed, step and place, so that a run that was stopped goes on exactly.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from kinetograph import files, hub, media, weights
from kinetograph.errors import Interrupted, TrainingError, WeightsError
from kinetograph.neural import checkpoint, pixels, sampling
from kinetograph.neural.device import choose, noise
from kinetograph.neural.pictures import families, words, writing
from kinetograph.neural.pictures import folder as loading
from kinetograph.neural.pictures.families import FAMILIES
from kinetograph.neural.pictures.folder import Pictures
from kinetograph.neural.training import batches, handful, run
from kinetograph.neural.training.learnt import Learnt
from kinetograph.neural.zeroshot import loop

LORA = "pytorch_lora_weights.safetensors"  # the name that diffusers looks for
MADE = "made.json"
TAUGHT = {FAMILIES[name].pipeline: name for name in ("sd", "sdxl")}
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")  # which layers get a matrix of low rank


@dataclass(frozen=True, kw_only=True)
class Recipe(run.Recipe):
    """What is learnt from what. Of `batch` pictures of the thing, and as many of its kind where there is a
    `prior_prompt`, each step is made; `rank` 0 teaches the whole UNet.
    """

    model: str = ""  # a text-to-image model in diffusers' format: its folder, its hub id or its name in the package
    images: str = ""  # the folder with pictures of the thing
    prompt: str = ""  # a sentence with a word that means nothing yet
    prior_prompt: str = ""  # the same without it; "" is without prior preservation
    prior_images: str = ""  # a folder with pictures of the kind; "" has the model make them
    prior_count: int = 100
    prior_weight: float = 1.0
    size: int = 512  # of the square that is cut out of each picture
    mirrored: bool = False  # half of the time, where left and right do not matter
    rank: int = 0
    words: bool = False  # whether the text encoder learns, too; only where the whole UNet does
    checkpointing: bool = False  # recompute instead of remember: a third slower, far less memory
    images_sha256: str = ""
    model_sha256: str = ""

    def train(self, folder: Path, **how: Any) -> None:
        """Run this recipe in a folder: see `run.train`. Pictures of the kind are made first, beside that folder."""
        recipe = self.settled(folder)
        if recipe.prior_prompt:
            make_prior(recipe, how.get("device", "auto"))
        run.train(Trainer, recipe, folder, **how)

    def settled(self, folder: Path) -> "Recipe":
        """The recipe with everything found that it names, and its sums. Raises TrainingError and WeightsError."""
        _refuse_incomplete(self)
        model = found(self.model).path
        images = Path(self.images).expanduser().resolve()
        prior = Path(self.prior_images).expanduser() if self.prior_images else folder.with_name(f"{folder.name}-prior")
        return replace(
            self,
            model=str(model),
            model_sha256=hub.digest(model),
            images=str(images),
            images_sha256=handful.sum_of(handful.pictures(images)),
            prior_images=str(prior.resolve()) if self.prior_prompt else "",
        )


def _refuse_incomplete(recipe: Recipe) -> None:
    missing = [name for name in ("model", "images", "prompt") if not getattr(recipe, name)]
    if missing:
        hint = "for example --set model=models/sd --set images=pictures/rex --set 'prompt=a photo of sks dog'"
        raise TrainingError(f"the recipe does not say its {' nor its '.join(missing)}", hint=hint)
    if recipe.size % 8 or recipe.size < 64:
        near = max(64, round(recipe.size / 8) * 8)
        raise TrainingError(f"a size of {recipe.size} is no multiple of 8 from 64 on", hint=f"nearest: {near}")
    if recipe.rank < 0 or (recipe.rank and recipe.words):
        hint = "rank 0 teaches the whole network; a rank above 0 leaves the text encoder alone"
        raise TrainingError(f"a rank of {recipe.rank} with words={str(recipe.words).lower()} cannot be", hint=hint)
    if recipe.words and recipe.rank == 0 and found(recipe.model).pipeline != FAMILIES["sd"].pipeline:
        raise TrainingError("only a model with one text encoder can have it taught", hint="leave words=false")
    if recipe.prior_prompt == recipe.prompt:
        raise TrainingError("the sentence of the thing is that of its kind", hint="put a rare word into the first")


# ---- the model


def found(reference: str) -> hub.Model:
    """A model that can be taught, by its folder, its hub id or its name in the package, with weights that open. Raises
    WeightsError."""
    model = hub.locate(weights.path_of(reference))
    if model.pipeline not in TAUGHT:
        hint = f"DreamBooth teaches a {' or '.join(TAUGHT)}"
        raise WeightsError(f"{model.path} is {model.pipeline or 'no text-to-image model'}", hint=hint)
    for path in sorted(model.path.glob("*/*.safetensors")):
        try:
            safe_open(path, "pt").__exit__(None, None, None)
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{path} is damaged", hint=f"fetch it again: {error}") from error
    return model


def load(reference: str, where: torch.device) -> Pictures:
    """That model, in float32. Raises WeightsError."""
    model = found(reference)
    return loading.load(model.path, TAUGHT[model.pipeline], "float32", where, model.variant)


# ---- pictures of the kind


def make_prior(recipe: Recipe, device: str) -> None:
    """Have the model make the pictures of the kind that are still missing in `prior_images`.

    Raises Interrupted after a Ctrl-C: the pictures made so far stay, and the same command makes the others.
    """
    folder = Path(recipe.prior_images)
    made = {"prompt": recipe.prior_prompt, "model_sha256": recipe.model_sha256, "size": recipe.size}
    if folder.is_dir() and not (folder / MADE).exists() and any(folder.iterdir()):
        return  # the user's own
    names = [f"{index:05d}.png" for index in range(recipe.prior_count)]
    missing = [name for name in names if not (folder / name).exists()]
    if (folder / MADE).exists() and json.loads((folder / MADE).read_text()) != made:
        hint = "remove them, or name another folder with --set prior_images=FOLDER"
        raise TrainingError(f"the pictures in {folder} were made by another model or sentence", hint=hint)
    if missing and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        hint = "run the same command once without torchrun until they are made"
        raise TrainingError(f"{len(missing)} pictures of the kind are missing in {folder}", hint=hint)
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        files.write(folder / MADE, json.dumps(made) + "\n")
        _draw_missing(recipe, folder, missing, choose(device))


def _draw_missing(recipe: Recipe, folder: Path, missing: Sequence[str], where: torch.device) -> None:
    pictures = load(recipe.model, where)
    with run.stopping() as stopped:
        for count, name in enumerate(missing):
            if stopped():
                raise Interrupted(
                    f"stopped with {count} of {len(missing)} pictures of the kind made",
                    hint="the same command makes the others",
                )
            frame = drawn(pictures, [recipe.prior_prompt], recipe.size, int(Path(name).stem), 25)[0]
            files.fill(folder / name, partial(Image.fromarray(frame).save, format="PNG"))


def drawn(pictures: Pictures, prompts: list[str], size: int, seed: int, steps: int) -> media.Frames:
    """One picture (n, size, size, 3) for each prompt, with a guidance of 7.5."""
    positive = pictures.words(prompts, size, size)
    negative = pictures.words([""] * len(prompts), size, size, negative=True)
    denoise = loop.frames_denoiser(pictures.predict, pictures.prediction, loop.guided(positive, negative, 7.5))
    shape = (pictures.channels, 1, size // pictures.cell, size // pictures.cell)
    start = torch.stack([noise(seed, index, shape=shape) for index in range(len(prompts))]).to(pictures.device)
    levels = pictures.levels(steps)
    latents = sampling.sample(denoise, sampling.begin(start, levels[0]), levels, "dpmpp-2m")
    return pixels.to_frames(pictures.decode(latents[:, :, 0])[:, :, None])[:, 0]


# ---- training


class Trainer(run.Trainer):
    """The model, what of it learns, and the optimiser."""

    recipe: Recipe

    def __init__(self, recipe: Recipe, where: torch.device, processes: run.Processes) -> None:
        self.recipe, self.where, self.processes = recipe, where, processes
        torch.manual_seed(recipe.seed)  # the first matrices of low rank
        self.pictures = load(recipe.model, where)
        self._teach()
        self.learning = {
            name: parameter
            for part in ("unet", "text_encoder")
            for name, parameter in named(part, getattr(self.pictures.pipe, part))
            if parameter.requires_grad
        }
        self.optimiser = torch.optim.AdamW(self.learning.values(), lr=recipe.rate, weight_decay=0.01)
        self.kept_parts = Learnt(self.learning)
        own = handful.pictures(Path(recipe.images))
        self.own = self._encoded(own)
        self.prior = self._encoded(handful.pictures(Path(recipe.prior_images))) if recipe.prior_prompt else None
        self.prompts = [recipe.prompt, recipe.prior_prompt] if recipe.prior_prompt else [recipe.prompt]
        self.told = [self.pictures.words([prompt], recipe.size, recipe.size) for prompt in self.prompts]
        self.alphas = self.pictures.pipe.scheduler.alphas_cumprod.sqrt().to(where)

    def _teach(self) -> None:
        """Say what learns."""
        recipe, unet = self.recipe, self.pictures.network
        if recipe.rank:
            from peft import LoraConfig

            low = LoraConfig(r=recipe.rank, lora_alpha=recipe.rank, target_modules=list(ATTENTION))
            unet.add_adapter(low)
        else:
            unet.requires_grad_(True)
        self.pictures.pipe.text_encoder.requires_grad_(recipe.words)
        if recipe.checkpointing:
            unet.enable_gradient_checkpointing()

    @property
    def parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Everything that the next step depends on, by name."""
        return {"learnt": self.kept_parts, "optimiser": self.optimiser}

    def kept(self) -> nn.Module:
        """What has been learnt so far."""
        return self.kept_parts

    @torch.no_grad()
    def _encoded(self, paths: Sequence[Path]) -> Tensor:
        """Mean and spread of the latents of pictures, and of their mirror images (n, 2, 2, c, h, w), on the CPU."""
        rows = []
        for path in paths:
            square = handful.squares([path], self.recipe.size).to(self.where)
            found = self.pictures.vae.encode(torch.cat([square, square.flip(3)])).latent_dist
            rows.append(torch.stack([found.mean, found.std], dim=1).cpu())
        return torch.stack(rows)

    def _told(self, which: int, count: int) -> dict[str, Any]:
        """What the network is told of a sentence, for so many rows: anew at each step where the text encoder learns."""
        told = self.told[which].at(range(1))
        if self.recipe.words:
            tokens, reader = self.pictures.pipe.tokenizer, self.pictures.pipe.text_encoder
            ids = words.ids(tokens, [self.prompts[which]]).to(self.where)
            told = {"encoder_hidden_states": reader(ids)[0]}
        return families.asked(self.pictures.family, {n: t.expand(count, *t.shape[1:]) for n, t in told.items()})

    def step(self, step: int) -> dict[str, float]:
        """Take step `step` (counted from 1) and return its figures."""
        run.set_rate([self.optimiser], self.recipe, step)
        places = batches.places(self.recipe.batch, self.processes.rank, self.processes.ranks)
        losses = {"own": self._error(self.own, step, places, 0)}
        if self.prior is not None:
            losses["prior"] = self._error(self.prior, step, places, 1)
        loss = losses["own"] + self.recipe.prior_weight * losses.get("prior", torch.zeros((), device=self.where))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.processes.average_gradients(self.kept_parts)
        nn.utils.clip_grad_norm_(self.learning.values(), 1.0)
        self.optimiser.step()
        return {name: float(value.detach()) for name, value in {"loss": loss, **losses}.items()}

    def _error(self, moments: Tensor, step: int, places: Sequence[int], which: int) -> Tensor:
        """How wrong the UNet is about noised pictures and one of the sentences, on average."""
        clean, e, time = self._drawn(moments, step, places, which)
        alpha = self.alphas[time][:, None, None, None]
        sigma = (1 - alpha**2).sqrt()
        with self.recipe.autocast(self.where):
            told = self._told(which, len(time))
            (said,) = self.pictures.network(alpha * clean + sigma * e, time, return_dict=False, **told)
        velocity = self.pictures.prediction == "v"
        return F.mse_loss(said.float(), alpha * e - sigma * clean if velocity else e)

    def _drawn(self, moments: Tensor, step: int, places: Sequence[int], stream: int) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, noise and times of this process at this step, each keyed by its place in the whole batch."""
        shape, rows, times, kept, added = tuple(moments.shape[3:]), [], [], [], []
        for place in places:
            rng = batches.source(self.recipe.seed, step, 2 * place + stream)
            which, mirror = rng.integers(len(moments)), rng.integers(2) if self.recipe.mirrored else 0
            rows.append(moments[which, mirror])
            times.append(int(rng.integers(len(self.alphas))))
            kept.append(torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)))
            added.append(torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)))
        mean, spread = torch.stack(rows).unbind(1)
        clean = self.pictures.scaled(mean + spread * torch.stack(kept))
        return clean.to(self.where), torch.stack(added).to(self.where), torch.tensor(times, device=self.where)

    def draw_samples(self, path: Path, kept: nn.Module) -> None:
        """A contact sheet: each sentence, four times."""
        self.pictures.network.eval()
        rows = [drawn(self.pictures, [prompt] * 4, self.recipe.size, self.recipe.seed, 20) for prompt in self.prompts]
        self.pictures.network.train()
        media.write_contact_sheet(path, rows, self.prompts, scale=1)

    def save_checkpoint(self, folder: Path, kept: nn.Module, history: dict[str, Any]) -> None:
        """Write a whole model, or a file of matrices of low rank, with its card and its sums."""
        if self.recipe.rank:
            checkpoint.save(folder / LORA, self._low_rank(), {"kind": "lora", "rank": self.recipe.rank} | history)
            written = [folder / LORA]
        else:
            self._write_model(folder)
            written = [*folder.glob("*/*.safetensors")]
        weights.seal(folder, written)
        files.write(folder / weights.CARD, card(self.recipe, len(self.own), history))

    def _low_rank(self) -> dict[str, Tensor]:
        """The learnt matrices by the names that diffusers' loaders know."""
        from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
        from peft.utils import get_peft_model_state_dict

        found = convert_state_dict_to_diffusers(get_peft_model_state_dict(self.pictures.network))
        return {f"unet.{name}": tensor for name, tensor in found.items()}

    def _write_model(self, folder: Path) -> None:
        """The whole model: what did not learn as it was, what did in the precision that it came in."""
        source = Path(self.recipe.model)
        learnt = ["unet", *(["text_encoder"] if self.recipe.words else [])]
        for path in sorted(source.iterdir()):
            if path.is_dir() and path.name not in learnt and not (folder / path.name).exists():
                writing.copy_part(path, folder / path.name)
        variant = hub.locate(str(source)).variant or None
        for name in learnt:
            writing.replace_part(source / name, folder / name, getattr(self.pictures.pipe, name), variant)
        files.write(folder / "model_index.json", (source / "model_index.json").read_bytes())  # last: now it is a model


def named(part: str, model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of a part of a model, by their whole names."""
    return ((f"{part}.{name}", parameter) for name, parameter in model.named_parameters())


def card(recipe: Recipe, count: int, history: Mapping[str, Any]) -> str:
    """What the folder holds and how it was made, for people."""
    low = f"as matrices of rank {recipe.rank} (`{LORA}`)" if recipe.rank else "as a whole model"
    kind = (
        f"`{recipe.prior_prompt}` kept by {recipe.prior_count} of its own pictures" if recipe.prior_prompt else "none"
    )
    licence = hub.locate(recipe.model).licence
    front = f"---\nlicense: {licence}\n---\n" if licence else ""
    sets = {name: getattr(recipe, name) for name in ("prompt", "prior_prompt", "size", "rank", "batch", "rate", "seed")}
    return (
        f"{front}# DreamBooth: {recipe.prompt}\n\n"
        f"{count} pictures, learnt {low} from `{Path(recipe.model).name}` (sha256 of its weights "
        f"`{recipe.model_sha256[:16]}`), under the sentence `{recipe.prompt}`. Prior preservation: {kind}.\n\n"
        f"| steps | hours | hardware |\n|---|---|---|\n"
        f"| {history['steps']} | {history['hours']} | {history['hardware']} |\n\n"
        f"Settings: `{json.dumps(sets)}`.\n\n"
        "Its licence is that of the model it was made from; whether the pictures may be used is for whoever took "
        "them to say. No score was measured.\n"
    )
