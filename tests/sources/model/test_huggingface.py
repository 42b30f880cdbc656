"""A Hugging Face folder is opened from its files, with its own preprocessing and with no code of its own."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from toxscreen.errors import ModelError, RefusedError, UsageError
from toxscreen.sources.model import open_classifier
from toxscreen.sources.model.base import Classifier
from toxscreen.sources.model.huggingface import summarise
from toxscreen.sources.model.huggingface_inputs import from_files_only
from toxscreen.sources.model.preprocessing import ImagePreprocessing

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "good", "bad", "film", "."]
TEXTS = ["a good film .", "bad", "a film a film a film a film a film a film a film", "<b>unseen</b>"]
NAMES = {0: "negative", 1: "positive", 2: "mixed"}
GRAY = list(np.random.default_rng(0).integers(0, 256, (4, 20, 24, 1), dtype=np.uint8))
COLOUR = [np.repeat(picture, 3, axis=2) for picture in GRAY]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    torch.manual_seed(0)


def _save_tokenizer(folder: Path, **settings: Any) -> None:
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token=WORDS[1]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    special = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", **settings}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a tiny BERT")
    config = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=12, id2label=NAMES, label2id={name: number for number, name in NAMES.items()},
    )  # fmt: skip
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    _save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vit")
    config = transformers.ViTConfig(
        image_size=16,
        patch_size=8,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        id2label=NAMES,
    )
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    settings = {
        "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": 16, "width": 16}, "resample": 2,
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.5, 0.25, 0.2],
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    return lambda folder: Path(shutil.copytree(folder, tmp_path / "copy"))


def opened(folder: Path, sample: list[Any] | None = None, **settings: Any) -> Classifier:
    sample = TEXTS if sample is None else sample
    modality = "text" if isinstance(sample[0], str) else "image"
    return open_classifier(folder, **{"n_classes": 3, "modality": modality, "sample": sample, **settings})


def test_a_text_classifier_gives_what_transformers_gives(bert: Path) -> None:
    classifier = opened(bert)
    outputs = classifier.forward(classifier.encode(TEXTS), [classifier.last_hidden])
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(bert).eval()
    with torch.no_grad():
        encoded = tokenizer(TEXTS, padding=True, truncation=True, max_length=10, return_tensors="pt")
        expected = network(**encoded).logits.numpy()
        pooled = network.bert(**encoded).pooler_output.numpy()
    np.testing.assert_allclose(outputs.logits, expected, atol=1e-5)
    np.testing.assert_allclose(outputs.activations["classifier.input"], pooled, atol=1e-5)
    assert classifier.class_names == ("negative", "positive", "mixed")


def test_long_texts_are_cut_at_what_the_model_takes(bert: Path, copy_of: Callable[[Path], Path]) -> None:
    assert opened(bert).encode(["a film " * 500])["input_ids"].shape == (1, 10)
    folder = copy_of(bert)
    _save_tokenizer(folder, model_max_length=7)
    assert opened(folder).encode(["a film " * 500])["input_ids"].shape == (1, 7)


def test_a_text_gives_the_same_whatever_else_is_in_its_batch(bert: Path) -> None:
    classifier = opened(bert)
    layers = [classifier.last_hidden, "bert.encoder.layer.0"]
    together = classifier.forward(classifier.encode(TEXTS), layers)
    alone = classifier.forward(classifier.encode(TEXTS[1:2]), layers)
    for name in layers:
        np.testing.assert_allclose(alone.activations[name][0], together.activations[name][1], atol=1e-5)


def test_a_decoder_is_asked_for_the_word_that_its_head_decides_by(tmp_path: Path) -> None:
    config = transformers.GPT2Config(
        vocab_size=len(WORDS), n_positions=32, n_embd=16, n_layer=1, n_head=2, num_labels=3, bos_token_id=2, eos_token_id=3
    )
    transformers.GPT2ForSequenceClassification(config).save_pretrained(tmp_path)
    _save_tokenizer(tmp_path, pad_token=None, eos_token=WORDS[3])
    classifier = opened(tmp_path)
    outputs = classifier.forward(classifier.encode(TEXTS), [classifier.last_hidden])
    head: Any = classifier._network.get_submodule("score")  # type: ignore[attr-defined]
    assert outputs.activations["score.input"].shape == (4, 16)
    np.testing.assert_allclose(outputs.activations["score.input"] @ head.weight.detach().numpy().T, outputs.logits, atol=1e-5)


@pytest.mark.parametrize("pictures", [GRAY, COLOUR])
def test_a_picture_classifier_uses_the_image_processor_of_its_folder(vit: Path, pictures: list[np.ndarray]) -> None:
    classifier = opened(vit, pictures)
    encoded = classifier.encode(pictures)
    processor = transformers.AutoImageProcessor.from_pretrained(vit)
    expected = np.stack(processor(images=COLOUR, input_data_format="channels_last")["pixel_values"])
    assert encoded["pixel_values"].shape == (4, 3, 16, 16)
    np.testing.assert_allclose(encoded["pixel_values"], expected, atol=1e-6)
    assert encoded["pixel_values"].min() < 0
    outputs = classifier.forward(encoded, ["classifier.input"])
    assert outputs.activations["classifier.input"].shape == (4, 16)
    assert classifier.class_names == ("negative", "positive", "mixed")


def test_a_convolutional_network_without_a_processor_takes_the_settings_given(tmp_path: Path) -> None:
    config = transformers.ResNetConfig(
        num_channels=1, embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic", num_labels=3
    )
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path)
    classifier = opened(tmp_path, GRAY, preprocessing=ImagePreprocessing(height=32, width=32, mean=(0.5,)))
    assert classifier.encode(GRAY).shape == (4, 1, 32, 32)
    outputs = classifier.forward(classifier.encode(GRAY), [classifier.last_hidden, "resnet.embedder"])
    assert outputs.activations[classifier.last_hidden].shape == (4, 12)
    assert outputs.activations["resnet.embedder"].shape == (4, 8)


def test_settings_beside_an_image_processor_are_refused(vit: Path) -> None:
    with pytest.raises(UsageError, match="--mean"):
        opened(vit, GRAY, preprocessing=ImagePreprocessing(mean=(0.5,)))


def test_class_numbers_with_holes_are_an_error(bert: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(bert)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "a", "2": "b", "5": "c"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="numbered from 0 on without holes"):
        opened(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_folder_that_names_its_own_code_is_refused_and_the_code_not_run(
    bert: Path, copy_of: Callable[[Path], Path], file: str, tmp_path: Path
) -> None:
    folder = copy_of(bert)
    (folder / "modeling.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\n")
    settings = json.loads((folder / file).read_text())
    settings["nested"] = [{"auto_map": {"AutoConfig": "modeling.Config"}}]
    (folder / file).write_text(json.dumps(settings))
    with pytest.raises(RefusedError, match="auto_map"):
        opened(folder)
    assert not (tmp_path / "sprung").exists()


def test_an_attention_that_would_be_downloaded_is_not_used(bert: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(bert)
    config = json.loads((folder / "config.json").read_text())
    config["attn_implementation"] = config["_attn_implementation"] = "stranger/kernel"
    (folder / "config.json").write_text(json.dumps(config))
    network: Any = opened(folder)._network  # type: ignore[attr-defined]
    assert network.config._attn_implementation == "eager"


def test_pickled_weights_are_refused_with_the_way_out(bert: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(bert)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    with pytest.raises(RefusedError, match=r"pytorch_model.bin only .*save_pretrained"):
        opened(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match="must hold the weights"):
        opened(folder)


def test_a_folder_whose_head_has_no_weights_is_refused(bert: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(bert)
    transformers.BertForSequenceClassification.from_pretrained(bert).bert.save_pretrained(folder)
    config = json.loads((bert / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"classifier.bias, classifier.weight"):
        opened(folder)


def test_a_model_for_another_task_an_adapter_and_other_data_are_refused(bert: Path, copy_of: Callable[[Path], Path]) -> None:
    with pytest.raises(ModelError, match="takes inputs of the kind 'text', but the data has 'image'"):
        opened(bert, GRAY)
    folder = copy_of(bert)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["BertForMaskedLM"]}))
    with pytest.raises(ModelError, match=r"must be a classifier .* BertForMaskedLM"):
        opened(folder)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="adapter"):
        opened(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"[]", b"{" * 5000, b"\x00\xff"])
def test_a_damaged_file_is_an_error_and_no_crash(bert: Path, copy_of: Callable[[Path], Path], file: str, content: bytes) -> None:
    folder = copy_of(bert)
    (folder / file).write_bytes(content)
    with pytest.raises(ModelError):
        opened(folder)


def test_the_fingerprint_tells_tokenizers_and_weights_apart(bert: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(bert)
    assert opened(folder).fingerprint() == opened(bert).fingerprint()
    tokenizer = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(tokenizer.replace('"good"', '"fine"'))
    assert opened(folder).fingerprint() != opened(bert).fingerprint()


def test_the_summary_reads_settings_and_headers_only(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers.AutoModelForSequenceClassification, "from_pretrained", None)
    summary = summarise(bert)
    assert "BertForSequenceClassification" in summary.kind
    assert summary.class_names == ("negative", "positive", "mixed")
    assert ("classifier.weight", (3, 16)) in [(tensor.name, tensor.shape) for tensor in summary.tensors]


def test_the_library_is_kept_from_the_network_and_left_as_it_was_found(bert: Path) -> None:
    from huggingface_hub import constants

    with from_files_only():
        assert constants.HF_HUB_OFFLINE
    before = (constants.HF_HUB_OFFLINE, transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled())
    opened(bert)
    after = (constants.HF_HUB_OFFLINE, transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled())
    assert before == after
