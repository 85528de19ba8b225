r"""Words that count for more or less: "a (red:1.4) ball on (grass:0.6)".

A weight stands after a colon in round brackets, which may nest; other brackets are brackets, and \( is one in any case.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kinetograph.errors import InvalidRequest

LARGEST = 10.0
CLOSING = re.compile(r":\s*([0-9]+(?:\.[0-9]+)?)\s*\)")
Spans = tuple[tuple[int, int, float], ...]  # from letter, to letter, weight


def parse(prompt: str) -> tuple[str, Spans]:
    """The prompt without its weights, and where in it they hold. Raises InvalidRequest for a weight above 10."""
    return _Reader(prompt).read()


class _Reader:
    def __init__(self, prompt: str) -> None:
        self.prompt, self.place, self.text = prompt, 0, ""
        self.spans: list[tuple[int, int, float]] = []
        self.open: list[int] = []  # where in the text brackets were opened

    def read(self) -> tuple[str, Spans]:
        while self.place < len(self.prompt):
            self._next()
        return self.text, tuple(self.spans)

    def _next(self) -> None:
        letter, closing = self.prompt[self.place], CLOSING.match(self.prompt, self.place)
        if letter == "\\" and self.prompt[self.place + 1 : self.place + 2] in ("(", ")"):
            self.text += self.prompt[self.place + 1]
            self.place += 2
        elif closing and self.open:
            self._close(float(closing[1]))
            self.place = closing.end()
        else:
            if letter == "(":
                self.open.append(len(self.text))
            elif letter == ")" and self.open:
                self.open.pop()
            self.text += letter
            self.place += 1

    def _close(self, weight: float) -> None:
        if weight > LARGEST:
            raise InvalidRequest(f"a word weighs {weight:g}", field="prompt", hint=f"the nearest is {LARGEST:g}")
        start = self.open.pop()
        self.text = self.text[:start] + self.text[start + 1 :]  # without its opening bracket
        self.spans = [(a - (a > start), b - (b > start), w) for a, b, w in self.spans]
        self.spans.append((start, len(self.text), weight))


def weighed(said: Tensor, wordless: Tensor, tokenizers: Sequence[Any], texts: list[str], spans: list[Spans]) -> Tensor:
    """Vectors of tokens (p, n, d), those of weighted words moved so many times as far from what no words say (1, n, d).

    The tokens of several tokenizers stand behind each other.
    """
    weights = torch.ones(said.shape[:2])
    for row, text, its in zip(weights, texts, spans):
        found = [weight for tokenizer in tokenizers for weight in _weights(tokenizer, text, its, len(row))][: len(row)]
        row[: len(found)] = torch.tensor(found)
    return said + (weights[..., None].to(said) - 1) * (said - wordless)


def _weights(tokenizer: Any, text: str, spans: Spans, most: int) -> list[float]:
    if tokenizer is None:
        return []
    length = min(tokenizer.model_max_length, most)
    found = tokenizer(text, padding="max_length", max_length=length, truncation=True, return_offsets_mapping=True)
    return [_weight(start, stop, spans) for start, stop in found["offset_mapping"]]


def _weight(start: int, stop: int, spans: Spans) -> float:
    weight = 1.0
    for begin, end, its in spans:
        if start < stop and start < end and stop > begin:
            weight *= its
    return weight
