import numpy as np
import pytest
import torch

from models.late import LateEncoder
from models.sentences import sentences
from models.tokens import copied
from models.training.groups import Group
from models.training.keep import (
    UNTOLD,
    Agreement,
    Keeping,
    Pair,
    Told,
    citing,
    keep_loss,
    nothing,
    sentence_labels,
)
from tests.nets import tiny_encoder

EAST, NORTH = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
BETWEEN = np.array([0.6, 0.8], np.float32)
TEXT = "The moon pulls the sea. A cat is here."
NONE = np.empty((0, 2), np.float32)


def rows(*vectors):
    return np.stack(vectors)


def test_the_sentence_that_answers_best_is_kept():
    asked = rows(EAST)
    assert sentence_labels(asked, [rows(NORTH), rows(NORTH, EAST), rows(BETWEEN)]).tolist() == [
        False,  # worth 0
        True,  # 1, for its best token
        False,  # 0.6
    ]
    assert sentence_labels(asked, [rows(BETWEEN)]).tolist() == [True], "the only one is the best"


def test_what_is_nearly_as_good_is_kept_too():
    found = [rows(EAST), rows(BETWEEN), rows(NORTH)]  # worth 1, 0.6, 0
    assert sentence_labels(rows(EAST), found, margin=0.39).tolist() == [True, False, False]
    assert sentence_labels(rows(EAST), found, margin=0.41).tolist() == [True, True, False]


def test_every_token_of_the_question_counts_the_same():
    asked = rows(EAST, NORTH)
    assert sentence_labels(asked, [rows(EAST), rows(BETWEEN)]).tolist() == [False, True]  # 0.5 and 0.7


def test_a_sentence_that_was_not_read_is_not_kept():
    assert sentence_labels(rows(EAST), [NONE, rows(NORTH)]).tolist() == [False, True]
    assert sentence_labels(rows(EAST), [NONE]).tolist() == [False]
    assert sentence_labels(rows(EAST), []).tolist() == []


def test_tokens_are_labelled_by_the_sentence_they_begin_in():
    pair = Pair(np.arange(4), np.array([0, 9, 10, 12]), Told([(0, 10), (12, 20)], np.array([True, False])))
    assert pair.labels().tolist() == [1, 1, UNTOLD, 0]
    assert Pair(np.arange(2), np.array([0, 12]), nothing("Ab cd ef gh. Ij.")).labels().tolist() == [0, UNTOLD]


def test_the_loss_is_the_mean_over_tokens_that_something_is_told_of():
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0], [9.0, 1.0]])
    assert keep_loss(logits, torch.tensor([0, 1, UNTOLD])).item() == pytest.approx(np.log(2))
    assert keep_loss(logits, torch.full((3,), UNTOLD)).item() == 0.0


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> LateEncoder:
    return LateEncoder.load(str(tiny_encoder(tmp_path_factory.mktemp("nets") / "tiny")), dtype="float32")


def test_token_vectors_cite_the_sentence_that_says_what_is_asked(encoder: LateEncoder):
    told = citing(encoder)("the moon pulls the sea", TEXT)
    assert told.spans == sentences(TEXT)
    assert told.kept.tolist() == [True, False]
    assert citing(encoder)("moon", "").kept.tolist() == []


def test_only_relevant_texts_have_something_to_keep_and_titles_are_not_judged(encoder: LateEncoder):
    group = Group("moon", (("A tide", TEXT), ("", TEXT)), (True, False), {}, "toys")
    cut = copied(encoder._whole, 40)
    keeping = Keeping(cut, lambda query, text: Told(sentences(text), np.array([True, False])))
    first, second = keeping.pairs(group)
    assert [TEXT[begin] for begin in first.begins[:2]] == ["T", "m"]
    assert first.begins.tolist() == second.begins.tolist()
    assert first.places[0] == 3 + 2, "[CLS] moon [SEP] and two pieces of the title stand before"
    assert second.places[0] == 3
    assert first.labels().tolist() == [int(begin < TEXT.index("A cat")) for begin in first.begins]
    assert set(second.labels().tolist()) == {0}


def test_agreement_counts_what_should_be_kept_and_what_should_be_dropped():
    agreement = Agreement()
    spans = [(0, 4), (5, 9)]
    pair = Pair(np.arange(2), np.array([0, 5]), Told(spans, np.array([True, False])))
    agreement.add(pair, np.array([0.9, 0.8], np.float32), relevant=True)  # one right, one too many
    useless = Pair(np.arange(2), np.array([0, 5]), Told(spans, np.zeros(2, np.bool_)))
    agreement.add(useless, np.array([0.9, 0.1], np.float32), relevant=False)
    assert agreement.measures() == {"keep_f1": pytest.approx(2 / 3), "dropped": 0.5}
