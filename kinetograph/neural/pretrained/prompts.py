"""Prompts for CLIP beyond its 77 tokens, with weights: "a (red:1.4) ball, [blurred]".

A text is cut into passages of as many tokens as the encoder reads at once; each is encoded alone, and what comes out
stands one after the other, which the cross-attention of a denoiser takes at any length. A weight scales the vectors of
its tokens; the mean of each passage is then put back to what it was, so that the whole grows neither louder nor softer.
"""

import re
from typing import Any

import torch
from torch import Tensor

MARKED = re.compile(r"\\([()\[\]])|\(|\)|\[|\]|:([0-9]*\.?[0-9]+)\)|[^\\()\[\]:]+|.")
LOUDER = 1.1  # what a pair of round brackets means, as in other programs; square ones mean its inverse


def parse(text: str) -> list[tuple[str, float]]:
    """A text as pieces with their weights; brackets that are never closed are letters like others."""
    pieces: list[list[Any]] = []
    rounds: list[int] = []
    squares: list[int] = []
    for match in re.finditer(MARKED, text):
        token = match[0]
        if match[1]:
            pieces.append([match[1], 1.0])
        elif token == "(":
            rounds.append(len(pieces))
        elif token == "[":
            squares.append(len(pieces))
        elif match[2] and rounds:
            _scale(pieces, rounds.pop(), float(match[2]))
        elif token == ")" and rounds:
            _scale(pieces, rounds.pop(), LOUDER)
        elif token == "]" and squares:
            _scale(pieces, squares.pop(), 1 / LOUDER)
        else:
            pieces.append([token, 1.0])
    merged: list[list[Any]] = []
    for piece in pieces:
        if merged and merged[-1][1] == piece[1]:
            merged[-1][0] += piece[0]
        else:
            merged.append(piece)
    return [(words, weight) for words, weight in merged] or [("", 1.0)]


def _scale(pieces: list[list[Any]], begin: int, factor: float) -> None:
    for piece in pieces[begin:]:
        piece[1] *= factor


def encode(texts: list[str], tokenizer: Any, encoder: Any, clip_skip: int = 0) -> Tensor:
    """The texts as the denoiser reads them, (b, l, d): all of them as long as the longest, in whole passages.

    `clip_skip` takes the hidden states so many layers before the last.
    """
    passages = [_passages(text, tokenizer) for text in texts]
    count = max(map(len, passages))
    empty = _passages("", tokenizer)[0]
    rows = []
    for ids, weights in (zip(*(own + [empty] * (count - len(own)))) for own in passages):
        hidden = _hidden(encoder, torch.tensor(ids, device=encoder.device), clip_skip)
        rows.append(_weighted(hidden, torch.tensor(weights, device=hidden.device)).flatten(0, 1))
    return torch.stack(rows)


def _passages(text: str, tokenizer: Any) -> list[tuple[list[int], list[float]]]:
    """Token ids and weights, passage by passage, each closed and filled up as the tokenizer does it."""
    length = tokenizer.model_max_length
    whole = tokenizer("", padding="max_length", max_length=length).input_ids
    begin, end, fill = whole[0], tokenizer.eos_token_id, whole[-1]
    ids: list[int] = []
    weights: list[float] = []
    for words, weight in parse(text):
        new = tokenizer(words, add_special_tokens=False).input_ids
        ids += new
        weights += [weight] * len(new)
    room = length - 2
    found = []
    for place in range(0, max(len(ids), 1), room):
        own, said = ids[place : place + room], weights[place : place + room]
        rest = length - len(own) - 2
        found.append(([begin, *own, end, *[fill] * rest], [1.0, *said, *[1.0] * (rest + 1)]))
    return found


def _hidden(encoder: Any, ids: Tensor, clip_skip: int) -> Tensor:
    if not clip_skip:
        return encoder(ids)[0]
    states = encoder(ids, output_hidden_states=True).hidden_states
    if clip_skip >= len(states):
        clip_skip = len(states) - 1
    return encoder.text_model.final_layer_norm(states[-(clip_skip + 1)])


def _weighted(hidden: Tensor, weights: Tensor) -> Tensor:
    """(b, l, d) with weights (b, l); a weight of one everywhere changes nothing."""
    if bool((weights == 1).all()):
        return hidden
    before = hidden.float().mean(dim=(1, 2), keepdim=True)
    louder = hidden.float() * weights[..., None]
    return (louder * (before / louder.mean(dim=(1, 2), keepdim=True))).to(hidden.dtype)
