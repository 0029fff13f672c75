from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from models.cross_passages import Scores
from models.cross_recipe import Recipe
from models.cross_student import Counting, Kernels, load_student
from models.tokens import copied
from models.training.groups import Group
from models.training.student import (
    StudentOptions,
    Teacher,
    WindowStudent,
    gains,
    joined,
    ndcg_loss,
    opened,
    passed_on,
    save,
    shared,
    train,
)
from tests.models.cross_folders import headed, say

SMALL = StudentOptions(steps=160, batch=8, learning_rate=0.02, validate=80, width=32)
WORDS = ("tide", "moon", "sea", "water", "cat", "dog", "rain", "sun")


@pytest.fixture
def net(tmp_path: Path) -> str:
    """A cross-encoder that reads two windows of 4 tokens."""
    path = headed(tmp_path / "cross")
    say(path, model="../net", window=4, overlap=1, passages=2, weights=[1.0])
    return str(path)


def groups(number: int, seed: int = 0) -> list[Group]:
    """Passages of three words by chance."""
    chance = np.random.default_rng(seed)
    found = []
    for _ in range(number):
        documents = tuple(("", " ".join(chance.choice(WORDS, 3))) for _ in range(8))
        query = str(chance.choice(WORDS))
        found.append(Group(query, documents, (False,) * 8, {}, "toys"))
    return found


def test_the_best_windows_gain_most():
    assert gains(np.array([0.1, 0.9, 0.5, 0.7], np.float32), 3).tolist() == [0, 3, 1, 2]
    assert gains(np.array([1.0, 1.0], np.float32), 3).tolist() == [3, 2]


def test_the_loss_of_two_windows():
    """D(1) = 1 and D(2) = log2 3, so delta is 1 - 1 / log2 3; G is 1 and 0."""
    delta = 1 - 1 / np.log2(3)
    gained = torch.tensor([0.0, 1.0])
    assert ndcg_loss(torch.tensor([0.0, 0.0]), gained).item() == pytest.approx(delta)
    for ahead in (2.0, -3.0):
        loss = ndcg_loss(torch.tensor([0.0, ahead]), gained).item()
        assert loss == pytest.approx(delta * np.log2(1 + np.exp(-ahead)))


def test_the_loss_by_its_formula():
    scores, gained = [0.3, -1.0, 2.0, 0.9], [0, 3, 2, 1]
    ranks = np.argsort(np.argsort(-np.array(scores)))
    best = 3 / np.log2(2) + 2 / np.log2(3) + 1 / np.log2(4)
    wanted = 0.0
    for i in range(4):
        for j in range(4):
            if gained[i] > gained[j]:
                apart = abs(int(ranks[i] - ranks[j]))
                delta = abs(1 / np.log2(1 + apart) - 1 / np.log2(2 + apart))
                surprise = np.log2(1 + np.exp(scores[j] - scores[i]))
                wanted += delta * (gained[i] - gained[j]) / best * surprise
    found = ndcg_loss(torch.tensor(scores), torch.tensor(gained, dtype=torch.float32))
    assert found.item() == pytest.approx(wanted)


def test_shared_is_how_many_of_the_best_are_among_the_best():
    scores = np.array([4.0, 3.0, 2.0, 1.0], np.float32)
    assert shared(scores, scores, 2) == 1.0
    assert shared(scores, -scores, 2) == 0.0
    assert shared(scores, np.array([9.0, 0.0, 8.0, 0.0], np.float32), 2) == 0.5


def test_passages_are_joined_in_an_order_that_hangs_on_them_alone():
    (one,) = groups(1)
    again = one.take(range(7, -1, -1))
    assert joined(one, 0) == joined(again, 0) != joined(one, 1)
    assert sorted(joined(one, 0).split("\n\n")) == sorted(one.texts)


def test_untrained_it_estimates_nearly_as_one_that_counts(net: str):
    embeddings, teacher = opened(net, SMALL, None)
    student = WindowStudent(embeddings, teacher, StudentOptions(width=32))
    for group in groups(6):
        document = teacher.document(group)
        with torch.inference_mode():
            found = student.estimates(document).numpy()
        counted = Counting().estimates(*document[:3])
        if np.ptp(counted):
            assert found[counted == counted.max()].min() > found[counted == counted.min()].max()


def test_what_was_trained_is_what_is_served(net: str, tmp_path: Path):
    embeddings, teacher = opened(net, SMALL, None)
    student = WindowStudent(embeddings, teacher, SMALL)
    chance = torch.Generator().manual_seed(5)
    for weight in student.parameters():
        weight.data += 0.3 * torch.randn(weight.shape, generator=chance)
    student.scales.data -= 3.0  # far below 0, and the scales that are saved are above
    save(student, tmp_path)
    served = load_student(tmp_path, embeddings)
    assert isinstance(served, Kernels)
    for group in groups(3):
        document = teacher.document(group)
        with torch.inference_mode():
            wanted = student.estimates(document).numpy()
        np.testing.assert_allclose(served.estimates(*document[:3]), wanted, rtol=1e-4, atol=1e-3)


def test_it_learns_which_windows_the_net_likes(net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """To a question of cats this net wants the sea: counting words of the question does not help."""
    embeddings, _ = opened(net, SMALL, None)
    whole = copied(AutoTokenizer.from_pretrained(Path(net).parent / "net").backend_tokenizer)
    teacher = Teacher(Riddles(), whole, SMALL)
    monkeypatch.setattr("models.training.student.opened", lambda *_: (embeddings, teacher))
    run = train(groups(300), groups(30, seed=1), tmp_path, SMALL, net, None)
    found = [entry for entry in run.history if "found" in entry]
    assert found[0]["found"] < 0.5
    assert run.best > found[0]["counting"] + 0.2
    assert {entry["counting"] for entry in found} == {found[0]["counting"]}
    assert isinstance(load_student(tmp_path, embeddings), Kernels)


class Riddles:
    """Likes a window by how often it says the word that is four further on."""

    recipe = Recipe(window=4, overlap=1, passages=2, weights=(1.0,))

    def predict(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        wanted = [WORDS[(WORDS.index(query) + 4) % len(WORDS)] for query, _ in pairs]
        counts = [text.split().count(word) for word, (_, text) in zip(wanted, pairs, strict=True)]
        return np.array(counts, np.float32)


def test_the_cross_encoder_is_asked_once_a_window(net: str):
    _, teacher = opened(net, SMALL, None)
    (group,) = groups(1)
    assert teacher.document(group) is teacher.document(group)
    document = teacher.document(group)
    assert document.scores.shape == (len(document.windows),) == (6,)
    assert document.windows[-1, 1] == len(document.pieces) == 24


def test_documents_are_cut_off_and_short_ones_teach_nothing(net: str, tmp_path: Path):
    _, teacher = opened(net, StudentOptions(longest=3), None)
    (group,) = groups(1)
    assert len(teacher.document(group).windows) == 3
    assert teacher.chooses(group)
    assert not teacher.chooses(group.take([0, 1]))
    with pytest.raises(ValueError, match="0 groups for training"):
        train([group.take([0])], groups(1), tmp_path, SMALL, net, None)


def test_pieces_pass_an_untrained_convolution():
    embeddings = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    weight, bias = passed_on(embeddings, 8, 0)
    centred = embeddings - embeddings.mean(0)
    through = (weight[:, :, 1] @ embeddings.T).T + bias
    torch.testing.assert_close(through.relu().norm(dim=1), centred.norm(dim=1))
    with pytest.raises(ValueError, match="width 7"):
        passed_on(embeddings, 7, 0)
