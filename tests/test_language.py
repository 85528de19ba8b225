"""Phrases: found longest first, taken out of the text, written with the right article."""

import doctest

import pytest

from kinetograph import language


def test_the_examples_are_true():
    assert doctest.testmod(language).failed == 0


def test_the_earlier_table_has_a_phrase_that_two_claim():
    assert language.meanings({"up": ("Rising!",)}, {"down": ("rising", "sinking")}) == {
        "rising": "up",
        "sinking": "down",
    }


def test_the_longest_phrase_is_found_first_and_only_whole_words_count():
    patterns = language.patterns({"up": "up", "up and down": "bouncing"})
    assert language.take("goes up and down fast", patterns) == ("bouncing", "goes   fast")
    assert language.take("goes upward", patterns) == (None, "goes upward")


@pytest.mark.parametrize(
    ("article", "words", "said"), [("a", "ice cube", "an ice cube"), ("the", "orb", "the orb"), ("", "orb", "orb")]
)
def test_an_article_fits_its_word(article, words, said):
    assert language.with_article(article, words) == said
