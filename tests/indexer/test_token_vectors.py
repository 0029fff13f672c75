import numpy as np
import pytest

from indexer.segment.late import Tokens
from indexer.segment.manifest import CollectionSchema
from indexer.token_vectors import gated, token_rows
from tests.nets import WordOverlapLateEncoder

VECTORS = np.eye(3, dtype=np.float32)
IDS = np.array([7, 8, 9, 8], np.int32)
SCHEMA = CollectionSchema(components=["bm25", "late"])


class Gated(WordOverlapLateEncoder):
    """The first words of a passage count twice, the others not at all."""

    def gates(self, vectors: np.ndarray) -> np.ndarray:  # type: ignore[override]
        return np.where(np.arange(len(vectors)) < 2, 2, 0).astype(np.float32)


def test_a_vector_of_gate_nothing_is_left_out_with_its_tokens() -> None:
    tokens = Tokens(VECTORS, IDS, np.array([0, 1, 2, 1], np.int32))
    vectors, ids, labels = gated(tokens, np.array([0.5, 0, 2], np.float32))
    assert vectors.tolist() == [[0.5, 0, 0], [0, 0, 2]]
    assert ids.tolist() == [7, 9]
    assert labels is not None
    assert labels.tolist() == [0, 1]


def test_where_each_token_has_a_vector_so_have_those_that_stay() -> None:
    vectors, ids, labels = gated(Tokens(VECTORS, IDS[:3]), np.array([0, 1, 1], np.float32))
    assert vectors.tolist() == VECTORS[1:].tolist()
    assert (ids.tolist(), labels.tolist() if labels is not None else None) == ([8, 9], [0, 1])


def test_a_passage_may_be_left_without_vectors() -> None:
    vectors, ids, labels = gated(Tokens(VECTORS, IDS[:3]), np.zeros(3, np.float32))
    assert vectors.shape == (0, 3)
    assert len(ids) == 0
    assert labels is not None
    assert len(labels) == 0


@pytest.mark.parametrize(("encoder", "words", "length"), [(WordOverlapLateEncoder(), 3, 1), (Gated(), 2, 2)])
def test_what_is_stored_is_pooled_first_and_then_gated(
    encoder: WordOverlapLateEncoder, words: int, length: float
) -> None:
    (tokens,) = token_rows(["sea cat sea moon"], SCHEMA, encoder, lambda _: None)
    assert len(tokens.vectors) == words
    assert np.linalg.norm(tokens.vectors, axis=1).tolist() == [length] * words
