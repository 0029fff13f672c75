"""Sparse vectors of a causal model: what is trained is what is served, and it learns toys."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from models.sparse import SparseEncoder
from models.training.decoder_nets import Prosper, cut, rarity, window
from models.training.decoder_sparse import (
    DecoderSparse,
    DecoderSparseOptions,
    _targets,
    measured,
    save,
    train,
)
from models.training.groups import Group
from tests.models.adapters import random_pair, write_adapter
from tests.models.sparse_folders import dense
from tests.models.training.toys import WORDS, toy_groups
from tests.nets import tiny_causal

TEXTS = ["the moon and the tide", "", "a cat in the rain, and it is in the sea of water", "<|im_end|> dog"]
KINDS = ("decoder", "prosper")


def options(kind: Any, **changes: Any) -> DecoderSparseOptions:
    given = {"kind": kind, "rank": 4, "max_tokens": 64, "query_terms": 20, "document_terms": 40, **changes}
    return DecoderSparseOptions(**given)


def student_of(path: Path, kind: str, seed: int | None = 1, **changes: Any) -> DecoderSparse:
    """A student in float32; with a seed, as if it had learnt something at random."""
    whole = AutoModelForCausalLM.from_pretrained(path)
    student = DecoderSparse(whole, AutoTokenizer.from_pretrained(path), options(kind, **changes)).eval()
    if seed is not None:
        chance = torch.Generator().manual_seed(seed)
        for weight in student.parameters():
            if weight.requires_grad:
                weight.data += 0.2 * torch.randn(weight.shape, generator=chance)
    return student


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nets") / "base"
    return tiny_causal(path, layers=3, tie_word_embeddings=request.param)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [None, 2])
def test_the_folder_gives_the_vectors_that_were_trained(
    base: Path, kind: str, layers: int | None, tmp_path: Path
) -> None:
    student = student_of(base, kind, layers=layers)
    save(student, tmp_path / "out")
    served = SparseEncoder.load(str(tmp_path / "out"), dtype="float32")
    for side, most in (("query", 20), ("document", 40)):
        with torch.inference_mode():
            own, _ = student.vectors(TEXTS, side)
        found = dense(served.encode(TEXTS, side), served.vocabulary)
        np.testing.assert_allclose(found, window(own, most).numpy(), atol=2e-5)
        assert (found > 0).any()
    assert served.forward(served.tokenize([TEXTS[1]])).weights.size == 0


@pytest.mark.parametrize("kind", KINDS)
def test_before_it_has_learnt_it_is_the_base(base: Path, kind: str) -> None:
    """LoRA begins at zero, and so does the change of PROSPER's network, which begins as the projection."""
    student = student_of(base, kind, seed=None)
    text = AutoTokenizer.from_pretrained(base)(" moon").input_ids
    net = AutoModelForCausalLM.from_pretrained(base).eval()
    with torch.inference_mode():
        weights, first = (each[0] for each in student.vectors([" moon"], "document"))
        if kind == "decoder":
            newline = AutoTokenizer.from_pretrained(base)("\n").input_ids
            logits = net(torch.tensor([[*text, *newline, *text]])).logits[0, -len(text) :].amax(0)
            expected = logits.relu().log1p()
        else:
            logits = net(torch.tensor([text])).logits[0, -1]
            state = net.model(torch.tensor([text])).last_hidden_state[0, -1].relu().log1p()
            lifted = net.lm_head.weight @ state
            expected = logits.relu().log1p()
            torch.testing.assert_close(first[3:], expected[3:], atol=1e-5, rtol=1e-5)
            expected[text] += lifted.max() - lifted[text]
            expected = window(expected.index_fill(0, torch.tensor([0, 1, 2]), 0.0)[None], 40)[0]
    torch.testing.assert_close(weights[3:], expected[3:], atol=1e-5, rtol=1e-5)


def test_lifted_weights_are_nowhere_below_the_base_and_equal_where_the_text_is_silent(base: Path) -> None:
    student = student_of(base, "prosper", document_terms=10_000)
    assert isinstance(student.net, Prosper)
    with torch.inference_mode():
        lifted, weights = student.vectors([" moon sea"], "document")
    ids = AutoTokenizer.from_pretrained(base)(" moon sea").input_ids
    silent = torch.ones(lifted.shape[1], dtype=torch.bool).index_fill(0, torch.tensor(ids), False)
    assert torch.equal(lifted[:, silent], weights[:, silent])
    assert (lifted[:, ids] >= weights[:, ids]).all()
    assert (lifted[:, ids] > weights[:, ids]).any()


def test_rare_terms_weigh_more() -> None:
    """Of four texts all, two, one and none have a term."""
    weights = torch.tensor(
        [[1.0, 2.0, 0.5, 0.0], [1.0, 3.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0], [9.0, 0.0, 0.0, 0.0]]
    )
    assert rarity(weights).tolist() == [0.0, 0.5, 1.0, 1.0]


def test_a_scaled_head_is_stored_as_one_of_its_own(base: Path, tmp_path: Path) -> None:
    student = student_of(base, "decoder")
    factors = torch.linspace(0, 1, student.encoder.vocabulary)
    with torch.inference_mode():
        before, _ = student.vectors([" moon sea"], "document")
        student.net.scale(factors)
        after, _ = student.vectors([" moon sea"], "document")
    torch.testing.assert_close(after, (before.expm1() * factors).log1p(), atol=1e-5, rtol=1e-5)
    save(student, tmp_path / "out")
    served = SparseEncoder.load(str(tmp_path / "out"), dtype="float32")
    found = dense(served.encode([" moon sea"]), served.vocabulary)
    np.testing.assert_allclose(found, window(after, 40).numpy(), atol=2e-5)


def test_the_window_keeps_the_heaviest_and_of_equal_ones_the_lower_entry() -> None:
    weights = torch.tensor([[0.2, 1.0, 0.0, 0.5], [0.5, 0.5, 0.5, 0.0]])
    assert window(weights, 2).tolist() == [[0.0, 1.0, 0.0, 0.5], [0.5, 0.5, 0.0, 0.0]]
    assert torch.equal(window(weights, 3), weights)
    assert window(weights, None) is weights


def test_only_questions_have_unit_length_and_only_in_prosper(base: Path) -> None:
    for kind, unit in (("prosper", True), ("decoder", False)):
        student = student_of(base, kind)
        with torch.inference_mode():
            queries, documents = (
                student.vectors([" moon"], side)[0].norm() for side in ("query", "document")
            )
        assert (abs(float(queries) - 1) < 1e-5) is unit
        assert abs(float(documents) - 1) > 1e-2


def test_gradients_reach_lora_and_nothing_else_of_the_net(base: Path) -> None:
    for kind in KINDS:
        student = student_of(base, kind, query_weight=1.0, document_weight=1.0)
        student.step = 500
        student(toy_groups(1)[:3]).backward()
        reached = {name for name, each in student.named_parameters() if each.grad is not None}
        assert reached == {name for name, each in student.named_parameters() if each.requires_grad}
        assert all("lora_" in name or name in ("net.down", "net.up", "net.bias") for name in reached)


def test_what_is_trained_is_in_float32_beside_weights_that_are_not(base: Path) -> None:
    whole = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    student = DecoderSparse(whole, AutoTokenizer.from_pretrained(base), options("prosper"))
    assert {each.dtype for each in student.parameters() if each.requires_grad} == {torch.float32}
    assert student.net.merged()["model.layers.0.mlp.up_proj.weight"].dtype == torch.bfloat16
    assert student.net.beside()["fc.weight"].dtype == torch.bfloat16


def test_a_question_is_not_compared_with_what_answers_it_too() -> None:
    """Three documents answer the first question, of which one is its own here, and one the second's other."""
    a, b, c, d = (("", letter) for letter in "abcd")
    first = Group("1", (a, b, c, d), (True, True, True, False), {}, "toys")
    second = Group("2", (c, b), (True, False), {}, "toys")
    targets, banned = _targets([first, second], [first.take([1, 3]), second])
    assert targets.tolist() == [0, 2]
    assert banned.tolist() == [[False, False, True, True], [False, False, False, False]]


def test_flops_are_of_documents_in_the_same_place_of_their_groups(base: Path) -> None:
    """A question's two documents are one in each group: with equal documents FLOPS is twice that of one."""
    given = {"query_weight": 0.0, "ramp": 0.0, "documents": 2, "temperature": 1e9}  # scores count nothing
    student = student_of(base, "decoder", document_weight=1.0, **given)
    documents = (("", "the tide"), ("", "a tide"))
    asked = [Group(str(number), documents, (True, False), {}, "toys") for number in range(2)]
    plain = student_of(base, "decoder", document_weight=0.0, **given)
    with torch.inference_mode():
        penalty = float(student(asked) - plain(asked))
        weights, _ = student.vectors(["the tide", "a tide"], "document")
    assert penalty == pytest.approx(float(weights.square().sum()), rel=1e-5)


def test_a_decoder_is_cut_to_its_first_layers(base: Path) -> None:
    whole = AutoModelForCausalLM.from_pretrained(base)
    with pytest.raises(ValueError, match="of 3 layers the first 4 cannot be kept"):
        cut(whole, 4)
    cut(whole, 1)
    assert (len(whole.model.layers), whole.config.num_hidden_layers) == (1, 1)


def test_measures_count_what_is_shared(base: Path) -> None:
    groups = toy_groups(1)
    student = student_of(base, "decoder", query_terms=1, document_terms=10_000)
    found = measured(student.encoder, groups)
    assert found["query_terms"] == 1.0
    assert found["document_terms"] > 20
    assert 0 < found["products"] <= 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_what_no_word_says_and_its_folder_ranks_as_it_does(kind: str, tmp_path: Path) -> None:
    """Of each word the next one is the answer: nothing literal helps."""
    base = tiny_causal(tmp_path / "base", layers=2, tie_word_embeddings=True)
    near = [tuple((" " + WORDS[(n + step) % 8]) for step in (0, 1, 3, 5)) for n in range(8)]
    groups = [
        Group(query, (("", one), ("", answer), ("", two)), (False, True, False), {}, "toys")
        for query, answer, one, two in near
    ]
    how = {"batch": 8, "documents": 3, "validate": 30, "learning_rate": 1e-2, "dropout": 0.0}
    how |= {"query_weight": 1e-3, "document_weight": 1e-3, "temperature": 2.0}
    run = train(groups, groups, tmp_path / "out", options(kind, steps=60, **how), str(base), None)
    assert run.history[0]["ndcg@10"] < 0.9 < 0.95 < run.best
    served = SparseEncoder.load(str(tmp_path / "out"))
    assert measured(served, groups)["ndcg@10"] == pytest.approx(run.best, abs=0.05)


def test_weights_with_an_adapter_for_something_else_are_no_base(tmp_path: Path) -> None:
    tiny_causal(tmp_path / "base", layers=2)
    write_adapter(tmp_path / "adapter", {"model.layers.0.self_attn.q_proj": random_pair(64, 64)})
    (tmp_path / "in_context.json").write_text('{"model": "base", "adapter": "adapter"}')
    with pytest.raises(ValueError, match="name the weights alone"):
        train(toy_groups(), toy_groups(), tmp_path / "out", options("decoder"), str(tmp_path), None)
