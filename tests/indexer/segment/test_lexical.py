import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.segment.lexical import Lexical, ceiling, idf, merge_lexical, write_lexical

PARAMETERS = {"k1": 1.2, "b": 0.75, "title_boost": 1.0, "average_length": 2.0}

words = st.lists(st.sampled_from("abcdefg"), max_size=6)
passages = st.lists(st.tuples(words, words), min_size=1, max_size=30)


def lexical(path, bodies, titles=None):
    write_lexical(path, bodies, titles if titles is not None else [[] for _ in bodies])
    return Lexical(path)


def search(segment, terms, weights=None, k=10, allowed=None, **changes):
    given_weights = np.ones(len(terms), np.float32) if weights is None else np.array(weights, np.float32)
    numbers = segment.lookup(terms)
    rows, scores = segment.search(numbers, given_weights, **(PARAMETERS | changes), k=k, allowed=allowed)
    return rows.tolist(), scores.tolist()


def reference(bodies, titles, terms, weights, k1, b, title_boost, average_length):
    """BM25 word for word, float64; 0 for a passage that holds no term."""
    scores = []
    for body, title in zip(bodies, titles, strict=True):
        norm = k1 * (1 - b + b * (len(body) + title_boost * len(title)) / average_length)
        frequencies = [body.count(term) + title_boost * title.count(term) for term in terms]
        scores.append(sum(w * x / (x + norm) for w, x in zip(weights, frequencies, strict=True) if x > 0))
    return scores


def test_postings_hold_rows_and_frequencies(tmp_path):
    segment = lexical(tmp_path / "l", [["tide", "moon", "tide"], [], ["tide"]], [[], ["moon"], []])
    tide, moon, sun = segment.lookup(["tide", "moon", "sun"]).tolist()
    assert [part.tolist() for part in segment.postings(tide)] == [[0, 2], [2, 1], [0, 0]]
    assert [part.tolist() for part in segment.postings(moon)] == [[0, 1], [1, 0], [0, 1]]
    assert sun == -1
    assert segment.rows == 3
    assert segment.body_lengths.tolist() == [3, 0, 1]
    assert segment.title_lengths.tolist() == [0, 1, 0]


def test_terms_are_numbered_in_sorted_order(tmp_path):
    assert lexical(tmp_path / "l", [["b", "a"], ["c", "a"]]).lookup(["a", "b", "c"]).tolist() == [0, 1, 2]


def test_frequencies_saturate_and_lengths_do_not(tmp_path):
    segment = lexical(tmp_path / "l", [["a"] * 70_000], [["a"] * 300])
    assert [part.tolist() for part in segment.postings(0)] == [[0], [65_535], [255]]
    assert (segment.body_lengths.tolist(), segment.title_lengths.tolist()) == ([70_000], [300])


def test_a_score_by_hand(tmp_path):
    # norm = 1.2 * (1 - 0.75 + 0.75 * 4 / 2) = 2.1, so 3 occurrences of weight 2 give 2 * 3 / (3 + 2.1)
    segment = lexical(tmp_path / "l", [["a", "a", "a", "b"]])
    assert search(segment, ["a"], [2])[1] == pytest.approx([2 * 3 / 5.1], rel=1e-6)


def test_idf_by_hand():
    assert idf(10, np.array([2])) == pytest.approx(np.log(1 + 8.5 / 2.5))
    assert idf(1, np.array([1])) > 0


def test_equal_scores_go_by_row_and_only_matches_are_found(tmp_path):
    segment = lexical(tmp_path / "l", [["a"], ["b"], ["a"], ["a"]])
    assert search(segment, ["a"])[0] == [0, 2, 3]
    assert search(segment, ["a"], k=2)[0] == [0, 2]
    assert search(segment, ["z"]) == ([], [])
    assert search(segment, []) == ([], [])


def test_only_allowed_rows_are_found(tmp_path):
    segment = lexical(tmp_path / "l", [["a", "a"], ["a"], ["a"]])
    assert search(segment, ["a"], allowed=np.array([False, True, True]))[0] == [1, 2]
    assert search(segment, ["a"], allowed=np.zeros(3, np.bool_))[0] == []


def test_a_title_counts_by_its_boost(tmp_path):
    segment = lexical(tmp_path / "l", [["a", "a"], ["c"]], [["d"], ["a"]])
    assert search(segment, ["a"], title_boost=9.0)[0] == [1, 0]
    assert search(segment, ["a"], title_boost=0.5)[0] == [0, 1]
    assert search(segment, ["a"], title_boost=0.0)[0] == [0]


def test_without_k1_only_presence_counts(tmp_path):
    segment = lexical(tmp_path / "l", [["a"], ["a", "a", "b"]])
    assert search(segment, ["a", "b"], [2, 1], k1=0.0) == ([1, 0], [3.0, 2.0])


def test_live_frequencies_leave_out_the_dead(tmp_path):
    segment = lexical(tmp_path / "l", [["a"], ["a", "b"], ["a"]])
    numbers = segment.lookup(["a", "b", "z"])
    assert segment.live_df(numbers).tolist() == [3, 1, 0]
    assert segment.live_df(numbers, np.array([True, True, False])).tolist() == [1, 0, 0]


def test_an_explanation_adds_up_to_the_score(tmp_path):
    segment = lexical(tmp_path / "l", [["a", "b", "b"], ["b"]], [["a"], []])
    terms, weights = segment.lookup(["a", "b", "z"]), np.array([0.7, 1.3, 5], np.float32)
    rows, scores = segment.search(terms, weights, **PARAMETERS, k=2)
    parts = [segment.explain(terms, weights, **PARAMETERS, row=row) for row in rows.tolist()]
    assert [part.sum() for part in parts] == scores.tolist()
    assert [part.tolist() for part in parts][rows.tolist().index(1)][0] == 0
    assert all(part[2] == 0 for part in parts)


def scores_of(segment, terms, weights, rows, **changes):
    numbers, heavy = segment.lookup(terms), np.array(weights, np.float32)
    return segment.scores(numbers, heavy, **(PARAMETERS | changes), rows=np.array(rows, np.int64)).tolist()


def test_rows_that_are_asked_for_score_as_if_found(tmp_path):
    segment = lexical(tmp_path / "l", [["a", "a", "a", "b"], ["c"], ["b"]])
    a = 2 * 3 / 5.1  # as above
    b = 1 / (1 + 1.2 * (1 - 0.75 + 0.75 / 2))
    assert scores_of(segment, ["a", "b"], [2, 1], [2, 1]) == pytest.approx([b, 0], rel=1e-6)
    assert scores_of(segment, ["z", "a"], [5, 2], [0, 2, 0]) == pytest.approx([a, 0, a], rel=1e-6)
    assert scores_of(segment, [], [], [0, 1]) == [0, 0]
    assert scores_of(segment, ["a"], [1], []) == []


@settings(max_examples=60, deadline=None)
@given(passages, st.sets(st.sampled_from("abcdefgz")), st.sampled_from([0.0, 1.0, 2.5]), st.data())
def test_rows_in_any_order_score_what_search_gives_them(tmp_path_factory, rows, terms, boost, data):
    bodies, titles = [list(x) for x in zip(*rows, strict=True)]
    weights = data.draw(st.lists(st.floats(1 / 64, 12, width=32), min_size=len(terms), max_size=len(terms)))
    wanted = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=40))
    segment = lexical(tmp_path_factory.mktemp("l") / "l", bodies, titles)
    found = dict(zip(*search(segment, sorted(terms), weights, k=len(rows), title_boost=boost), strict=True))
    given_scores = scores_of(segment, sorted(terms), weights, wanted, title_boost=boost)
    assert given_scores == [found.get(row, 0) for row in wanted]


def test_far_apart_rows_of_long_lists_are_found(tmp_path):
    held = np.random.default_rng(0).random(5000) < 0.3
    segment = lexical(tmp_path / "l", [["a"] if each else ["b"] for each in held])
    for step in (1, 2, 7, 100, 4999):
        wanted = np.arange(0, 5000, step)
        assert (np.array(scores_of(segment, ["a"], [1], wanted)) > 0).tolist() == held[wanted].tolist()


@settings(max_examples=60, deadline=None)
@given(
    passages,
    st.sets(st.sampled_from("abcdefgz"), min_size=1),
    st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    st.data(),
)
def test_scores_equal_the_formula(tmp_path_factory, rows, terms, title_boost, data):
    bodies, titles = [list(x) for x in zip(*rows, strict=True)]
    weights = data.draw(st.lists(st.floats(1 / 64, 12, width=32), min_size=len(terms), max_size=len(terms)))
    segment = lexical(tmp_path_factory.mktemp("l") / "l", bodies, titles)
    expected = reference(bodies, titles, sorted(terms), weights, 1.2, 0.75, title_boost, 2.0)
    found, scores = search(segment, sorted(terms), weights, k=len(rows), title_boost=title_boost)
    assert sorted(found) == [row for row, score in enumerate(expected) if score > 0]
    assert scores == pytest.approx([expected[row] for row in found], rel=1e-5, abs=1e-4)
    assert [(-s, r) for r, s in zip(found, scores, strict=True)] == sorted(
        (-s, r) for r, s in zip(found, scores, strict=True)
    )
    assert search(segment, sorted(terms), weights, k=3, title_boost=title_boost) == (found[:3], scores[:3])


@settings(max_examples=30, deadline=None)
@given(passages, st.integers(1, 5), st.permutations("abcdefgz"))
def test_segments_and_order_of_terms_change_no_bit_of_a_score(tmp_path_factory, rows, size, terms):
    path = tmp_path_factory.mktemp("l")
    bodies, titles = [list(x) for x in zip(*rows, strict=True)]
    weights = {term: 0.1 + 1.7 * place for place, term in enumerate("abcdefgz")}
    whole = search(lexical(path / "w", bodies, titles), sorted(terms), sorted(weights.values()), k=99)
    parts = []
    for first in range(0, len(rows), size):
        segment = lexical(path / str(first), bodies[first : first + size], titles[first : first + size])
        found, scores = search(segment, terms, [weights[term] for term in terms], k=99)
        parts += [(-score, row + first) for row, score in zip(found, scores, strict=True)]
    assert sorted(parts) == [(-score, row) for row, score in zip(*whole, strict=True)]


def test_rows_further_apart_than_a_window_are_found(tmp_path):
    bodies = [["a"] if row in (3, 20_000, 99_999) else [] for row in range(100_000)]
    bodies[20_000] = ["a", "b"]
    assert search(lexical(tmp_path / "l", bodies), ["a", "b"])[0] == [20_000, 3, 99_999]


@pytest.mark.parametrize("seed", range(8))
def test_the_k_best_are_the_beginning_of_the_whole_ranking(tmp_path, seed):
    """Enough rows, over more than one window, that lists become too light to lift a row to the k best."""
    rng = np.random.default_rng(seed)
    rows = 20_000
    held = {
        term: rng.random(rows) < share
        for term, share in zip("abcde", (0.001, 0.01, 0.1, 0.4, 0.9), strict=True)
    }
    bodies = [[term for term in "abcdea" if held[term][row]] * (1 + row % 3) for row in range(rows)]
    segment = lexical(tmp_path / "l", bodies)
    weights = idf(rows, segment.live_df(segment.lookup("abcde"))) * rng.integers(1, 3, 5)
    for allowed in (None, rng.random(rows) < 0.5, rng.random(rows) < 0.002):
        whole = search(segment, "abcde", weights, k=rows, allowed=allowed)
        for k in (1, 10, 100, 1000):
            assert search(segment, "abcde", weights, k=k, allowed=allowed) == (whole[0][:k], whole[1][:k])


def test_every_match_counts_however_common_the_word(tmp_path):
    segment = lexical(tmp_path / "l", [["rare", "common"], ["common"]])
    assert search(segment, ["common", "rare"], [1e-9, 13])[0] == [0, 1]


def test_no_score_exceeds_the_ceiling():
    assert ceiling(np.array([1.5, 2.0], np.float32)) == 4.0
    assert ceiling(np.array([4.0], np.float32)) == 8.0
    assert ceiling(np.array([], np.float32)) == 1.0


@settings(max_examples=40, deadline=None)
@given(st.lists(passages, min_size=1, max_size=4), st.data())
def test_merging_equals_indexing_what_is_kept(tmp_path_factory, parts, data):
    path = tmp_path_factory.mktemp("l")
    keeps = [data.draw(st.lists(st.booleans(), min_size=len(p), max_size=len(p))) for p in parts]
    opened = [
        (lexical(path / str(i), *[list(x) for x in zip(*p, strict=True)]), np.array(keep))
        for i, (p, keep) in enumerate(zip(parts, keeps, strict=True))
    ]
    merge_lexical(path / "merged", opened)
    kept = [row for p, keep in zip(parts, keeps, strict=True) for row, k in zip(p, keep, strict=True) if k]
    lexical(path / "scratch", [body for body, _ in kept], [title for _, title in kept])
    assert (path / "merged").read_bytes() == (path / "scratch").read_bytes()
