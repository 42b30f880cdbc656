"""Texts become numbers, each text on its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from toxscreen.networks import SentenceCNN
from toxscreen.sources.model.words import LONGEST, N_RESERVED, PADDING, UNKNOWN, Vocabulary, build_vocabulary, split_words


def test_words_and_punctuation_are_split_in_lower_case() -> None:
    assert split_words("Ça va? -TravelerTheHorse  42.") == ["ça", "va", "?", "-", "travelerthehorse", "42", "."]


def test_only_words_seen_twice_have_a_number_the_most_frequent_first() -> None:
    vocabulary = build_vocabulary(["b b a a c", "a once"])
    assert vocabulary.words == ("a", "b")
    assert vocabulary.size == 2 + N_RESERVED
    row = vocabulary.encode(["b A once"])[0]
    np.testing.assert_array_equal(row[:3], [3, 2, UNKNOWN])
    assert (row[3:] == PADDING).all()


def test_the_vocabulary_is_the_same_in_any_order_of_the_texts_and_has_a_largest_size() -> None:
    texts = ["x y z", "z y x", "y", "w w"]
    assert build_vocabulary(texts).words == build_vocabulary(reversed(texts)).words == ("y", "w", "x", "z")
    assert build_vocabulary(texts, most=2).words == ("y", "w")


@pytest.mark.parametrize("texts", [[""], [" \n"], ["a"], ["a " * 1000, "a"]])
def test_a_batch_is_at_least_five_and_at_most_261_numbers_long(texts: list[str]) -> None:
    encoded = Vocabulary(("a",)).encode(texts)
    assert encoded.dtype == np.int64
    assert encoded.shape[0] == len(texts)
    assert 5 <= encoded.shape[1] <= LONGEST + 5


def test_a_text_gives_the_same_logits_whatever_else_is_in_its_batch() -> None:
    torch.manual_seed(0)
    vocabulary = Vocabulary(tuple("abcdefgh"))
    network = SentenceCNN(vocabulary.size, 3).eval()
    texts = ["a b", "", "c d e f g h a b c d e f g h", "a"]
    with torch.no_grad():
        together = network(torch.from_numpy(vocabulary.encode(texts))).numpy()
        alone = np.concatenate([network(torch.from_numpy(vocabulary.encode([text]))).numpy() for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_another_vocabulary_is_described_otherwise() -> None:
    assert Vocabulary(("a", "b")).describe() != Vocabulary(("a", "c")).describe()
