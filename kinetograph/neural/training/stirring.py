"""Sentences stirred: said in another order, with small words more, so that a reader of a few thousand wordings heeds
what is said and not how.

It knows no world and no meaning: a phrase that begins with a preposition is said first, what stands around an 'is'
swaps its places, and words that say nothing are put in anywhere (as the random swaps and insertions of Wei & Zou 2019).
"""

import numpy as np

from kinetograph.language import tokens

BEFORE = ("in", "on", "at", "over", "against", "across", "from", "to", "towards", "under", "during")
IS = ("is", "are")
SMALL = ("there", "is", "that", "which", "it", "and", "the", "a", "being", "of")
MOST = 3  # small words that are put in


def stirred(sentence: str, rng: np.random.Generator) -> str:
    """The sentence in words that say the same in another way, more or less."""
    words = tokens(sentence)
    if rng.random() < 0.5:
        words = _turned(words, rng)
    for _ in range(int(rng.integers(MOST + 1))):
        words.insert(int(rng.integers(len(words) + 1)), SMALL[int(rng.integers(len(SMALL)))])
    return " ".join(words)


def _turned(words: list[str], rng: np.random.Generator) -> list[str]:
    """What begins at one of the words that may stand first, said first; an 'is' stays in the middle."""
    places = [i for i, word in enumerate(words) if i and word in (*BEFORE, *IS)]
    if not places:
        return words
    cut = places[int(rng.integers(len(places)))]
    middle = [words[cut]] if words[cut] in IS else []
    return words[cut + len(middle) :] + middle + words[:cut]
