from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer

from models.sparse import SparseEncoder
from models.training.groups import Group
from models.training.sparse import InferenceFree, Largest, SparseOptions, _told, measured, piece_idf, train
from tests.models.training.toys import toy_groups
from tests.nets import tiny_sparse_encoder

OPTIONS = SparseOptions(
    steps=30, batch=4, documents=3, teachers=("bm25", "dense"), validate=15, learning_rate=1e-2, contrast=1.0
)


@pytest.fixture
def base(tmp_path):
    return tiny_sparse_encoder(tmp_path / "base")


def student_of(base, options=OPTIONS):
    tokenizer = AutoTokenizer.from_pretrained(base)
    net = AutoModelForMaskedLM.from_pretrained(base).eval()
    idf = piece_idf(
        [text for group in toy_groups(1) for text in group.texts], tokenizer, net.config.vocab_size
    )
    return InferenceFree(net, tokenizer, idf, options)


def test_the_largest_logit_and_its_gradient():
    states = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]], requires_grad=True)  # a text of two positions
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]], requires_grad=True)
    bias = torch.tensor([0.0, 0.0, 0.5], requires_grad=True)
    largest = Largest.apply(states, weight, bias)
    assert largest.tolist() == [[1.0, 2.0, -0.5]]  # of the first position, the second, and the first
    largest.sum().backward()
    # each of the first two entries at its own position; the third is not above zero
    assert states.grad.tolist() == [[[1.0, 0.0], [0.0, 1.0]]]
    assert weight.grad.tolist() == [[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]]
    assert bias.grad.tolist() == [1.0, 1.0, 0.0]


def test_weights_are_those_that_the_service_computes(base):
    student, encoder = student_of(base), SparseEncoder.load(str(base), dtype="float32")
    texts = ["the moon and the tide", "cats", "a dog [SEP] in the rain"]
    with torch.inference_mode():
        own = student.passages(texts).numpy()
    for row, (terms, weights) in zip(own, encoder.encode(texts), strict=True):
        dense = np.zeros_like(row)
        dense[terms] = weights
        np.testing.assert_allclose(row, dense, atol=0.05)


def test_a_question_is_its_pieces_once(base):
    student = student_of(base)
    student._idf[:] = torch.arange(len(student._idf))
    (row,) = student.questions(["the moon the moon"]).detach()
    ids = AutoTokenizer.from_pretrained(base)("the moon", add_special_tokens=False).input_ids
    expected = {number: float(number) for number in ids}
    assert {number: float(row[number]) for number in row.nonzero()[:, 0].tolist()} == expected


def test_rare_pieces_weigh_more():
    class Cut:
        def __call__(self, texts, **_):
            return type("Cut", (), {"input_ids": [[int(each) for each in text.split()] for text in texts]})

    idf = piece_idf(["1 1 2", "1", "1 3"], Cut(), 5)
    assert idf[1] == pytest.approx(np.log(1 + 0.5 / 3.5))
    assert idf[2] == idf[3] == pytest.approx(np.log(1 + 2.5 / 1.5))
    assert idf[4] == pytest.approx(np.log(1 + 3.5 / 0.5))  # no text has it


def test_other_questions_documents_come_last_and_the_same_document_counts_once():
    one, two = toy_groups(1)[:2]
    shared = replace(two, documents=(one.documents[1], *two.documents[1:]))
    told, targets, known = _told([one, replace(shared, relevant=(False,) * 3)], OPTIONS)
    assert told[0].tolist()[:3] == pytest.approx([0, 30, 15 / 7], abs=0.01)
    assert told[0].tolist()[3:] == [float("-inf"), 0, 0]  # its own second document again, and two others
    assert told[1, 1] == float("-inf")
    assert targets.tolist() == [0, 3]
    assert known.tolist() == [True, False]


def test_it_learns_and_its_folder_is_a_sparse_encoder(base, tmp_path):
    groups = toy_groups()
    before = measured(student_of(base), groups)["ndcg@10"]
    run = train(groups, groups, tmp_path / "out", OPTIONS, str(base), None)
    assert run.best > max(before, 0.95)
    encoder = SparseEncoder.load(str(tmp_path / "out"), dtype="float32")
    stored = load_file(tmp_path / "out" / "idf.safetensors")["idf"]
    assert encoder.idf is not None
    np.testing.assert_array_equal(encoder.idf, stored.numpy())
    documents = encoder.encode(groups[0].texts)
    asked = encoder.pieces([groups[0].query])[0]
    scores = [float(sum(weights[np.isin(terms, asked)])) for terms, weights in documents]
    assert int(np.argmax(scores)) == 1


def test_groups_with_too_few_documents_are_no_groups(base, tmp_path):
    lonely = [Group("tide", (("", "tide"),), (True,), {"bm25": (1.0,), "dense": (1.0,)}, "toys")]
    with pytest.raises(ValueError, match="no group has 3 documents"):
        train(lonely, lonely, tmp_path / "out", OPTIONS, str(base), None)
