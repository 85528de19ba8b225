"""The GAN engine: one pass through a small generator, a clip in milliseconds on a CPU.

References: `gan` is the model that comes with the package (`gan:gan`), `gan:FOLDER` one trained by `kinetograph train`.
"""

import warnings
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING

from kinetograph import weights as checkpoints
from kinetograph.engine import EngineInfo, OnProgress, Options, Progress, Sizes
from kinetograph.request import VideoRequest
from kinetograph.shelf import WORLDS
from kinetograph.video import Video

if TYPE_CHECKING:
    import torch

    from kinetograph.neural.models import text, video_gan

BUNDLED = "gan"


def info(weights: str) -> EngineInfo:
    """What a checkpoint can make, read from its header. Raises UnknownName or WeightsError for a reference that is
    none."""
    folder = checkpoints.locate(weights or BUNDLED)
    found = checkpoints.configuration(folder, "video_gan")
    with checkpoints.understood(folder):
        size, frames, world = found["config"]["eye"]["size"], found["config"]["eye"]["frames"], found["world"]
    return EngineInfo(
        reference=f"gan:{weights}" if weights else "gan",
        summary=f"a GAN trained from scratch on the world '{world}'; one pass, no steps",
        licence="Apache-2.0",
        width=size,
        height=size,
        frames=frames,
        fps=Fraction(WORLDS[world].FPS),
        sizes=Sizes(minimum=size // 2, maximum=size * 4, multiple=4, square=True),
        min_frames=1,
        max_frames=8 * frames,
        Options=Options,
        weights=checkpoints.declared(folder)[checkpoints.MODEL],
    )


def load(weights: str, device: str) -> "Gan":
    """Load a checkpoint onto a device, after checking its sum. Raises WeightsError for one that is damaged."""
    from kinetograph.neural import checkpoint
    from kinetograph.neural import device as devices
    from kinetograph.neural.models import text, video_gan

    folder = checkpoints.locate(weights or BUNDLED)
    found = checkpoints.configuration(folder, "video_gan")
    with checkpoints.understood(folder):
        config, vocabulary = video_gan.Config.of(found["config"]), text.Vocabulary(tuple(found["words"]))
    generator = video_gan.Generator(config)
    digest = checkpoint.load_model(folder, generator)
    where = devices.choose(device)
    return Gan(generator.to(where).eval(), vocabulary, where, digest, devices.versions(where))


class Gan:
    """A loaded generator."""

    def __init__(
        self,
        generator: "video_gan.Generator",
        vocabulary: "text.Vocabulary",
        where: "torch.device",
        weights_digest: str,
        versions: Mapping[str, str],
    ) -> None:
        self._generator, self._vocabulary, self._where = generator, vocabulary, where
        self.device, self.weights_digest, self.versions = str(where), weights_digest, versions

    def generate(self, request: VideoRequest, on_progress: OnProgress) -> Video:
        """One clip. Warns of words that training never saw, which are read as 'some word', and of what is too long."""
        import torch

        from kinetograph.neural import device, pixels

        config = self._generator.config
        for said in self._vocabulary.unread(request.prompt, config.text.length):
            warnings.warn(said, stacklevel=2)
        ids = self._vocabulary.encode([request.prompt], config.text.length).to(self._where)
        noise = device.noise(request.seed, shape=(1, config.noise)).to(self._where)
        with torch.inference_mode():
            clip = self._generator(ids, noise, request.frames, request.height, request.width)
        frames = pixels.to_frames(clip)[0]
        on_progress(Progress(step=1, steps=1, preview=frames[-1]))
        return Video(frames, request.fps)
