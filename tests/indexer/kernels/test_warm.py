import numpy as np

from indexer.kernels import compiled_signatures, warm
from indexer.segment.codec import train_codebook
from indexer.segment.dense import Dense, merge_dense, write_dense
from indexer.segment.keys import Keys, combine, key_rows, merge_keys, write_keys
from indexer.segment.late import Late, Tokens, merge_late, question, write_late
from indexer.segment.lexical import Lexical, merge_lexical, write_lexical
from indexer.segment.store import Store, write_store
from models.maxsim import reference_products


def test_nothing_is_compiled_after_warming(tmp_path):
    warm()
    before = compiled_signatures()
    _use_lexical(tmp_path)
    _use_dense(tmp_path)
    _use_late(tmp_path)
    _use_keys(tmp_path)
    _use_store(tmp_path)
    assert compiled_signatures() == before


def _use_lexical(path):
    write_lexical(path / "l", [["a"], ["b"]], [[], ["a"]])
    segment, mask = Lexical(path / "l"), np.array([True, False])
    terms, weights = segment.lookup(["a", "z"]), np.ones(2, np.float32)
    for allowed in (None, mask):
        segment.search(terms, weights, 1.2, 0.75, 1, 2, 10, allowed)
        segment.live_df(terms, allowed)
    segment.explain(terms, weights, 1.2, 0.75, 1, 2, 0)
    segment.scores(terms, weights, 1.2, 0.75, 1, 2, np.array([1, 0]))
    merge_lexical(path / "lm", [(segment, mask)])


def _use_dense(path):
    mask, query = np.array([True, False]), np.ones(3, np.float32)
    query.setflags(write=False)
    for precision, of_row in (("bfloat16", None), ("int8", None), ("int8", np.zeros(2, np.uint32))):
        write_dense(path / "d", np.ones((1 if of_row is not None else 2, 3), np.float32), precision, of_row)
        segment = Dense(path / "d")
        for allowed in (None, mask):
            segment.search(query, 10, allowed)
        segment.search(query, np.int64(1), None, 0, 1)
        segment.scores(query, np.array([1]))
        assert segment.longest > 1
        merge_dense(path / "dm", [(segment, mask)])


def _use_late(path):
    vectors, rows = np.ones((1, 2), np.float32), np.arange(2)
    vectors.setflags(write=False)
    passages = [Tokens(vectors, np.zeros(1, np.int32)), Tokens(vectors[:0], np.zeros(0, np.int32))]
    for precision, book in (("int8", None), ("residual4", train_codebook(vectors))):
        write_late(path / precision, passages, 2, precision, book)
        merge_late(path / "tm", [(Late(path / precision), np.array([True, False]))])
        for late in (Late(path / precision), Late(path / "tm")):
            late.scores(question(vectors), rows[: late.rows], reference_products)
            late.matches(question(vectors), 0, reference_products)


def _use_keys(path):
    vectors, weights, rows = np.ones((2, 2), np.float32), np.ones(2, np.float32), np.arange(2)
    vectors.setflags(write=False)
    asked = key_rows(vectors, rows, weights)
    passages = [np.ones((1, 2, 2), np.float32), np.ones((0, 2, 2), np.float32)]
    write_keys(path / "k", [1, 0], passages, np.zeros((2, 2), np.float32))
    merge_keys(path / "km", [(Keys(path / "k"), np.array([True, False]))])
    for keys in (Keys(path / "k"), Keys(path / "km")):
        combine(*keys.partials(asked, rows[: keys.rows], reference_products), asked.weights)
        keys.attention(asked, 0, reference_products)


def _use_store(path):
    numbers = np.arange(2)
    write_store(path / "s", numbers, numbers.astype(np.uint32), np.zeros((2, 2)), [b"{}"] * 2, ["a", "b"])
    Store(path / "s").find(["a"])
    Store(path / "s").find([])
