from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.segment.codec import Codebook, train_codebook
from indexer.segment.late import Late, Tokens, mean_of_bests, merge_late, question, write_late
from models.maxsim import best_matches, products, reference_products
from models.pooling import hierarchical, pool


def unit(vectors):
    vectors = np.array(vectors, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def some(n, dim, seed):
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def passages(lengths, dim, seed=0):
    """Directions, and the numbers of as many tokens."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((int(sum(lengths)), dim)).astype(np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    parts = np.split(vectors, np.cumsum(lengths)[:-1])
    return [Tokens(part, rng.integers(0, 30_000, len(part)).astype(np.int32)) for part in parts]


def pooled(vectors, factor=2):
    labels = hierarchical(vectors, factor)
    return Tokens(pool(vectors, labels), np.arange(len(vectors), dtype=np.int32), labels)


def late(path, rows, dim=None, codebook=None):
    dim = rows[0].vectors.shape[1] if dim is None else dim
    write_late(path, rows, dim, "int8" if codebook is None else "residual4", codebook)
    return Late(path)


def plain(*rows):
    return [Tokens(np.array(row, np.float32), np.arange(len(row), dtype=np.int32)) for row in rows]


BOOK = train_codebook(np.concatenate([each.vectors for each in passages([900], 16, seed=9)]), 32)
BOTH = pytest.mark.parametrize("book", [None, BOOK], ids=["int8", "residual4"])


def test_a_score_is_the_mean_of_the_best_similarities(tmp_path):
    # similarities of the question's vectors: (.8, 0) and (.96, .8); the sum of the best is 1.76
    segment = late(tmp_path / "l", plain([[0.8, 0.6], [0, 1]]))
    asked = question(np.array([[1, 0], [0.6, 0.8]], np.float32))
    assert segment.scores(asked, np.array([0]), products) == pytest.approx([1.76 / 2], abs=0.01)
    best, similar = segment.matches(asked, 0, products)
    assert best.tolist() == [0, 0]
    assert similar == pytest.approx([0.8, 0.96], abs=0.01)


def test_a_row_without_vectors_scores_the_lowest_cosine(tmp_path):
    rows = [*plain([[1, 0]]), Tokens(np.empty((0, 2), np.float32), np.empty(0, np.int32)), *plain([[-1, 0]])]
    segment = late(tmp_path / "l", rows)
    asked = question(np.array([[1, 0]], np.float32))
    assert segment.scores(asked, np.array([0, 1, 2, 1]), products) == pytest.approx([1, -1, -1, -1])
    assert segment.scores(asked, np.array([1]), products).tolist() == [-1]
    assert [part.tolist() for part in segment.matches(asked, 1, products)] == [[-1], [-1]]
    assert (segment.labels(1).tolist(), segment.pieces(1).tolist()) == ([], [])


def test_a_negative_similarity_is_not_beaten_by_padding(tmp_path):
    segment = late(tmp_path / "l", plain([[-1, 0]], [[1, 0], [0, 1], [1, 1]]))
    asked = question(np.array([[0.5, 0]], np.float32))
    assert segment.scores(asked, np.array([0, 1]), products) == pytest.approx([-0.5, 0.5])


def test_counts_and_sizes_are_what_was_written(tmp_path):
    segment = late(tmp_path / "l", passages([3, 0, 2], 16))
    assert (segment.rows, segment.vectors, segment.dim, segment.precision) == (3, 5, 16, "int8")
    assert segment.lengths(np.array([2, 0, 1])).tolist() == [2, 3, 0]
    # a code a dimension and a scale; two bytes a token; three lists of where rows begin
    assert segment.bytes == 5 * (16 + 4) + 5 * 2 + 3 * 4 * 8
    smaller = late(tmp_path / "r", passages([3, 0, 2], 16), codebook=BOOK)
    assert (smaller.vectors, smaller.dim, smaller.precision) == (5, 16, "residual4")
    assert smaller.codebooks[0].same(BOOK)
    assert segment.codebooks == []


def test_vectors_come_back_in_the_order_asked_for(tmp_path):
    rows = passages([2, 3, 1], 16)
    codes, scales, offsets = late(tmp_path / "l", rows).tokens(np.array([2, 0]))
    assert offsets.tolist() == [0, 1, 3]
    wanted = np.concatenate([rows[2].vectors, rows[0].vectors])
    assert codes * scales[:, None] == pytest.approx(wanted, abs=1 / 254)


def test_tokens_know_their_vectors(tmp_path):
    vectors = unit([[1, 0], [0, 1], [0.1, 0.9], [0.9, 0.1], [0.95, 0.1]])
    segment = late(tmp_path / "l", [pooled(vectors), *plain([[1, 0], [0, 1]])])
    assert segment.labels(0).tolist() == [0, 1, 1, 2, 2]
    assert segment.lengths(np.array([0])).tolist() == [3]
    assert segment.pieces(0).tolist() == [0, 1, 2, 3, 4]
    assert segment.labels(1).tolist() == [0, 1]


@pytest.mark.parametrize("largest", [0xFFFF, 0x10000, 250_000])
def test_tokens_of_any_vocabulary(tmp_path, largest):
    ids = np.array([largest, 0], np.int32)
    assert late(tmp_path / "l", [Tokens(some(2, 2, 0), ids)]).pieces(0).tolist() == [largest, 0]


@BOTH
@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=12), st.integers(1, 35), st.integers(0, 2**32 - 1))
def test_scores_are_those_of_the_decoded_vectors(tmp_path_factory, book, lengths, asked, seed):
    segment = late(tmp_path_factory.mktemp("l") / "l", passages(lengths, 16, seed), codebook=book)
    vectors = unit(some(asked, 16, seed))
    put, rows = question(vectors), np.arange(len(lengths))
    scores = segment.scores(put, rows, products)
    codes, scales, offsets = segment.tokens(rows)
    similar = (codes * scales[:, None]) @ (put.codes[:asked] * put.scales[:, None]).T
    for row, (begin, end) in enumerate(pairwise(offsets)):
        wanted = similar[begin:end].max(0).mean() if end > begin else -1
        assert scores[row] == pytest.approx(wanted, abs=1e-4)
        assert scores[row] <= 1.01
        assert scores[row] == pytest.approx(segment.matches(put, row, products)[1].mean(), abs=1e-6)


@BOTH
@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=9), st.integers(0, 2**32 - 1))
def test_no_bit_depends_on_batch_order_or_products(tmp_path_factory, book, lengths, seed):
    segment = late(tmp_path_factory.mktemp("l") / "l", passages(lengths, 16, seed), codebook=book)
    put = question(unit(some(5, 16, seed)))
    rows = np.random.default_rng(seed).permutation(np.arange(len(lengths)).repeat(2))
    scores = segment.scores(put, rows, products)
    one_by_one = [segment.scores(put, np.array([row]), reference_products)[0] for row in rows]
    assert scores.tolist() == one_by_one
    codes, scales, offsets = segment.tokens(rows)
    on_a_device = mean_of_bests(best_matches(codes, scales, offsets, put.codes[:5], "cpu"), put)
    assert scores.tolist() == on_a_device.tolist()


@BOTH
def test_more_vectors_than_are_multiplied_at_a_time(tmp_path, book):
    rows = passages([1500, 2500, 96, 1, 5000, 0, 3000], 16)
    segment, put = late(tmp_path / "l", rows, codebook=book), question(unit(some(3, 16, 1)))
    scores = segment.scores(put, np.arange(7), reference_products)
    assert scores.tolist() == [segment.scores(put, np.array([r]), reference_products)[0] for r in range(7)]


def test_a_vector_more_never_lowers_a_score_and_their_order_is_nothing(tmp_path):
    vectors, put = unit(some(8, 16, 3)), question(unit(some(6, 16, 4)))
    rows = plain(*(vectors[:n] for n in range(1, 9)), vectors[::-1])
    scores = late(tmp_path / "l", rows).scores(put, np.arange(9), products)
    assert (np.diff(scores[:8]) >= 0).all()
    assert scores[8] == scores[7]


@BOTH
@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=10), st.data())
def test_merging_gives_the_file_that_was_written_together(tmp_path_factory, book, lengths, data):
    path = tmp_path_factory.mktemp("m")
    rows = [pooled(row.vectors) if i % 3 else row for i, row in enumerate(passages(lengths, 16, 5))]
    cut = data.draw(st.integers(1, len(rows) - 1))
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    parts = [late(path / "a", rows[:cut], 16, book), late(path / "b", rows[cut:], 16, book)]
    merge_late(path / "m", [(parts[0], keep[:cut]), (parts[1], keep[cut:])])
    late(path / "w", [row for row, kept in zip(rows, keep, strict=True) if kept], 16, book)
    assert (path / "m").read_bytes() == (path / "w").read_bytes()


def test_codebooks_that_differ_are_all_kept_and_equal_ones_once(tmp_path):
    other = train_codebook(unit(some(500, 16, 1)), 20)
    rows, books = passages([3, 4, 5], 16), (BOOK, other, BOOK)
    parts = [late(tmp_path / str(i), [rows[i]], codebook=books[i]) for i in range(3)]
    put = question(unit(some(4, 16, 2)))
    before = [part.scores(put, np.array([0]), products)[0] for part in parts]
    merge_late(tmp_path / "m", [(part, np.ones(1, np.bool_)) for part in parts])
    merged = Late(tmp_path / "m")
    assert [len(book.centroids) for book in merged.codebooks] == [len(BOOK.centroids), 20]
    assert merged.scores(put, np.arange(3), products).tolist() == before
    merge_late(
        tmp_path / "again", [(merged, np.array([False, True, True])), (parts[1], np.ones(1, np.bool_))]
    )
    again = Late(tmp_path / "again")
    assert len(again.codebooks) == 2
    assert again.scores(put, np.arange(3), products).tolist() == [before[1], before[2], before[1]]


def test_more_centroids_than_can_be_numbered_are_refused(tmp_path):
    def book(fill):
        centroids = np.full((40_000, 2), fill, np.int8)
        return Codebook(centroids, np.ones(40_000, np.float32), np.zeros(16, np.float32))

    parts = [late(tmp_path / str(fill), plain([[1, 0]]), codebook=book(fill)) for fill in (1, 2)]
    with pytest.raises(ValueError, match="80000 centroids"):
        merge_late(tmp_path / "m", [(part, np.ones(1, np.bool_)) for part in parts])


def test_files_of_another_kind_are_not_merged(tmp_path):
    keep = np.ones(1, np.bool_)
    parts = [
        late(tmp_path / "a", passages([1], 16)),
        late(tmp_path / "b", passages([1], 16), codebook=BOOK),
        late(tmp_path / "c", passages([1], 8)),
    ]
    for other in parts[1:]:
        with pytest.raises(ValueError, match="cannot be merged with those of 16 in int8"):
            merge_late(tmp_path / "m", [(parts[0], keep), (other, keep)])


def test_a_segment_without_rows(tmp_path):
    for book in (None, BOOK):
        segment = late(tmp_path / "l", [], 16, book)
        assert (segment.rows, segment.vectors, segment.dim) == (0, 0, 16)
        empty = np.empty(0, np.int64)
        assert segment.scores(question(np.ones((1, 16), np.float32)), empty, products).shape == (0,)


@pytest.mark.parametrize(
    ("passage", "message"),
    [
        (Tokens(np.ones((1, 3), np.float32), np.zeros(1, np.int32)), r"shape \(1, 3\).*2 dimensions"),
        (Tokens(np.full((1, 2), np.nan, np.float32), np.zeros(1, np.int32)), "NaN or infinity"),
        (Tokens(np.ones((2, 2), np.float32), np.zeros(3, np.int32)), "3 tokens"),
        (
            Tokens(np.ones((1, 2), np.float32), np.zeros(2, np.int32), np.array([0, 1])),
            "all of a passage's 1",
        ),
        (
            Tokens(np.ones((2, 2), np.float32), np.zeros(2, np.int32), np.array([1, 1])),
            "all of a passage's 2",
        ),
    ],
)
def test_passages_that_do_not_fit_are_refused(tmp_path, passage, message):
    with pytest.raises(ValueError, match=message):
        write_late(tmp_path / "l", [passage], 2, "int8")


def test_questions_that_do_not_fit_are_refused(tmp_path):
    segment = late(tmp_path / "l", passages([1], 16))
    with pytest.raises(ValueError, match="at least one vector"):
        question(np.empty((0, 16), np.float32))
    asked = question(np.ones((1, 8), np.float32))
    for refuse in (
        lambda: segment.scores(asked, np.array([0]), products),
        lambda: segment.matches(asked, 0, products),
    ):
        with pytest.raises(ValueError, match="8 dimensions for passages of 16"):
            refuse()


def test_a_codebook_belongs_to_residual_codes_alone(tmp_path):
    with pytest.raises(ValueError, match="with a codebook"):
        write_late(tmp_path / "l", [], 16, "residual4")
    with pytest.raises(ValueError, match="without a codebook"):
        write_late(tmp_path / "l", [], 16, "int8", BOOK)
