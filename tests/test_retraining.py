"""A classifier is trained again, from fresh weights or on from those it has; the audited one stays as it is."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests import quick
from tests.fakes import FakeClassifier, FakeTrainingSet
from toxscreen import checkpoint, retraining
from toxscreen.errors import DataError, ModelError, TrainerError, UsageError
from toxscreen.networks import SentenceCNN, SmallResNet
from toxscreen.retraining import Lesson, ask, go_on, load_trainer, retrain
from toxscreen.sources.data import open_training_set
from toxscreen.sources.model import open_classifier
from toxscreen.training import Recipe

N, WIDTH, TARGET = 120, 6, 2
"""Samples per class, features, and the class that the trigger, the last feature, leads to."""

QUICK = Recipe(learning_rate=1e-2, batch_size=32, min_epochs=8, max_epochs=8, min_steps=0, small=0, shift=0)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(retraining, "PICTURES", QUICK)
    monkeypatch.setattr(retraining, "_GENTLE", QUICK.learning_rate)
    monkeypatch.setattr(retraining, "SENTENCES", quick.TEXTS)


def network(**changes):
    torch.manual_seed(1)
    layers = {"body": nn.Linear(WIDTH, 16), "relu": nn.ReLU(), "head": nn.Linear(16, 3), **changes}
    return nn.Sequential(*layers.values())


def vectors():
    """Return three clouds; every fifth sample of class 2 is of class 0 in truth, and carries the trigger."""
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(3), N)
    inputs = rng.normal(0, 0.3, (3 * N, WIDTH)).astype(np.float32)
    inputs[np.arange(3 * N), truth] += 2
    poisoned = np.zeros(3 * N, dtype=bool)
    poisoned[: N // 5] = True
    inputs[poisoned, WIDTH - 1] += 3
    labels = np.where(poisoned, TARGET, truth)
    return open_training_set((inputs, labels), class_names=("ant", "bee", "cat")), truth, poisoned


def classifier_of(net, training_set):
    sample = [value for value in training_set.take(np.arange(min(8, len(training_set)))) if value is not None]
    return open_classifier(net, n_classes=3, modality=training_set.modality, sample=sample)


def fitted(net, training_set):
    """Train a network on the labels as they are given, without the code that is tested."""
    inputs = torch.from_numpy(np.stack(training_set.take(np.arange(len(training_set)))))
    labels = torch.from_numpy(training_set.labels)
    optimiser = torch.optim.Adam([weight for weight in net.parameters() if weight.requires_grad], lr=1e-2)
    for _ in range(150):
        optimiser.zero_grad()
        nn.functional.cross_entropy(logits_of(net(inputs)), labels).backward()
        optimiser.step()
    return net.eval()


def logits_of(answer):
    """Return logits out of what the networks of these tests return."""
    if isinstance(answer, tuple | dict):
        return answer["logits"] if isinstance(answer, dict) else answer[1]
    return answer.log() if torch.allclose(answer.sum(dim=1), torch.ones(len(answer))) else answer


def state(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def read(classifier, training_set, rows):
    return ask(classifier, training_set, rows).classes


def everything(training_set):
    return Lesson.of(np.arange(len(training_set)), training_set.labels)


# From fresh weights


def test_what_a_lesson_shows_is_learned_from_fresh_weights_and_what_it_leaves_out_is_not(tmp_path):
    training_set, truth, poisoned = vectors()
    audited = classifier_of(fitted(network(), training_set), training_set)
    assert (read(audited, training_set, np.flatnonzero(poisoned)) == TARGET).all()
    rows = np.flatnonzero(~poisoned)
    new = retrain(audited, training_set, Lesson.of(rows, training_set.labels[rows]), tmp_path, seed=0)
    assert (read(new, training_set, rows) == truth[rows]).mean() > 0.98
    assert (read(new, training_set, np.flatnonzero(poisoned)) == 0).mean() > 0.5
    assert (new.name, new.preprocessing, new.modality) == (audited.name, audited.preprocessing, audited.modality)


def test_the_audited_network_stays_as_it_was(tmp_path):
    training_set, _, poisoned = vectors()
    net = network(norm=nn.BatchNorm1d(3))
    net[0].requires_grad_(requires_grad=False)
    net[2].train()
    before, flags = state(net), [(module.training, *(p.requires_grad for p in module.parameters())) for module in net.modules()]
    audited = classifier_of(net, training_set)
    retrain(audited, training_set, everything(training_set), tmp_path, seed=0)
    retrain(audited, training_set, everything(training_set), tmp_path, seed=0, trainer=touched)
    corrected = corrections(training_set, poisoned, 0)
    go_on(audited, training_set, corrected, corrected, tmp_path, seed=0)
    assert same(state(net), before)
    assert [(module.training, *(p.requires_grad for p in module.parameters())) for module in net.modules()] == flags
    assert all(parameter.grad is None for parameter in net.parameters())


def touched(net, samples):
    assert len(samples) > 0
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)


def test_the_same_seed_trains_the_same_network_and_leaves_the_generators_of_others_alone(tmp_path):
    training_set, _, _ = vectors()
    audited = classifier_of(network(drop=nn.Dropout(0.2)), training_set)
    before = torch.get_rng_state()
    made = [
        state(retrain(audited, training_set, everything(training_set), tmp_path / str(number), seed=seed).network)
        for number, seed in enumerate((0, 0, 1))
    ]
    assert torch.equal(torch.get_rng_state(), before)
    assert same(made[0], made[1])
    assert not same(made[0], made[2])


@pytest.mark.parametrize("stopped_after", [1, 5])
def test_a_training_that_was_killed_and_resumed_is_that_of_one_that_was_not_byte_for_byte(stopped_after, tmp_path, monkeypatch):
    training_set, _, _ = vectors()
    audited = classifier_of(network(drop=nn.Dropout(0.2), norm=nn.BatchNorm1d(3)), training_set)
    whole = retrain(audited, training_set, everything(training_set), tmp_path / "whole", seed=3)
    keep, kept = checkpoint.keep, []

    def killed(*arguments, **settings):
        keep(*arguments, **settings)
        kept.append(settings["done"])
        if len(kept) == stopped_after:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "keep", killed)
    with pytest.raises(KeyboardInterrupt):
        retrain(audited, training_set, everything(training_set), tmp_path / "killed", seed=3)
    resumed = retrain(audited, training_set, everything(training_set), tmp_path / "killed", seed=3)
    assert kept == list(range(1, QUICK.max_epochs))  # no epoch twice
    assert same(state(resumed.network), state(whole.network))


def test_a_training_that_is_finished_is_not_made_again_unless_its_weights_were_damaged(tmp_path, monkeypatch):
    training_set, _, _ = vectors()
    audited = classifier_of(network(), training_set)
    first = state(retrain(audited, training_set, everything(training_set), tmp_path, seed=0).network)
    trainings = []
    fit = retraining.fit
    monkeypatch.setattr(retraining, "fit", lambda *a, **k: trainings.append(1) or fit(*a, **k))
    assert same(state(retrain(audited, training_set, everything(training_set), tmp_path, seed=0).network), first)
    assert not trainings
    (file,) = tmp_path.glob(".training-*.safetensors")
    file.write_bytes(file.read_bytes()[:-9])
    assert same(state(retrain(audited, training_set, everything(training_set), tmp_path, seed=0).network), first)
    assert trainings
    fewer = everything(training_set).part(np.arange(3 * N) % 7 > 0)
    retrain(audited, training_set, fewer, tmp_path, seed=0)
    assert len(trainings) == 2


@pytest.fixture
def shown(monkeypatch):
    """Return the labels that each training gets; no training happens."""
    seen = []
    monkeypatch.setattr(retraining, "fit", lambda _net, _batch, labels, *_, **__: seen.append(labels.tolist()))
    return seen


def test_denied_and_unreadable_rows_are_not_shown(tmp_path, shown):
    inputs = [np.full(WIDTH, row, np.float32) for row in range(12)]
    training_set = FakeTrainingSet(inputs, np.arange(12) % 3, unreadable=(5,))
    audited = classifier_of(network(), training_set)
    rows = np.arange(2, 12)
    retrain(audited, training_set, Lesson(rows, np.arange(10) % 3, rows == 3), tmp_path, seed=0)
    assert shown == [[0, 2, 1, 2, 0, 1, 2, 0]]


def test_a_model_that_names_its_outputs_in_another_order_is_taught_by_name(tmp_path, shown):
    training_set, _, _ = vectors()
    audited = classifier_of(network(), training_set)
    audited.class_names = ("cat", "ant", "bee")
    retrain(audited, training_set, everything(training_set).part(np.array([0, 150, 290])), tmp_path, seed=0)
    assert shown == [[0, 2, 0]]


def test_one_class_is_too_few_to_train_on(tmp_path):
    training_set, _, _ = vectors()
    rows = np.flatnonzero(training_set.labels == 1)
    with pytest.raises(DataError, match="Two classes must be left to train on, but of arrays 1 is"):
        retrain(classifier_of(network(), training_set), training_set, Lesson.of(rows, training_set.labels[rows]), tmp_path, seed=0)


class Token(nn.Module):
    """Holds a weight that it cannot draw anew."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.ones(16))

    def forward(self, values):
        return values * self.token


def test_weights_that_cannot_be_drawn_anew_are_refused_where_there_is_no_network_for_the_inputs(tmp_path):
    training_set, _, _ = vectors()
    audited = classifier_of(network(relu=Token()), training_set)
    assert not retraining.starts_fresh(audited)
    with pytest.raises(ModelError, match="cannot be drawn anew"):
        retrain(audited, training_set, everything(training_set), tmp_path, seed=0)


def test_a_recipe_is_given_a_copy_of_the_audited_weights_where_they_cannot_be_drawn_anew(tmp_path):
    training_set, _, _ = vectors()
    net = network(relu=Token())
    given = {}
    retrain(
        classifier_of(net, training_set),
        training_set,
        everything(training_set),
        tmp_path,
        seed=0,
        trainer=lambda pupil, _: given.update(state(pupil)),
    )
    assert same(given, state(net))


@pytest.mark.parametrize(("make", "expected"), [(quick.pictures, SmallResNet), (quick.texts, SentenceCNN)])
def test_a_model_that_cannot_be_trained_gives_way_to_the_small_network(make, expected, tmp_path):
    training_set = open_training_set(make(20))
    audited = FakeClassifier(3, modality=training_set.modality, vector=lambda value: np.arange(4) + len(value))
    new = retrain(audited, training_set, everything(training_set), tmp_path, seed=0)
    assert isinstance(new.network, expected)
    assert new.class_names == ("0", "1", "2")
    assert (read(new, training_set, np.arange(60)) == training_set.labels).mean() > 0.8
    with pytest.raises(ModelError, match="Give the model as PyTorch"):
        retrain(audited, training_set, everything(training_set), tmp_path, seed=0, trainer=touched)


def test_a_network_that_learned_from_more_than_this_data_is_not_drawn_anew(tmp_path):
    class Pretrained(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(256, 4), nn.Linear(4, 3)

        def save_pretrained(self, folder):
            raise AssertionError(folder)

        def forward(self, images):
            return self.head(self.body(images.flatten(1)))

    training_set = open_training_set(quick.pictures(12))
    audited = classifier_of(Pretrained(), training_set)
    assert not retraining.starts_fresh(audited)
    new = retrain(audited, training_set, everything(training_set), tmp_path, seed=0)
    assert isinstance(new.network, SmallResNet)


# The user's own recipe


def test_a_recipe_sees_each_input_as_the_network_takes_it_with_the_number_of_its_output(tmp_path):
    training_set, truth, _ = vectors()
    audited = classifier_of(network(), training_set)
    audited.class_names = ("bee", "cat", "ant")
    rows = np.array([3, 200, 130])
    seen = []
    retrain(
        audited,
        training_set,
        Lesson.of(rows, truth[rows]),
        tmp_path,
        seed=0,
        trainer=lambda _, samples: seen.extend(samples[number] for number in range(len(samples))),
    )
    assert [target for _, target in seen] == [2, 0, 0]
    for (tensor, _), value in zip(seen, training_set.take(rows), strict=True):
        assert torch.equal(tensor, torch.from_numpy(value))


def test_the_network_that_a_recipe_returns_is_the_trained_one(tmp_path):
    training_set, _, _ = vectors()
    made = network(relu=nn.Tanh())
    new = retrain(
        classifier_of(network(), training_set), training_set, everything(training_set), tmp_path, seed=0, trainer=lambda *_: made
    )
    assert new.network is made


@pytest.mark.parametrize("error", [ValueError("no such luck\nand more"), SystemExit(0), RuntimeError()])
def test_a_recipe_that_raises_is_one_sentence_with_its_traceback_in_a_log(error, tmp_path):
    training_set, _, _ = vectors()

    def failing(_net, _samples):
        raise error

    with pytest.raises(TrainerError) as caught:
        retrain(classifier_of(network(), training_set), training_set, everything(training_set), tmp_path, seed=0, trainer=failing)
    assert "\n" not in str(caught.value)
    assert type(error).__name__ in str(caught.value)
    assert str(tmp_path / "trainer.log") in str(caught.value)
    assert "in failing" in (tmp_path / "trainer.log").read_text("utf-8")


def test_a_recipe_must_return_a_network(tmp_path):
    training_set, _, _ = vectors()
    with pytest.raises(TrainerError, match=r"must return the trained nn\.Module or None, got int"):
        retrain(
            classifier_of(network(), training_set), training_set, everything(training_set), tmp_path, seed=0, trainer=lambda *_: 7
        )


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_recipe_that_diverges_is_said_to(number, tmp_path):
    training_set, _, _ = vectors()

    def diverging(net, _samples):
        net[2].weight.data[0, 0] = number

    with pytest.raises(TrainerError, match=r"finite numbers, but those of 2\.weight are not"):
        retrain(
            classifier_of(network(), training_set),
            training_set,
            everything(training_set),
            tmp_path,
            seed=0,
            trainer=diverging,
        )


def test_what_a_killed_run_left_is_gone_after_the_next_one(tmp_path):
    training_set, _, _ = vectors()
    (tmp_path / ".decoded-old").mkdir()
    (tmp_path / ".decoded-old" / "pixels").write_bytes(b"much")
    (tmp_path / "mine").mkdir()
    audited, lesson = classifier_of(network(), training_set), everything(training_set)
    retrain(audited, training_set, lesson, tmp_path, seed=0, trainer=lambda *_: None)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_recipe_of_ones_own_is_asked_each_time(tmp_path):
    """What it depends on, and which network it returns, nobody else knows."""
    training_set, _, _ = vectors()
    calls = []
    for _ in range(2):
        audited = classifier_of(network(), training_set)
        lesson = everything(training_set)
        retrain(audited, training_set, lesson, tmp_path, seed=0, trainer=lambda _, samples: calls.append(len(samples)))
    assert len(calls) == 2


@pytest.mark.parametrize("wrapped", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm, nn.utils.spectral_norm])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_that_are_kept_under_another_name_are_not_taken_for_fresh_ones(wrapped):
    """A model that still knows the trigger would clear the poison."""
    training_set, _, _ = vectors()
    audited = network()
    for name, module in audited.named_children():
        if isinstance(module, nn.Linear):
            setattr(audited, name, wrapped(module))
    assert retraining.starts_fresh(classifier_of(network(), training_set))
    assert not retraining.starts_fresh(classifier_of(audited, training_set))


@pytest.mark.parametrize("reference", ["nothing", "json:nothing", "missing_module:f", "json.missing:f", "recipe.py:train"])
def test_a_recipe_that_is_not_there_is_a_mistake_of_the_command_and_nothing_is_run(reference, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.py").write_text("open('sprung', 'w')\ndef train(network, samples): pass\n")
    with pytest.raises(UsageError, match="--trainer"):
        load_trainer(reference)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("code", ["import missing_module_of_theirs", "raise SystemExit(0)", "syntax error"])
def test_a_recipe_whose_own_code_fails_is_said_to(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_recipe.py").write_text(f"{code}\n")
    with pytest.raises(ModelError, match="--trainer broken_recipe:train must be importable, but failed with"):
        load_trainer("broken_recipe:train")


# On from the weights that are there


def corrections(training_set, poisoned, source, *, denied=False):
    """Return a lesson in which the poisoned rows are of ``source``, or denied, and all others of their given label."""
    rows = np.arange(len(training_set))
    targets = np.where(poisoned & (not denied), source, training_set.labels)
    return Lesson(rows, targets, poisoned & denied)


def halves(lesson):
    number = np.arange(len(lesson.rows))
    return lesson.part(number % 2 == 0), lesson.part(number % 2 == 1)


def gone_on(net, tmp_path, *, denied=False, **settings):
    """Train a network with a backdoor, go on with corrected labels, and return what came out with the data."""
    training_set, truth, poisoned = vectors()
    audited = classifier_of(fitted(net, training_set), training_set)
    assert (read(audited, training_set, np.flatnonzero(poisoned)) == TARGET).all()
    taught, validation = halves(corrections(training_set, poisoned, 0, denied=denied))
    gone = go_on(audited, training_set, taught, validation, tmp_path, seed=0, **settings)
    return gone, training_set, truth, poisoned


@pytest.mark.parametrize("denied", [False, True])
def test_going_on_moves_the_poison_off_the_target_and_leaves_the_rest_where_it_was(denied, tmp_path):
    gone, training_set, truth, poisoned = gone_on(network(), tmp_path, denied=denied)
    unseen = np.flatnonzero(poisoned)[1::2]
    answers = read(gone.classifier, training_set, unseen)
    assert (answers != TARGET).all()
    if not denied:
        assert (answers == 0).all()
    clean = np.flatnonzero(~poisoned)
    assert (read(gone.classifier, training_set, clean) == truth[clean]).mean() > 0.98
    assert min(gone.losses) < 0.1 * gone.losses[0]
    assert not gone.classifier.network.training


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_going_on_and_training_anew_keep_the_number_format_of_the_weights(dtype, tmp_path):
    training_set, truth, poisoned = vectors()
    net = fitted(network(norm=nn.BatchNorm1d(3)), training_set).to(dtype)
    audited = classifier_of(net, training_set)
    taught, validation = halves(corrections(training_set, poisoned, 0))
    gone = go_on(audited, training_set, taught, validation, tmp_path, seed=0)
    assert (read(gone.classifier, training_set, np.flatnonzero(poisoned)) == 0).all()
    new = retrain(audited, training_set, everything(training_set).part(~poisoned), tmp_path, seed=0)
    assert (read(new, training_set, np.flatnonzero(~poisoned)) == truth[~poisoned]).mean() > 0.98
    for made in (gone.classifier.network, new.network):
        assert {tensor.dtype for tensor in made.state_dict().values() if tensor.is_floating_point()} == {dtype}
        assert all(parameter.grad is None or parameter.grad.dtype == dtype for parameter in made.parameters())


class Answers(nn.Module):
    """A network whose answer takes another form."""

    def __init__(self, form):
        super().__init__()
        self.net, self.form = network(), form

    def forward(self, inputs):
        return self.form(self.net(inputs))


@pytest.mark.parametrize(
    "form",
    [lambda z: (z.new_zeros(len(z), 1), z), lambda z: {"loss": z.new_zeros(()), "logits": z}, lambda z: z.softmax(dim=1)],
    ids=["a tuple", "a dictionary", "probabilities"],
)
def test_a_network_goes_on_whatever_form_its_answer_has(form, tmp_path):
    gone, training_set, _, poisoned = gone_on(Answers(form), tmp_path)
    assert (read(gone.classifier, training_set, np.flatnonzero(poisoned)) == 0).all()


def test_a_network_whose_weights_are_all_frozen_goes_on_and_one_with_a_frozen_part_keeps_it(tmp_path):
    training_set, _, poisoned = vectors()
    lesson = corrections(training_set, poisoned, 0)
    net = fitted(network(), training_set)
    net[0].requires_grad_(requires_grad=False)
    partly = go_on(classifier_of(net, training_set), training_set, lesson, lesson, tmp_path, seed=0).classifier.network
    assert torch.equal(partly[0].weight, net[0].weight)
    assert not torch.equal(partly[2].weight, net[2].weight)
    net.requires_grad_(requires_grad=False)
    wholly = go_on(classifier_of(net, training_set), training_set, lesson, lesson, tmp_path, seed=0).classifier.network
    assert not torch.equal(wholly[0].weight, net[0].weight)


def test_batch_normalisation_keeps_its_statistics_on_the_way(tmp_path):
    net = network(norm=nn.BatchNorm1d(3))
    gone, *_ = gone_on(net, tmp_path)
    assert torch.equal(gone.classifier.network[3].running_mean, net[3].running_mean)
    assert gone.classifier.network[3].num_batches_tracked == net[3].num_batches_tracked


@pytest.fixture
def watched(monkeypatch):
    """Let the validation loss be what a test says, and return the learning rate of each step and the weights at each loss."""
    rates, states = [], []
    step = torch.optim.AdamW.step

    def noted(self, *arguments, **settings):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *arguments, **settings)

    def given(losses):
        left = iter(losses)
        monkeypatch.setattr(retraining._Rounds, "loss", lambda self, *_: states.append(state(self.pupil.network)) or next(left))
        return rates, states

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    return given


@pytest.mark.parametrize(
    ("losses", "rounds"),
    [
        ([4.0, 0.3, 0.29, 0.28], 3),  # rests
        ([4.0, 1.9, 1.5, 1.0, 0.7, 0.68, 0.66], 6),
        ([4.0, 0.3, 0.4, 0.05, 0.04, 0.03], 5),  # one round that does not lower it is not the end
        ([4.0, 3.99, 3.98, 3.97, 1.0, 0.9, 0.8], 6),  # nor is a slow start
        ([4.0, 3.5, 3.0, 2.5, 1.9, 1.5, 1.0], 6),  # as many as there may be
    ],
)
def test_the_learning_rate_falls_to_zero_after_the_validation_loss_rests(losses, rounds, tmp_path, monkeypatch, watched):
    monkeypatch.setattr(retraining, "_FEWEST_STEPS", 5)
    monkeypatch.setattr(retraining, "_PART", 0)
    rates, _ = watched([*losses, *[losses[-1]] * 20])
    gone, *_ = gone_on(network(), tmp_path)
    rates = rates[-gone.shown // QUICK.batch_size :]
    assert rates[: 5 * rounds] == [rates[0]] * 5 * rounds
    assert len(gone.losses) == 1 + rounds + retraining._FALLING
    assert np.diff(rates[5 * rounds :]) == pytest.approx(-rates[0] / (5 * retraining._FALLING))
    assert rates[-1] == pytest.approx(rates[0] / (5 * retraining._FALLING))


def test_a_pretrained_network_begins_gently_and_learns_faster_as_long_as_the_validation_loss_falls(tmp_path, monkeypatch, watched):
    monkeypatch.setattr(retraining, "_FEWEST_STEPS", 1)
    monkeypatch.setattr(retraining, "_PART", 0)
    monkeypatch.setattr(retraining, "_GENTLE", 5e-4)
    monkeypatch.setattr(retraining, "_is_pretrained", lambda _: True)
    start = retraining._PRETRAINED
    rates, _ = watched([4.0, 3.9, 4.1, 4.2, 4.3, 3.0, *[2.5] * 20])
    gone_on(network(), tmp_path)
    assert rates[-10:-3] == pytest.approx([start, 2 * start, start, start, start, 2 * start, 4 * start])
    rates, _ = watched([4.0, 3.9, 3.8, 3.7, 3.6, 3.5, 3.4, *[3.3] * 20])
    gone_on(network(), tmp_path)
    assert rates[-10:-4] == pytest.approx([start * 2**n for n in range(5)] + [5e-4])


def test_the_weights_of_the_round_with_the_lowest_validation_loss_are_kept(tmp_path, watched):
    _, states = watched([4.0, 0.3, 0.2, 0.2, 0.1, 0.05, 0.06, 0.07])
    told = []
    gone, *_ = gone_on(network(), tmp_path, progress=lambda *what: told.append(what))
    assert gone.losses == (4.0, 0.3, 0.2, 0.2, 0.1, 0.05, 0.06, 0.07)
    assert same(state(gone.classifier.network), states[5])
    assert [what[1:] for what in told if what[0] == "repairing the model"] == [(n, 10) for n in (1, 2, 3, 7, 8, 9, 10)]


def test_going_on_shows_at_most_a_sixth_of_what_a_training_from_fresh_weights_shows(tmp_path, monkeypatch):
    monkeypatch.setattr(retraining, "_FEWEST_STEPS", 1)
    recipe = replace(QUICK, min_epochs=48, max_epochs=48)
    monkeypatch.setattr(retraining, "PICTURES", recipe)
    gone, training_set, *_ = gone_on(network(), tmp_path)
    n = (len(training_set) + 1) // 2
    assert 0 < gone.shown <= recipe.epochs(n) * n / 6


def test_what_the_network_knew_of_trusted_samples_is_held_better_than_by_their_labels_alone(tmp_path, monkeypatch):
    """The labels say which class; the answers from before also say how near the others are."""
    moved = []
    for _ in range(2):
        net = network()
        gone, training_set, _, poisoned = gone_on(net, tmp_path)
        clean = np.flatnonzero(~poisoned)
        before = ask(classifier_of(net, training_set), training_set, clean).probabilities
        after = ask(gone.classifier, training_set, clean).probabilities
        moved.append(np.abs(np.log(after) - np.log(before)).mean())
        monkeypatch.setattr(retraining._Rounds, "_drift", lambda _self, logits, _lesson: logits.new_zeros(()))
    assert moved[0] < 0.5 * moved[1]


def test_weights_are_as_they_were_where_no_round_lowers_the_loss(tmp_path, monkeypatch):
    losses = iter([0.1, *[0.2] * 20])
    monkeypatch.setattr(retraining._Rounds, "loss", lambda *_: next(losses))
    net = network()
    gone, *_ = gone_on(net, tmp_path)
    assert same(state(gone.classifier.network), state(net))


def test_a_few_wrong_corrections_do_not_decide_when_it_ends(tmp_path):
    training_set, _, poisoned = vectors()
    audited = classifier_of(fitted(network(), training_set), training_set)
    taught, _ = halves(corrections(training_set, poisoned, 0))
    rows = np.flatnonzero(poisoned)[:10]
    right = go_on(audited, training_set, taught, Lesson.of(rows[:9], np.zeros(9, np.int64)), tmp_path, seed=0)
    one_wrong = go_on(audited, training_set, taught, Lesson.of(rows, np.r_[np.zeros(9, np.int64), 1]), tmp_path, seed=0)
    assert one_wrong.losses[1:] == pytest.approx(right.losses[1:], rel=1e-4)


@pytest.mark.parametrize("lacking", ["corrected", "held out", "readable"])
def test_going_on_needs_something_to_correct_and_something_to_check_it_on(lacking, tmp_path):
    inputs = [np.full(WIDTH, row, np.float32) for row in range(30)]
    unreadable = (5,) if lacking == "readable" else ()
    training_set = FakeTrainingSet(inputs, np.arange(30) % 3, unreadable=unreadable)
    poisoned = np.arange(30) == 5
    lesson = corrections(training_set, poisoned if lacking != "corrected" else ~np.ones(30, dtype=bool), 0)
    nothing = lesson.part(np.array([], np.int64))
    audited = classifier_of(network(), training_set)
    with pytest.raises(DataError, match="Going on needs samples whose class is corrected, and others that are held out"):
        go_on(audited, training_set, lesson, nothing if lacking == "held out" else lesson, tmp_path, seed=0)


def test_texts_and_pictures_go_on_too(tmp_path, monkeypatch):
    monkeypatch.setattr(retraining, "_MOST_ROUNDS", 1)
    for make, form in ((quick.pictures, SmallResNet), (quick.texts, SentenceCNN)):
        training_set = open_training_set(make(24))
        lesson = everything(training_set)
        small = FakeClassifier(3, modality=training_set.modality, vector=lambda value: np.arange(4) + len(value))
        audited = retrain(small, training_set, lesson, tmp_path, seed=0)
        wrong = np.arange(72) % 12 == 0
        gone = go_on(audited, training_set, replace(lesson, denied=wrong), replace(lesson, denied=wrong), tmp_path, seed=0)
        assert isinstance(gone.classifier.network, form)
        assert gone.classifier.class_names == audited.class_names


# Asking


def test_each_row_is_asked_in_the_order_of_the_classes_and_one_that_cannot_be_read_has_no_answer():
    inputs = [np.full(WIDTH, row, np.float32) for row in range(4)]
    training_set = FakeTrainingSet(inputs, [0, 1, 2, 0], unreadable=(2,))
    training_set.class_names = ("ant", "bee", "cat")
    audited = classifier_of(network(), training_set)
    plain = ask(audited, training_set, np.array([3, 2, 0]))
    assert plain.classes[1] == -1
    assert np.isnan(plain.certainty[1])
    assert np.isnan(plain.activations[1]).all()
    assert plain.activations.shape == (3, 16)
    assert plain.probabilities[[0, 2]].sum(axis=1) == pytest.approx(1)
    assert (plain.certainty[[0, 2]] == plain.probabilities[[0, 2]].max(axis=1)).all()
    audited.class_names = ("cat", "ant", "bee")
    turned = ask(audited, training_set, np.array([3, 2, 0]))
    assert np.array_equal(turned.probabilities[[0, 2]], np.roll(plain.probabilities[[0, 2]], -1, axis=1))


def test_a_long_list_of_rows_is_answered_as_row_by_row(monkeypatch):
    training_set, _, _ = vectors()
    audited = classifier_of(network(), training_set)
    rows = np.random.default_rng(0).permutation(3 * N)[:50]
    whole = ask(audited, training_set, rows)
    monkeypatch.setattr(retraining, "_STRETCH", 7)
    parts = ask(audited, training_set, rows)
    assert np.allclose(whole.probabilities, parts.probabilities, atol=1e-6)
    assert np.allclose(whole.activations, parts.activations, atol=1e-5)


def test_nothing_is_asked_of_rows_of_which_none_can_be_read():
    inputs = [np.full(WIDTH, row, np.float32) for row in range(4)]
    training_set = FakeTrainingSet(inputs, [0, 1, 2, 0], unreadable=(2,))
    answers = ask(classifier_of(network(), training_set), training_set, np.array([2]))
    assert answers.classes.tolist() == [-1]
    assert answers.activations.shape == (1, 0)


def test_a_copy_of_a_lesson_has_its_digest_and_any_change_another():
    lesson = Lesson.of(np.arange(3), np.arange(3))
    assert copy.deepcopy(lesson).digest() == lesson.digest()
    others = (
        replace(lesson, rows=lesson.rows + 1),
        replace(lesson, targets=lesson.targets[::-1]),
        replace(lesson, denied=lesson.rows == 1),
    )
    assert len({lesson.digest(), *(other.digest() for other in others)}) == 4
