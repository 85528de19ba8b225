"""A small text encoder, trained with the model that it serves: words in order to one vector a word and one for the
whole."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kinetograph.language import tokens

PADDING, UNKNOWN, SUMMARY = 0, 1, 2  # the first three entries of every vocabulary
SPECIAL = 3


@dataclass(frozen=True)
class Vocabulary:
    """The words a text encoder knows, in a fixed order that is stored with its weights."""

    words: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.words) + SPECIAL

    def unknown(self, prompt: str) -> list[str]:
        """The words of a prompt that are not in the vocabulary, in their order."""
        known = set(self.words)
        return [word for word in tokens(prompt) if word not in known]

    def unread(self, prompt: str, length: int) -> list[str]:
        """What a model with room for so many tokens does not read of a prompt, in words for whoever wrote it."""
        unknown, beyond = self.unknown(prompt), tokens(prompt)[length - 1 :]
        said = [f"the model does not know {', '.join(map(repr, unknown))}"] if unknown else []
        if beyond:
            said.append(f"the model reads {length - 1} words; it leaves out {' '.join(beyond[:8])!r} and what follows")
        return said

    def encode(self, prompts: list[str], length: int) -> Tensor:
        """Token ids (b, length): the summary token, then the words; what is longer is cut, what is unknown is
        UNKNOWN."""
        number = {word: i for i, word in enumerate(self.words, SPECIAL)}
        ids = torch.full((len(prompts), length), PADDING, dtype=torch.long)
        for row, prompt in zip(ids, prompts, strict=True):
            sentence = [SUMMARY, *(number.get(word, UNKNOWN) for word in tokens(prompt))][:length]
            row[: len(sentence)] = torch.tensor(sentence)
        return ids


def trimmed(ids: Tensor) -> Tensor:
    """Token ids (b, l) without the columns that are padding in every row."""
    return ids[:, : int((ids != PADDING).sum(1).max())]


@dataclass(frozen=True)
class Config:
    """Sizes of a text encoder: vocabulary (special tokens included), longest sentence, width, layers, heads."""

    vocabulary: int
    length: int = 32
    width: int = 96
    layers: int = 2
    heads: int = 4


@dataclass(frozen=True)
class Text:
    """An encoded sentence: a vector for each word (b, l, d), which of them are words (b, l), and the whole (b, d)."""

    states: Tensor
    mask: Tensor
    whole: Tensor

    def rows(self, places: Tensor | slice) -> "Text":
        """Some of the sentences, or some of them several times."""
        return Text(self.states[places], self.mask[places], self.whole[places])

    def beside(self, told: Tensor, where: Tensor) -> "Text":
        """The same sentences with what is told beside them (b, d), where it is (b,)."""
        return Text(self.states, self.mask, self.whole + told * where[:, None])


class Model(nn.Module):
    """A pre-norm transformer encoder with learned positions (Vaswani et al. 2017; Xiong et al. 2020 for the norm's
    place)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocabulary, config.width)
        self.places = nn.Parameter(0.1 * torch.randn(config.length, config.width))
        self.layers = nn.ModuleList(Layer(config.width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, ids: Tensor) -> Text:
        mask = ids != PADDING  # (b, l)
        h = self.words(ids) + self.places[: ids.shape[1]]  # (b, l, d)
        for layer in self.layers:
            h = layer(h, mask)
        h = self.norm(h)
        return Text(h, mask, h[:, 0])  # the summary token stands first


class Layer(nn.Module):
    """Attention among the words, then a two-layer perceptron for each."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(self.norm_1(x)).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        h = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])  # (b, heads, n, d)
        x = x + self.out(h.transpose(1, 2).reshape(b, n, d))
        return x + self.mlp(self.norm_2(x))


PRESETS = {
    "tiny": {"width": 32, "layers": 1, "heads": 2},
    "small": {"width": 96, "layers": 2, "heads": 4},
    "medium": {"length": 48, "width": 128, "layers": 3, "heads": 4},
    "wide": {"width": 192, "layers": 3, "heads": 4},
    "large": {"length": 48, "width": 320, "layers": 4, "heads": 4},
}
