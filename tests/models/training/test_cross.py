import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.cross import CrossEncoder
from models.sentences import sentences
from models.training.cross import CrossOptions, CrossStudent, both, drawn, save, started, train
from models.training.groups import Group
from models.training.keep import Told
from tests.models.cross_folders import headed
from tests.models.training.toys import toy_groups
from tests.nets import tiny_encoder

SMALL: dict[str, Any] = {
    "rank": 4,
    "teachers": ("bm25", "dense"),
    "batch": 8,
    "documents": 3,
    "learning_rate": 1e-2,
    "tokens": 32,
}
PAIRS = [(group.query, text) for group in toy_groups(1) for text in group.texts]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_encoder(tmp_path_factory.mktemp("nets") / "tiny", max_tokens=64))


def group(*scores: float, relevant: tuple[int, ...] = ()) -> Group:
    """Documents that are called 0, 1, 2 …."""
    rows = range(len(scores))
    documents = tuple(("", str(row)) for row in rows)
    return Group("q", documents, tuple(row in relevant for row in rows), {"bm25": scores}, "toys")


def names(found: Group) -> list[int]:
    return [int(text) for text in found.texts]


def draw(number: int, of: Group, seed: int = 0) -> list[int]:
    return names(drawn(of, number, ("bm25",), torch.Generator().manual_seed(seed)))


def logits(student: CrossStudent) -> np.ndarray:
    with torch.inference_mode():
        return np.array([float(each.logit) for each in student.read(PAIRS)])


def test_a_net_learns_which_document_says_what_is_asked(base: str, tmp_path: Path):
    options = CrossOptions(**SMALL, steps=30, validate=15)
    run = train(toy_groups(6), toy_groups(1), tmp_path, options, base, None)
    found = [entry for entry in run.history if "ndcg@10" in entry]
    assert found[0]["ndcg@10"] < 0.9
    assert found[-1]["ndcg@10"] > 0.95
    assert set(found[0]) >= {"fused_ndcg@10", "ndcg@10"}
    losses = [entry["loss"] for entry in run.history if "loss" in entry]
    assert losses[-1] < losses[0] / 2
    served = CrossEncoder.load(str(tmp_path))
    for each in toy_groups(1):
        logits = served.predict([(each.query, text) for text in each.texts])
        assert each.relevant[int(logits.argmax())]


@pytest.mark.parametrize("keep", [0.0, 1.0])
def test_what_was_trained_is_what_is_served(keep: float, base: str, tmp_path: Path):
    student = started(CrossOptions(**SMALL, keep=keep), base, dtype="float32")
    chance = torch.Generator().manual_seed(4)
    for weight in student.parameters():
        if weight.requires_grad:
            weight.data += 0.3 * torch.randn(weight.shape, generator=chance)
            weight.data = weight.data.bfloat16().float()  # as the adapter is saved
    save(student, tmp_path, base)
    served = CrossEncoder.load(str(tmp_path), dtype="float32")
    np.testing.assert_allclose(served.predict(PAIRS), logits(student), atol=2e-5)
    assert np.ptp(served.predict(PAIRS)) > 0.1, "a net that gives everything the same would pass"
    assert served.keeps == bool(keep)
    if keep:
        kept = served.keep("is a cat", [("", "a cat. The sea.")])
        read = student.read([("is a cat", "a cat. The sea.")])[0].keep.softmax(-1)[:, 1]
        np.testing.assert_allclose(kept[0].scores[0], read[5:8].mean().item(), atol=1e-5)


def test_a_saved_folder_says_only_what_is_not_as_ever(base: str, tmp_path: Path):
    save(started(CrossOptions(**SMALL), base, dtype="float32"), tmp_path, base)
    assert json.loads((tmp_path / "cross.json").read_text()) == {"model": base, "adapter": "adapter"}
    served = CrossEncoder.load(str(tmp_path))
    assert served.recipe.weights == (1.0,)


def test_training_changes_lora_and_head_and_nothing_else(base: str):
    student = started(CrossOptions(**SMALL), base, dtype="float32")
    before = {name: each.detach().clone() for name, each in student.named_parameters()}
    loss = student(toy_groups(1))
    loss.backward()
    torch.optim.SGD([each for each in student.parameters() if each.requires_grad], 0.1).step()
    changed = {name for name, each in student.named_parameters() if not torch.equal(each, before[name])}
    assert changed
    assert all(".lora_" in name or ".pooler." in name or ".classifier." in name for name in changed)
    assert not any("body.pooler" in name for name in changed)


def test_untrained_lora_and_head_are_decided_by_the_seed(base: str):
    same = [logits(started(CrossOptions(**SMALL, seed=seed), base, dtype="float32")) for seed in (1, 1, 2)]
    assert np.array_equal(same[0], same[1])
    assert not np.allclose(same[0], same[2])


def test_distillation_is_zero_when_the_student_agrees(base: str):
    student = started(CrossOptions(**SMALL, contrast=0.0), base, dtype="float32")
    of = group(0.0, 1.0, relevant=(1,))
    agreed = torch.tensor([0.0, student.options.scale])
    assert student._ranked(replace(of, scores={"bm25": (0, 1), "dense": (3, 5)}), agreed).item() < 1e-4
    assert student._ranked(replace(of, scores={"bm25": (0, 1), "dense": (3, 5)}), agreed.flip(0)).item() > 5


def test_contrast_is_the_surprise_that_the_first_document_is_the_relevant_one(base: str):
    student = started(CrossOptions(**SMALL, distil=0.0), base, dtype="float32")
    scores = torch.tensor([0.0, 0.0, 0.0, 0.0])
    assert student._ranked(group(*[1.0] * 4, relevant=(0,)), scores).item() == pytest.approx(np.log(4))
    assert student._ranked(group(*[1.0] * 4), scores).item() == 0.0


def test_all_of_a_small_group_is_drawn_the_relevant_one_first():
    assert draw(6, group(0.1, 0.9, 0.5, 0.7, relevant=(2,))) == [2, 1, 3, 0]
    assert draw(6, group(0.1, 0.9, 0.5)) == [1, 2, 0]


def test_of_several_relevant_documents_one_is_drawn_and_the_others_are_no_negatives():
    found = [draw(3, group(*range(8), relevant=(1, 2)), seed) for seed in range(30)]
    assert {each[0] for each in found} == {1, 2}
    assert not any({1, 2} & set(each[1:]) for each in found)
    assert all(len(set(each)) == 3 for each in found)


def test_what_teachers_like_is_drawn_more_often():
    of = group(*[1 - row / 20 for row in range(20)], relevant=(19,))
    found = [row for seed in range(200) for row in draw(5, of, seed)[1:]]
    counts = np.bincount(found, minlength=20)
    assert counts[0] > 120
    assert counts[0] > 3 * counts[10] > 0
    assert counts[18] > 0


def test_both_is_half_and_half():
    of = group(0.0, 5.0, 10.0)
    assert both([3.0, 2.0, 1.0], of, ("bm25",)) == pytest.approx([1.0, 1.0, 1.0], abs=1e-5)
    assert both([3.0, 2.0, 1.0], replace(of, scores={}), ("bm25",)) == pytest.approx(
        [1.0, 0.5, 0.0], abs=1e-5
    )


def test_it_learns_which_sentences_to_keep(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("models.training.cross.citing", lambda encoder: says_it)
    options = CrossOptions(**SMALL, steps=40, validate=20, distil=0.0, keep=1.0)
    run = train(two_sentences(6), two_sentences(1), tmp_path, options, base, None)
    found = [entry for entry in run.history if "keep_f1" in entry]
    assert found[0]["keep_f1"] < 0.5
    assert found[-1]["keep_f1"] > 0.9
    assert found[-1]["dropped"] > 0.9
    served = CrossEncoder.load(str(tmp_path))
    (kept,) = served.keep("a cat", [("", "The cat and a cat. The dog and the sea.")], threshold=0.5)
    assert kept.kept.tolist() == [True, False]


def says_it(query: str, text: str) -> Told:
    """Cites the sentences that say what is asked."""
    spans = sentences(text)
    return Told(spans, np.array([query in text[begin:end] for begin, end in spans]))


def two_sentences(times: int) -> list[Group]:
    """A relevant document says the word in one sentence, and something else in the other."""
    words = ("cat", "dog", "sea", "moon")
    found = []
    for number in range(times * len(words)):
        word, other, third = (words[(number + step) % len(words)] for step in range(3))
        answer, rest = f"The {word} and a {word}.", f"The {other} and the {third}."
        texts = [f"{answer} {rest}", f"{rest} {answer}"][number // len(words) % 2]
        documents = (("", f"The {other} and a {third}. A {other}."), ("", texts))
        scores = {"bm25": (0.0, 0.0), "dense": (0.0, 0.0)}
        found.append(Group(f"a {word}", documents, (False, True), scores, "toys"))
    return found


def test_what_cannot_be_learnt_from_is_refused(base: str, tmp_path: Path):
    options = CrossOptions(**SMALL, steps=1)
    with pytest.raises(ValueError, match="toys have scores of bm25, dense, and none of sparse"):
        train(toy_groups(1), toy_groups(1), tmp_path, replace(options, teachers=("sparse",)), base, None)
    with pytest.raises(ValueError, match="no group for validation"):
        train(toy_groups(1), [], tmp_path, options, base, None)
    with pytest.raises(ValueError, match="has a head already"):
        started(options, str(headed(tmp_path / "headed")))
