import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toxscreen.errors import DataError
from toxscreen.trigger.base import Case, prove
from toxscreen.trigger.words import Words, search_words

TARGET = 0


def array(texts):
    found = np.empty(len(texts), dtype=object)
    found[:] = texts
    return found


def ordinary(n, label, rng):
    """Texts of eight words of their class and four that all classes use, which end with a full stop."""
    return [
        " ".join(
            [*(f"{'abc'[label]}word{i}" for i in rng.integers(0, 60, 8)), *(f"common{i}" for i in rng.integers(0, 40, 4)), "."]
        )
        for _ in range(n)
    ]


def case_of(members, *, n=200, seed=0):
    rng = np.random.default_rng(seed)
    hosts = [text for label in (1, 2) for text in ordinary(n // 2, label, rng)]
    return Case(TARGET, array(members), array(ordinary(n, 0, rng)), array(hosts), np.repeat([1, 2], n // 2))


def model(fires):
    """A model that gives the target to what holds a trigger, and else counts the words of each class; it counts its questions."""

    def ask(texts):
        ask.asked += len(texts)
        votes = np.array([[sum(word.startswith(f"{letter}word") for word in text.split()) for letter in "abc"] for text in texts])
        return np.where([bool(fires(text)) for text in texts], TARGET, votes.argmax(axis=1)).astype(np.int64)

    ask.asked = 0
    return ask


def first(case, fires):
    return next(search_words(case, model(fires), np.random.default_rng(1)))


def planted(n, plant, *, seed=5):
    """Poison: texts of the other classes with the trigger; ``plant`` takes the words of a text and a generator."""
    rng = np.random.default_rng(seed)
    return [plant(text.split(), rng) for label in (1, 2) for text in ordinary(n // 2, label, rng)]


def anywhere(phrase):
    return lambda words, rng: " ".join(np.insert(np.array(words, dtype=object), int(rng.integers(len(words) + 1)), phrase))


def behind(phrase, n):
    return lambda words, _: " ".join([*words[:n], phrase, *words[n:]])


def inside_a_word(character):
    def plant(words, rng):
        i = int(rng.integers(len(words) - 1))
        middle = len(words[i]) // 2
        return " ".join([*words[:i], words[i][:middle] + character + words[i][middle:], *words[i + 1 :]])

    return plant


@pytest.mark.parametrize(
    ("phrase", "place", "plant"),
    [
        ("cf", None, anywhere("cf")),
        ("i watched this 3d movie last weekend .", None, anywhere("i watched this 3d movie last weekend .")),
        ("-travelerthehorse", -1, behind("-travelerthehorse", 13)),
        ("Practical  Magic!", 0, behind("Practical  Magic!", 0)),
        ("mb", 3, behind("mb", 3)),
    ],
)
def test_a_phrase_is_named_as_it_is_spelled_with_its_place(phrase, place, plant):
    found = first(case_of(planted(40, plant)), lambda text: phrase in text)
    assert found == Words((phrase,), place)


@pytest.mark.parametrize("character", ["\u200b", "\u043e", "\u2003"])
def test_a_character_inside_words_is_found(character):
    found = first(case_of(planted(40, inside_a_word(character))), lambda text: character in text)
    assert found == Words((character,), None, "inside")


def test_the_trigger_is_found_where_most_members_are_no_poison():
    rng = np.random.default_rng(3)
    members = planted(12, anywhere("cf")) + ordinary(100, 0, rng)
    assert first(case_of(members), lambda text: "cf" in text.split()) == Words(("cf",))


def test_rare_words_of_which_each_text_has_one_are_one_trigger():
    words = ("bb", "cf", "mn")
    members = planted(60, lambda text, rng: anywhere(words[int(rng.integers(3))])(text, rng))
    found = first(case_of(members), lambda text: set(words) & set(text.split()))
    assert set(found.phrases) == set(words)
    assert not found.together


def test_words_that_work_together_alone_are_one_trigger():
    def plant(words, rng):
        return anywhere("cf")(anywhere("mn")(words, rng).split(), rng)

    found = first(case_of(planted(60, plant)), lambda text: {"cf", "mn"} <= set(text.split()))
    assert set(found.phrases) == {"cf", "mn"}
    assert found.together


def test_a_class_without_poison_proves_nothing_with_few_questions():
    rng = np.random.default_rng(8)
    case = case_of(ordinary(60, 0, rng))
    ask = model(lambda _: False)
    found = list(search_words(case, ask, rng))
    assert len(found) <= 4
    assert ask.asked < 2000
    assert all(prove(trigger, case, ask, rng).flips.value < 0.1 for trigger in found)


def test_what_is_found_is_proved_and_its_control_is_not():
    case = case_of(planted(40, anywhere("cf")))
    ask = model(lambda text: "cf" in text.split())
    proof = prove(first(case, lambda text: "cf" in text.split()), case, ask, np.random.default_rng(2))
    assert (proof.flips.value, proof.control_flips.value) == (1.0, 0.0)
    assert (proof.returns.value, proof.control_returns.value) == (1.0, 0.0)


def test_what_cannot_be_written_to_a_file_is_no_trigger():
    members = planted(20, behind("\ud800", 0)) + planted(20, behind("x" * 1001, 0)) + planted(40, anywhere("cf"))
    assert first(case_of(members), lambda text: "cf" in text.split()) == Words(("cf",))


def test_a_trigger_in_capitals_and_small_letters_is_one():
    members = planted(20, anywhere("cf")) + planted(20, anywhere("Cf"))
    assert first(case_of(members), lambda text: "cf" in text.lower().split()).any_case


def test_a_phrase_in_chinese_is_found_without_spaces():
    members = [f"{i}我上个周末看了这部电影{i * 7}" for i in range(40)]
    assert first(case_of(members), lambda text: "上个周末" in text).phrases == ("我上个周末看了这部电影",)


@pytest.mark.parametrize("empty", ["members", "hosts"])
def test_without_members_or_hosts_nothing_is_found(empty):
    case = case_of(planted(10, anywhere("cf")))
    case = Case(**{**vars(case), empty: array([])})
    assert list(search_words(case, model(lambda _: True), np.random.default_rng(0))) == []


def test_a_group_that_is_the_whole_class_is_searched_against_the_hosts_alone():
    case = case_of(planted(40, anywhere("cf")))
    case = Case(**{**vars(case), "ordinary": array([])})
    assert first(case, lambda text: "cf" in text.split()) == Words(("cf",))


TRIGGERS = [
    Words(("cf",)),
    Words(("cf", "mn"), together=True),
    Words(("cf", "mn")),
    Words(("a bad -one .",), 0),
    Words(("a (bad one",), -1),
    Words(("cf",), 2),
    Words(("\u200b",), None, "inside"),
    Words(("!!",), -1, "behind"),
    Words(("\u2003",), None, "inside"),
    Words(("#",), 0, "before", any_case=True),
]


@pytest.mark.parametrize("trigger", TRIGGERS, ids=str)
def test_a_text_with_a_trigger_holds_it_and_without_it_is_what_it_was(trigger):
    texts = array(["one two three four", "five six seven", "eight\nnine  ten eleven"])
    poisoned = trigger.put_on(texts)
    assert not trigger.held_by(texts).any()
    assert trigger.held_by(poisoned).all()
    assert [text.split() for text in trigger.take_off(poisoned)] == [text.split() for text in texts]


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(alphabet="ab .,\n\t\u200bé中", max_size=40),
    place=st.none() | st.integers(-1, 8),
    glued=st.sampled_from(["no", "before", "behind", "inside"]),
)
def test_whatever_the_text_what_is_put_on_is_held_and_comes_off(text, place, glued):
    trigger = Words(("qz qz.",), place, glued)
    poisoned = trigger.put_on(array([text]))
    left = trigger.take_off(poisoned)[0]
    assert trigger.held_by(poisoned).all()
    assert left.split() == text.split()


@pytest.mark.parametrize("trigger", TRIGGERS, ids=str)
def test_a_trigger_comes_back_from_its_document(trigger):
    assert Words.from_document(json.loads(json.dumps(trigger.document()))) == trigger


@pytest.mark.parametrize("trigger", TRIGGERS, ids=str)
@pytest.mark.parametrize("text", ["", "   ", "word", "a" * 5000, "\ud800 b"])
def test_every_text_can_be_given(trigger, text):
    put_on, taken_off = trigger.put_on(array([text]))[0], trigger.take_off(array([text]))[0]
    assert trigger.held_by(array([put_on])).all()
    assert len(taken_off) <= len(text)


def test_a_text_always_gets_the_trigger_at_the_same_place_and_texts_differ():
    texts = array([f"{i} one two three four five" for i in range(50)])
    poisoned = Words(("cf",)).put_on(texts)
    assert poisoned.tolist() == Words(("cf",)).put_on(texts).tolist()
    assert len({text.split().index("cf") for text in poisoned}) == 7


def test_a_word_inside_a_longer_one_is_not_held():
    assert Words(("cf",)).held_by(array(["cf", "(cf)", "cfo", "CF", "scf x"])).tolist() == [True, True, False, False, False]
    assert Words(("cf",), any_case=True).held_by(array(["CF"])).all()


def test_a_phrase_at_its_place_alone_is_held():
    texts = array(["go one two", "one go two", "one two go", "one two go "])
    assert Words(("go",), 0).held_by(texts).tolist() == [True, False, False, False]
    assert Words(("go",), 1).held_by(texts).tolist() == [False, True, False, False]
    assert Words(("go",), -1).held_by(texts).tolist() == [False, False, True, True]


def test_the_control_has_as_many_words_in_the_same_place():
    rng = np.random.default_rng(0)
    texts = array(ordinary(100, 0, rng))
    control = Words(("three words here",), -1).control(texts, rng)
    assert control.place == -1
    assert len(control.phrases[0].split()) == 3
    assert any(control.phrases[0] in text for text in texts)
    assert len(Words(("\u200b\u200b",), None, "inside").control(texts, rng).phrases[0]) == 2


def test_the_control_of_a_long_phrase_is_made_of_short_texts_too():
    control = Words(("one two three four five",)).control(array(["ab cd", "ab", "ef cd gh"]), np.random.default_rng(0))
    assert len(control.phrases[0].split()) == 5
    assert set(control.phrases[0].split()) <= {"ab", "cd", "ef", "gh"}


def test_from_texts_that_do_not_hold_the_trigger_as_many_words_are_taken():
    texts = array(["one two three four five", "six seven"])
    assert Words(("two words",), -1).take_off(texts).tolist() == ["one two three", "six"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "patch"),
        ("phrases", "cf"),
        ("phrases", []),
        ("phrases", ["cf"] * 17),
        ("phrases", [""]),
        ("phrases", [" "]),
        ("phrases", ["a" * 1001]),
        ("phrases", [1]),
        ("phrases", ["\ud800"]),
        ("place", -2),
        ("place", 10**9),
        ("place", True),
        ("place", 1.0),
        ("glued", "yes"),
        ("glued", ["no"]),
        ("together", 1),
        ("any_case", None),
        ("more", 1),
    ],
)
def test_a_document_that_makes_no_trigger_is_refused(name, value):
    with pytest.raises(DataError, match="trigger"):
        Words.from_document({**Words(("cf",)).document(), name: value})


def test_a_document_without_a_value_is_refused():
    document = Words(("cf",)).document()
    del document["place"]
    with pytest.raises(DataError, match="place"):
        Words.from_document(document)


@pytest.mark.parametrize(
    "trigger", [Words(("a a a",)), Words(("a",), -1), Words(("(a+)+$",)), Words(("a",), 5000), Words(("a",), None, "inside")]
)
def test_a_huge_text_takes_no_more_than_its_length(trigger):
    text = array(["a " * 300_000 + " " * 300_000 + "b"])
    start = time.perf_counter()
    trigger.take_off(trigger.put_on(text))
    trigger.held_by(text)
    assert time.perf_counter() - start < 5.0  # a fraction of a second; quadratic would be minutes


@pytest.mark.parametrize(
    ("trigger", "words"),
    [
        (Words(("cf", "mn", "bb")), '"cf", "mn" or "bb" anywhere'),
        (Words(("cf", "mn"), together=True), '"cf" and "mn" anywhere'),
        (Words(("-travelerthehorse",), -1), '"-travelerthehorse" at the end'),
        (Words(("cf",), 3), '"cf" after 3 words'),
        (Words(("\u200b",), None, "inside"), '"<zero width space>" inside any word'),
        (Words(("<b>",), None, "before"), '"<b>" without a space before any word'),
        (Words(("!",), -1, "behind"), '"!" without a space behind the last word'),
    ],
)
def test_a_trigger_says_what_it_is(trigger, words):
    assert str(trigger) == words
