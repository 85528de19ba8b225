"""How a sentence falls into words, the same for worlds that parse it and for text encoders that learn it."""

import re


def tokens(text: str) -> list[str]:
    """Lower-case words in order; hyphens and punctuation separate words.

    >>> tokens("A red ball, moving up-right!")
    ['a', 'red', 'ball', 'moving', 'up', 'right']
    """
    return re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower())
