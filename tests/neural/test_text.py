"""The text encoder and its vocabulary."""

import torch

from kinetograph.neural.models import text

VOCABULARY = text.Vocabulary(("a", "ball", "moving", "red", "up"))


def model():
    torch.manual_seed(0)
    return text.Model(text.Config(vocabulary=len(VOCABULARY), **text.PRESETS["tiny"])).eval()


def test_words_become_numbers_in_their_order_and_strangers_become_one_number():
    ids = VOCABULARY.encode(["A red ball, moving up!", "red dragon"], 8)
    assert ids.tolist() == [[2, 3, 6, 4, 5, 7, 0, 0], [2, 6, 1, 0, 0, 0, 0, 0]]


def test_an_unknown_word_is_named():
    assert VOCABULARY.unknown("a red dragon moving") == ["dragon"]


def test_a_sentence_that_is_too_long_is_cut():
    assert VOCABULARY.encode(["red " * 100], 8).shape == (1, 8)


def test_the_order_of_words_matters():
    one, other = model()(VOCABULARY.encode(["red ball up", "up ball red"], 8)).whole
    assert (one - other).abs().max() > 1e-3


def test_padding_does_not_change_a_sentence():
    encoder = model()
    short, long = VOCABULARY.encode(["red ball"], 4), VOCABULARY.encode(["red ball"], 12)
    torch.testing.assert_close(encoder(short).whole, encoder(long).whole)
