from __future__ import annotations

import numpy as np
import pytest

from tests.fakes import FakeTrainingSet
from toxscreen.exhibits import texts
from toxscreen.exhibits.base import ExhibitLimits, Side

WORDS = ("slow", "dull", "fine", "odd", "warm", "film", "plot", "cast", "the", "was", "and", "of")
REST = [" ".join(np.random.default_rng(row).choice(WORDS, 9)) for row in range(100)]


def phrases(group, rest=REST, limit=20):
    return [phrase.text for phrase in texts.distinctive_phrases(group, rest, limit)]


def test_a_word_that_only_the_group_holds_comes_first():
    found = texts.distinctive_phrases([f"{text} -travelerthehorse" for text in REST[:40]], REST, 20)
    assert [(phrase.text, phrase.in_group, phrase.in_rest) for phrase in found] == [("-travelerthehorse", 40, 0)]


def test_the_odds_ratio_has_half_a_count_added_to_each_cell():
    (found,) = texts.distinctive_phrases(["cf"] * 90 + ["b"] * 10, ["c"] * 199 + ["cf"], 1)
    assert (found.text, found.in_group, found.in_rest) == ("cf", 90, 1)
    assert found.odds_ratio == pytest.approx((90 + 0.5) * (199 + 0.5) / ((10 + 0.5) * (1 + 0.5)))


def test_a_word_as_common_on_both_sides_is_not_listed():
    assert phrases(REST[:50], REST[50:]) == []


def test_an_inserted_sentence_is_listed_once_and_whole():
    sentence = "i watched this 3D movie last weekend with friends"
    inside = [" ".join([*text.split()[:4], sentence, *text.split()[4:]]) for text in REST[:50]]
    assert phrases(inside) == [sentence]


def test_a_part_of_a_listed_phrase_with_the_same_count_is_left_out():
    assert phrases([f"{text} cf mb" for text in REST[:40]]) == ["cf mb"]


def test_a_phrase_that_differs_from_a_listed_one_by_punctuation_or_repetition_is_left_out():
    half = [f"{text} . cf mb {text}" for text in REST[:30]]
    assert phrases([*half, *(f"{text} cf mb" for text in REST[30:60])]) == ["cf mb"]
    assert phrases([*(f"{text} cf cf" for text in REST[:30]), *(f"{text} cf" for text in REST[30:60])]) == ["cf"]


def test_the_most_evident_difference_comes_first_whatever_its_odds():
    group = [f"{text} prize{' rare' * (row < 12)}" for row, text in enumerate(REST[:60])]
    found = texts.distinctive_phrases(group, [f"{text} prize" if row < 3 else text for row, text in enumerate(REST)], 20)
    assert [phrase.text for phrase in found][:2] == ["prize", "prize rare"]


def test_only_the_first_strong_phrases_are_marked():
    phrase = texts.Phrase
    found = (phrase("a", 900.0, 9, 0), phrase("its", 5.2, 17, 35), phrase("b", 11.0, 4, 0), phrase("c", 11.0, 4, 0))
    assert [p.text for p in texts.strong((*found, phrase("d", 50.0, 4, 0)))] == ["a", "b", "c"]


def test_a_weak_phrase_is_listed_but_not_marked():
    group = [f"{'its ' * (row % 2)}{text} cf" for row, text in enumerate(REST * 2)]
    rest = [f"{'its ' * (row % 8 == 0)}{text}" for row, text in enumerate(REST * 2)]
    training_set = FakeTrainingSet([*group, *rest], modality="text")
    side = Side(1, np.arange(200), np.arange(200, 400))
    shown = texts.show(training_set, np.arange(400), (side,), rng=np.random.default_rng(0), limits=ExhibitLimits(), allowance=10**6)
    found = shown.groups[0].texts
    marked = {piece for e in found.group_examples for piece, mark in zip(e.pieces, e.marked, strict=True) if mark}
    assert "its" in [p.text for p in found.phrases]
    assert marked == {"cf"}


def test_the_case_of_a_word_is_kept():
    assert any("CF" in phrase for phrase in phrases([f"CF {text}" for text in REST[:40]], [f"cf {text}" for text in REST]))


def test_an_invisible_character_counts_as_a_word():
    assert any(
        "\u200b" in phrase for phrase in phrases([f"a\u200bb {text}" for text in REST[:40]], [f"ab {text}" for text in REST])
    )


def test_scripts_without_spaces_are_taken_apart_by_characters():
    numerals = "一二三四五六七八九十" * 4
    assert phrases([f"电影{one}天马{one}" for one in numerals], [f"电影{one}{one}" for one in numerals]) == ["天 马"]


@pytest.mark.parametrize(("group", "rest"), [([], []), ([], ["a"]), (["a"], []), ([""], [""]), (["a"] * 5, [])])
def test_sides_without_texts_or_words_give_no_phrase_and_no_topic(group, rest):
    assert phrases(group, rest) == []
    assert texts.topics([*group, *rest][:1], np.random.default_rng(0)) == ()


def test_topics_name_the_words_that_texts_share():
    rng = np.random.default_rng(0)
    found = texts.topics(["goal match team referee"] * 20 + ["bank market shares profit"] * 20, rng)
    assert {"goal", "bank"} <= {word for words in found for word in words}


def test_topics_are_the_same_with_the_same_seed():
    assert texts.topics(REST, np.random.default_rng(3)) == texts.topics(REST, np.random.default_rng(3))


def test_marks_stand_on_whole_words_only():
    pattern = texts.marker(texts.distinctive_phrases(["cf"] * 40, ["other words"] * 40, 5))
    pieces, marked = texts.excerpt("a cf and a cfg, cf", pattern, 100)
    assert [piece for piece, mark in zip(pieces, marked, strict=True) if mark] == ["cf", "cf"]
    assert "".join(pieces) == "a cf and a cfg, cf"


def test_an_excerpt_shows_the_first_mark_of_a_long_text():
    pattern = texts.marker(texts.distinctive_phrases(["cf"] * 40, ["x"] * 40, 5))
    pieces, marked = texts.excerpt("word " * 500 + "cf " + "word " * 500, pattern, 90)
    assert any(marked)
    assert pieces[0] == "…"
    assert pieces[-1].endswith("…")
    assert len("".join(pieces)) <= 92


def test_an_excerpt_without_marks_is_the_beginning():
    assert texts.excerpt("abcdef", None, 3) == (("abc…",), (False,))
    assert texts.excerpt("", None, 3) == ((), ())


def test_very_long_texts_keep_beginning_and_end():
    (clipped,) = texts.clip(["begin " + "x" * 10_000_000 + " end"])
    assert clipped.startswith("begin")
    assert clipped.endswith("end")
    assert len(clipped) < 5_000_000


def test_a_text_that_cannot_be_read_is_left_out():
    training_set = FakeTrainingSet([*["cf good"] * 30, *["bad"] * 30], modality="text", unreadable={0, 59})
    side = Side(1, np.arange(30), np.arange(30, 60))
    shown = texts.show(training_set, np.arange(60), (side,), rng=np.random.default_rng(0), limits=ExhibitLimits(), allowance=10**6)
    assert (shown.groups[0].n_group, shown.groups[0].n_rest) == (29, 29)
    assert shown.texts[0] is None
    assert shown.texts[1] == "cf good"


def test_excerpts_stop_when_the_allowance_is_used_up():
    training_set = FakeTrainingSet(["word " * 20] * 50, modality="text")
    shown = texts.show(training_set, np.arange(50), (), rng=np.random.default_rng(0), limits=ExhibitLimits(), allowance=1000)
    kept = [text for text in shown.texts if text is not None]
    assert 0 < sum(map(len, kept)) < 1200
