"""Sentences: how one falls into words, how phrases are found in it, and the small grammar of writing one.

The same tokens serve the worlds that parse a prompt and the text encoders that learn it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

Patterns = tuple[tuple[re.Pattern[str], str], ...]  # what to look for, in this order, and what it means


def tokens(text: str) -> list[str]:
    """Lower-case words in order; hyphens and punctuation separate words.

    >>> tokens("A red ball, moving up-right!")
    ['a', 'red', 'ball', 'moving', 'up', 'right']
    """
    return re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower())


def plain(text: str) -> str:
    """The words of a text with single spaces between them, as the patterns of `patterns` expect it."""
    return " ".join(tokens(text))


def vocabulary(phrases: Iterable[str]) -> tuple[str, ...]:
    """Every word of these phrases, once, sorted."""
    return tuple(sorted({word for phrase in phrases for word in tokens(phrase)}))


# --- finding phrases ---


def meanings(*tables: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Phrase -> value, from tables of value -> phrases; where two values claim a phrase, the earlier one has it."""
    rows: dict[str, str] = {}
    for table in tables:
        for value, ways in table.items():
            for phrase in ways:
                rows.setdefault(plain(phrase), value)
    return rows


def longest_first(phrases: Iterable[str]) -> list[str]:
    """In the order to look for them, so that 'bouncing up and down' is not read as 'up', nor 'navy blue' as 'blue'."""
    return sorted(phrases, key=lambda phrase: (-len(phrase), phrase))


def patterns(values: Mapping[str, str], template: str = r"\b{}\b") -> Patterns:
    """A pattern for each phrase of phrase -> value, longest phrase first; `{}` in the template is the phrase."""
    return tuple((re.compile(template.format(re.escape(phrase))), values[phrase]) for phrase in longest_first(values))


def any_of(phrases: Iterable[str]) -> str:
    """A regular expression for any of these phrases, longest first."""
    return "|".join(re.escape(phrase) for phrase in longest_first(phrases))


def last(text: str, values: Mapping[str, str]) -> str:
    """What the last phrase in a text means, of phrase -> value; "" where there is none."""
    found = re.findall(rf"\b(?:{any_of(values)})\b", text)
    return values[found[-1]] if found else ""


def take(text: str, patterns: Patterns) -> tuple[str | None, str]:
    """The value of the first pattern found, and the text without the words that said it.

    >>> take("a navy blue disc", patterns({"blue": "blue", "navy blue": "navy"}))
    ('navy', 'a   disc')
    """
    for pattern, value in patterns:
        if found := pattern.search(text):
            return value, f"{text[: found.start()]} {text[found.end() :]}"
    return None, text


# --- writing ---


def with_article(article: str, words: str) -> str:
    """'a' or 'an' by the first letter; any other article, or none, as it is.

    >>> with_article("a", "orange disc")
    'an orange disc'
    """
    if article == "a" and words[0] in "aeiou":
        article = "an"
    return f"{article} {words}".strip()


def joined(*parts: str) -> str:
    """The parts that are not empty, with single spaces between all words."""
    return " ".join(" ".join(parts).split())
