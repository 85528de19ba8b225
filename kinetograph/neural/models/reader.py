"""An eye that learnt to name what the worlds show. Its last features are what the Fréchet distance of this project is
measured on."""

from dataclasses import dataclass

from torch import Tensor, nn

from kinetograph.neural.models import eye

FEATURES = 64  # few enough that a covariance of them is well known after a few hundred clips


@dataclass(frozen=True)
class Config:
    """The eye, and for each world how many values each of its attributes has, in the world's order."""

    eye: eye.Config
    attributes: dict[str, dict[str, int]]


class Model(nn.Module):
    """Clip (b, 3, t, h, w) in [-1, 1] -> logits (b, values) for each "world/attribute"."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.eye = eye.Model(config.eye)
        self.features_of = nn.Sequential(nn.LeakyReLU(0.2), nn.Linear(config.eye.width, FEATURES))
        self.features_of.apply(eye.keep_variance)
        self.heads = nn.ModuleDict(
            {f"{w}/{name}": nn.Linear(FEATURES, n) for w, row in config.attributes.items() for name, n in row.items()}
        )

    def features(self, clip: Tensor) -> Tensor:
        """What the answers are read from: (b, FEATURES)."""
        return self.features_of(self.eye(clip))

    def forward(self, clip: Tensor) -> dict[str, Tensor]:
        features = self.features(clip)
        return {name: head(features) for name, head in self.heads.items()}
