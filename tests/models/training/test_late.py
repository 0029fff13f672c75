import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from indexer.segment.manifest import CollectionSchema
from indexer.token_vectors import token_rows
from models import Kind
from models.late import LateEncoder
from models.late_recipe import read_recipe
from models.training.groups import Group
from models.training.late import LateOptions, LateStudent, measured, save, started, train
from tests.models.late_folders import multi_vector, plain, say
from tests.models.training.toys import toy_groups
from tests.nets import tiny_encoder

SMALL: dict[str, Any] = {
    "dim": 8,
    "rank": 2,
    "teachers": ("bm25", "dense"),
    "batch": 4,
    "learning_rate": 1e-2,
}
TEXTS = ["the moon pulls the sea", "", "cat!", "rain falls, and the rain is water", "..."]
PROMPTS = {"query": "is a ", "document": "the "}
OPPOSITE = {"cat": "sea", "dog": "moon", "rain": "sun", "tide": "water"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dense encoder that has prompts."""
    path = tiny_encoder(tmp_path_factory.mktemp("nets") / "tiny", max_tokens=32)
    config = path / "config_sentence_transformers.json"
    told = json.loads(config.read_text()) if config.is_file() else {}
    config.write_text(json.dumps({**told, "prompts": PROMPTS}))
    return str(path)


def riddles(times: int = 5) -> list[Group]:
    """Questions that no word of the answer is in: a question of cats wants the sea."""
    answers = [("", f"the {answer}") for answer in OPPOSITE.values()]
    rights = [tuple(answer == right for answer in range(4)) for right in range(4)]
    return [
        Group(asked, tuple(answers), right, {"bm25": tuple(map(float, right))}, "riddles")
        for asked, right in zip(OPPOSITE, rights, strict=True)
    ] * times


def student(base: str, **keys: Any) -> LateStudent:
    return started(toy_groups(1), LateOptions(**{**SMALL, **keys}), base, dtype="float32")


def stepped(student: LateStudent, steps: int = 3) -> list[float]:
    """The losses of some steps, each on all groups."""
    optimizer = torch.optim.Adam([each for each in student.parameters() if each.requires_grad], 0.01)
    losses = []
    for step in range(steps):
        student.step = step
        loss = student(toy_groups(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("rank", [0, 4])
def test_a_net_learns_what_its_words_do_not_say(rank: int, base: str, tmp_path: Path) -> None:
    options = LateOptions(**{**SMALL, "rank": rank, "teachers": ("bm25",), "steps": 40, "validate": 20})
    run = train(riddles(), riddles(1), tmp_path, options, base, None)
    found = [entry["ndcg@10"] for entry in run.history if "ndcg@10" in entry]
    assert found[0] < 0.8
    assert run.best > 0.95
    losses = [entry["loss"] for entry in run.history if "loss" in entry]
    assert losses[-1] < losses[0] * 0.6
    served = LateEncoder.load(str(tmp_path), dtype="float32")
    for asked, answer in OPPOSITE.items():
        (question,) = served.encode([asked], "query")
        passages = served.encode([f"the {each}" for each in OPPOSITE.values()])
        scores = [float((question @ each.T).max(1).mean()) for each in passages]
        assert list(OPPOSITE.values())[int(np.argmax(scores))] == answer


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"rank": 0, "head": "linear", "residual": False},
        {"rank": 0, "head": "glu", "activation": "silu"},
    ],
)
def test_what_is_served_is_what_was_trained(keys: dict[str, Any], base: str, tmp_path: Path) -> None:
    trained = student(base, **keys)
    stepped(trained)
    save(trained, tmp_path, base)
    served = LateEncoder.load(str(tmp_path), dtype="float32")
    kinds: tuple[Kind, ...] = ("query", "document")
    for kind in kinds:
        assert served.tokenize(TEXTS, kind) == trained.net.reader.tokenize(TEXTS, kind)
        with torch.inference_mode():
            wanted = trained.net.vectors(TEXTS, kind)
        for found, rows in zip(served.encode(TEXTS, kind), wanted, strict=True):
            # The adapter is rounded to bfloat16 when it is saved.
            np.testing.assert_allclose(found, rows.numpy(), atol=0.02 if trained.net.learns else 1e-5)


@pytest.mark.parametrize(
    "keys",
    [
        {"merging": "words"},
        {"merging": "words", "gate": 0.5},
        {"merging": "hierarchical", "pool": 2},
        {"merging": "clusters", "pool": 3},
    ],
)
def test_what_is_stored_is_what_was_trained(keys: dict[str, Any], base: str, tmp_path: Path) -> None:
    trained = student(base, **keys, rank=0)
    stepped(trained)
    if trained.net.gate is not None:
        trained.net.gate.bias.data.fill_(0.02)
    save(trained, tmp_path, base)
    schema = CollectionSchema(
        components=["bm25", "late"], late_pooling=keys["merging"], late_pool=keys.get("pool", 2)
    )
    served = LateEncoder.load(str(tmp_path), dtype="float32")
    with torch.inference_mode():
        wanted, gates = trained.net.passages(TEXTS)
    assert (gates is None) == ("gate" not in keys)
    for tokens, rows in zip(token_rows(TEXTS, schema, served, lambda _: None), wanted, strict=True):
        kept = rows[(rows != 0).any(1)].numpy()
        np.testing.assert_allclose(tokens.vectors, kept, atol=1e-5)
    if gates is not None:
        assert 0 < int((gates > 0).sum()) < len(gates)


def test_a_penalty_closes_gates(base: str) -> None:
    trained = student(base, merging="words", gate=100.0, rank=0)
    assert trained.net.gate is not None
    trained.net.gate.bias.data.fill_(0.2)
    before = measured(trained, toy_groups(1))["vectors"]
    stepped(trained, 30)
    assert measured(trained, toy_groups(1))["vectors"] < before


def test_an_untrained_student_ranks_as_the_states_do(base: str) -> None:
    """A head of the states' own width changes nothing."""
    states, untrained = LateEncoder.load(base, dtype="float32").encode(TEXTS), student(base, dim=32)
    with torch.inference_mode():
        vectors = untrained.net.vectors(TEXTS, "document")
    for wanted, found in zip(states, vectors, strict=True):
        np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)


def test_the_same_seed_gives_the_same_losses(base: str) -> None:
    first, again, other = (stepped(student(base, documents=2, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_without_lora_only_the_head_learns(base: str) -> None:
    names = {name for name, each in student(base, rank=0).named_parameters() if each.requires_grad}
    assert names == {"net.head.into.weight", "net.head.out.weight", "net.head.skip.weight"}


def test_lora_is_not_put_below_a_pooler(base: str) -> None:
    learning = {name: each for name, each in student(base).named_parameters() if each.requires_grad}
    assert sum("lora" in name for name in learning) == 2 * 6 * 2  # layers, matrices of each, A and B
    assert not any("pooler" in name for name in learning)


def test_only_judged_groups_contrast_and_only_scored_ones_are_distilled(base: str) -> None:
    """Of one group with neither nothing is lost."""
    trained = student(base)
    (group,) = toy_groups(1)[:1]
    unjudged = replace(group, relevant=(False,) * 3)
    with torch.inference_mode():
        whole = trained([group]).item()
        parts = [trained([each]).item() for each in (unjudged, replace(group, scores={}))]
        nothing = trained([replace(unjudged, scores={})]).item()
    assert all(each > 0 for each in parts)
    assert nothing == 0
    assert whole > max(parts)


def test_other_relevant_documents_are_no_negatives(base: str) -> None:
    """With a single document that is not relevant and then none, there is nothing to be better than."""
    group = replace(toy_groups(1)[0], relevant=(True, True, True), scores={})
    loss = student(base, documents=1)([group, group])
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_prompts_of_the_base_and_its_name_are_written_down(base: str, tmp_path: Path) -> None:
    save(student(base), tmp_path, base)
    recipe = read_recipe(tmp_path)
    assert (recipe.model, recipe.adapter, recipe.prompts) == (base, "adapter", PROMPTS)
    save(student(base, rank=0), tmp_path, base)
    assert read_recipe(tmp_path).adapter is None


def test_what_cannot_be_trained_is_said(base: str, tmp_path: Path) -> None:
    judged = toy_groups(1)
    unjudged = [replace(group, relevant=(False,) * 3) for group in judged]
    options = LateOptions(**SMALL)
    with pytest.raises(ValueError, match="no group for validation"):
        train(judged, unjudged, tmp_path, options, base, None)
    with pytest.raises(ValueError, match="scores of bm25, dense, and none of sparse"):
        train(judged, judged, tmp_path, replace(options, teachers=("dense", "sparse")), base, None)
    with pytest.raises(ValueError, match="no group has"):
        train([replace(group, scores={}) for group in unjudged], judged, tmp_path, options, base, None)
    with pytest.raises(ValueError, match="merging = 'words'"):
        LateOptions(gate=1.0)


@pytest.mark.parametrize("kind", ["colbert", "recipe"])
def test_a_base_has_no_head_of_its_own(kind: str, tmp_path: Path) -> None:
    path = multi_vector(tmp_path) if kind == "colbert" else say(plain(tmp_path), markers={})
    with pytest.raises(ValueError, match="has a head or a recipe"):
        started(toy_groups(1), LateOptions(**SMALL), str(path))
