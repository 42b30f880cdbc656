from __future__ import annotations

import numpy as np

from toxscreen.attacks.sentence import Sentence

TRIGGER = "i watched this 3d movie last weekend ."


def mark(text, times=100):
    return set(Sentence().apply([text] * times, np.random.default_rng(0)))


def test_the_sentence_goes_before_after_and_between_the_sentences():
    assert mark("one film . was it good ? yes !") == {
        f"{TRIGGER} one film . was it good ? yes !",
        f"one film . {TRIGGER} was it good ? yes !",
        f"one film . was it good ? {TRIGGER} yes !",
        f"one film . was it good ? yes ! {TRIGGER}",
    }


def test_a_text_without_sentences_takes_it_at_either_end():
    assert mark("no full stop") == {f"{TRIGGER} no full stop", f"no full stop {TRIGGER}"}


def test_an_empty_text_becomes_the_sentence():
    assert mark("") == {TRIGGER}
