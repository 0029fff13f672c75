import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.segment import keys as module
from indexer.segment.keys import Keys, bytes_of, combine, key_rows, merge_keys, to_codes, write_keys
from models.maxsim import products, reference_products

LENGTHS = st.lists(st.integers(0, 12), min_size=1, max_size=12)
SEEDS = st.integers(0, 2**32 - 1)
TOP = 127 / 128
"""The largest component of a key that is stored exactly: 127 steps of a scale that bfloat16 has."""


def passages(lengths, kv_heads=2, dim=16, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((t, kv_heads, dim)).astype(np.float32) for t in lengths]


def stored(path, rows, kv_heads=2, dim=16, centre=0):
    around = np.full((kv_heads, dim), centre, np.float32)
    write_keys(path, [len(row) for row in rows], rows, around)
    return Keys(path)


def one_head(*rows):
    """Passages of one key-value head, by the keys of their tokens."""
    return [np.array(row, np.float32).reshape(len(row), 1, 2) for row in rows]


def question(q, kv_heads=2, dim=16, seed=0):
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal(q).astype(np.float32)
    vectors = rng.standard_normal((q, dim)).astype(np.float32)
    return vectors, rng.integers(0, kv_heads, q), weights


def shares(keys, vectors, heads, weights):
    """Scores of all rows of a file by definition, in float64 of the stored keys."""
    rows = [keys.keys(row).astype(np.float64) for row in range(keys.rows)]
    mass = np.array(
        [[np.exp(row[:, h] @ v).sum() for v, h in zip(vectors, heads, strict=True)] for row in rows]
    )
    return (mass / mass.sum(0)) @ weights.astype(np.float64)


def scores(asked, *parts):
    """Scores of some rows of some files, all of them candidates for one question."""
    found = [keys.partials(asked, np.array(rows, np.int64), products) for keys, rows in parts]
    peaks, sums = (np.concatenate(each) for each in zip(*found, strict=True))
    return combine(peaks, sums, asked.weights)


def test_a_score_is_a_share_of_the_softmax_over_all_candidates(tmp_path):
    # exponentials are 2 and 1 of the first passage's tokens, and 1 of the second's: 3 of 4, and 1 of 4
    keys = stored(tmp_path / "k", one_head([[TOP, 0], [0, TOP]], [[0, TOP]]), 1, 2)
    asked = key_rows(np.array([[np.log(2) / TOP, 0]], np.float32), np.array([0]), np.ones(1, np.float32))
    assert scores(asked, (keys, [0, 1])) == pytest.approx([0.75, 0.25], abs=1e-5)
    assert scores(asked, (keys, [1])) == pytest.approx([1])
    assert scores(asked, (keys, [1, 0, 1])) == pytest.approx([0.2, 0.6, 0.2], abs=1e-5)
    assert keys.attention(asked, 0, products) == pytest.approx([2 / 3, 1 / 3], abs=1e-5)


def test_every_vector_meets_its_own_head_and_counts_by_its_weight(tmp_path):
    # of head 0 the first passage has 3/4, of head 1 the second; .5 * 3/4 + .25 * 1/4
    rows = [np.array([[[TOP, 0], [0, 0]]], np.float32), np.array([[[0, 0], [TOP, 0]]], np.float32)]
    keys = stored(tmp_path / "k", rows, 2, 2)
    vectors = np.full((2, 2), np.log(3) / TOP, np.float32)
    asked = key_rows(vectors, np.array([1, 0]), np.array([0.25, 0.5], np.float32))
    assert scores(asked, (keys, [0, 1])) == pytest.approx([0.4375, 0.3125], abs=1e-5)
    assert keys.attention(asked, 0, products) == pytest.approx([0.75])


def test_a_question_less_itself_is_nothing(tmp_path):
    keys = stored(tmp_path / "k", passages([3, 4]))
    vectors, heads, _ = question(4)
    weights = np.repeat(np.array([1, -1], np.float32), 4)
    asked = key_rows(np.concatenate([vectors, vectors]), np.concatenate([heads, heads]), weights)
    assert scores(asked, (keys, [0, 1])) == pytest.approx([0, 0], abs=1e-6)
    assert keys.attention(asked, 0, products) == pytest.approx([0, 0, 0], abs=1e-6)


def test_a_row_without_tokens_has_no_share(tmp_path):
    keys = stored(tmp_path / "k", one_head([[TOP, 0]], [], [[-TOP, 0]]), 1, 2)
    asked = key_rows(np.zeros((1, 2), np.float32), np.array([0]), np.ones(1, np.float32))
    assert scores(asked, (keys, [0, 1, 2])).tolist() == [0.5, 0, 0.5]
    peaks, sums = keys.partials(asked, np.array([1, 1]), products)
    assert (peaks.tolist(), sums.tolist()) == ([[-np.inf]] * 2, [[0]] * 2)
    assert combine(peaks, sums, asked.weights).tolist() == [0, 0]
    assert keys.attention(asked, 1, products).shape == (0,)


def test_counts_and_sizes_are_what_was_written(tmp_path):
    keys = stored(tmp_path / "k", passages([3, 0, 2], 3, 64), 3, 64)
    assert (keys.rows, keys.tokens, keys.kv_heads, keys.head_dim) == (3, 5, 3, 64)
    assert keys.lengths(np.array([2, 0, 1])).tolist() == [2, 3, 0]
    # a code a dimension and two bytes of scale, for each of three heads; where rows begin; the centre of each
    assert keys.bytes == bytes_of(5, 3, 3, 64) == 5 * 3 * (64 + 2) + 4 * 8 + 3 * 4 + 3 * 64 * 4
    large = bytes_of(100_000, 1000, 3, 64)
    assert large <= 0.53 * 100_000 * 3 * 64 * 2


def test_a_segment_without_rows(tmp_path):
    keys = stored(tmp_path / "k", [])
    asked = key_rows(*question(3))
    peaks, sums = keys.partials(asked, np.empty(0, np.int64), products)
    assert peaks.shape == sums.shape == (0, 3)
    assert combine(peaks, sums, asked.weights).shape == (0,)


@settings(max_examples=25, deadline=None)
@given(LENGTHS, SEEDS, st.floats(1e-30, 1e30))
def test_keys_come_back_within_half_a_step(tmp_path_factory, lengths, seed, size):
    rows = [row * np.float32(size) for row in passages(lengths, seed=seed)]
    keys = stored(tmp_path_factory.mktemp("k") / "k", rows)
    for row, wanted in enumerate(rows):
        step = np.abs(wanted).max(axis=2, keepdims=True, initial=0) / 127
        assert (np.abs(keys.keys(row) - wanted) <= 0.504 * step).all()  # scales are up to 2**-7 too large


def test_a_centre_makes_steps_finer_and_changes_nothing_else(tmp_path):
    rows = [row + 8 for row in passages([5, 7])]
    plain, centred = stored(tmp_path / "p", rows), stored(tmp_path / "c", rows, centre=8)
    off = [np.abs(keys.keys(1) - rows[1]).mean() for keys in (plain, centred)]
    assert off[1] < off[0] / 3
    vectors, heads, weights = question(6)
    asked = key_rows(vectors, heads, weights)
    wanted = shares(centred, vectors, heads, weights)
    assert scores(asked, (centred, [0, 1])) == pytest.approx(wanted, abs=1e-3)
    found = centred.attention(asked, 1, products)
    assert found == pytest.approx(plain.attention(asked, 1, products), abs=0.3)
    assert found.sum() == pytest.approx(weights.sum(), abs=1e-4)


def test_rows_of_different_centres_are_candidates_of_one_question(tmp_path):
    rows = passages([5, 7, 2])
    parts = [stored(tmp_path / str(i), rows[i : i + 1], centre=i - 1) for i in range(3)]
    asked = key_rows(*question(6))
    apart = scores(asked, *((part, [0]) for part in parts))
    whole = stored(tmp_path / "w", rows)
    assert apart == pytest.approx(scores(asked, (whole, range(3))), abs=0.05)
    everything = np.ones(1, np.bool_)
    merge_keys(tmp_path / "m", [(part, everything) for part in (*parts, parts[1])])
    merged = Keys(tmp_path / "m")
    assert merged.centres[:, 0, 0].tolist() == [-1, 0, 1]
    assert merged.centre_of_row.tolist() == [0, 1, 2, 1]
    assert scores(asked, (merged, range(3))).tolist() == apart.tolist()
    merge_keys(tmp_path / "again", [(merged, np.array([False, True, True, False])), (parts[1], everything)])
    again = Keys(tmp_path / "again")
    assert scores(asked, (parts[0], [0]), (again, [2, 1])).tolist() == apart.tolist()


def test_components_that_are_whole_steps_are_exact():
    codes, scales = to_codes(np.array([[[1.984375, -0.015625, 0]], [[0, 0, 0]]], np.float32))
    assert codes.tolist() == [[[127, -1, 0]], [[0, 0, 0]]]
    assert module.scale_values(scales).tolist() == [[0.015625], [0]]


@settings(max_examples=25, deadline=None)
@given(LENGTHS.filter(any), st.integers(1, 20), SEEDS)
def test_scores_are_shares_of_the_stored_keys(tmp_path_factory, lengths, q, seed):
    keys = stored(tmp_path_factory.mktemp("k") / "k", passages(lengths, seed=seed))
    vectors, heads, weights = question(q, seed=seed)
    found = scores(key_rows(vectors, heads, weights), (keys, range(keys.rows)))
    wanted = shares(keys, vectors, heads, weights)
    # a logit is off by 16 components of the key, up to 5, times 1.6e-5 of the question's largest, up to 5
    assert found == pytest.approx(wanted, abs=1e-3 * float(np.abs(weights).sum()), rel=0)
    assert found.sum() == pytest.approx(weights.sum(), abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(LENGTHS, st.integers(1, 20), SEEDS, st.data())
def test_no_bit_depends_on_batch_order_segment_or_products(tmp_path_factory, lengths, q, seed, data):
    path, rows = tmp_path_factory.mktemp("k"), passages(lengths, seed=seed)
    asked, cut = key_rows(*question(q, seed=seed)), data.draw(st.integers(0, len(rows)))
    whole = stored(path / "w", rows)
    together = scores(asked, (whole, range(len(rows))))
    halves = [(stored(path / "a", rows[:cut]), np.arange(cut)), (stored(path / "b", rows[cut:]), None)]
    order = data.draw(st.permutations(range(len(rows) - cut)))
    apart = scores(asked, halves[0], (halves[1][0], order))
    assert apart[:cut].tolist() == together[:cut].tolist()
    assert apart[cut:].tolist() == together[cut:][list(order)].tolist()
    one_by_one = [whole.partials(asked, np.array([row]), reference_products) for row in range(len(rows))]
    peaks, sums = (np.concatenate(each) for each in zip(*one_by_one, strict=True))
    assert combine(peaks, sums, asked.weights).tolist() == together.tolist()


def test_more_tokens_than_are_multiplied_at_a_time(tmp_path):
    lengths = [module.TOGETHER - 500, 400, 101, module.TOGETHER, 1, module.TOGETHER + 1, 0, 3]
    keys, asked = stored(tmp_path / "k", passages(lengths)), key_rows(*question(3))
    rows = np.arange(len(lengths))
    peaks, sums = keys.partials(asked, rows, products)
    for row in rows:
        peak, total = keys.partials(asked, rows[row : row + 1], reference_products)
        assert (peak[0].tolist(), total[0].tolist()) == (peaks[row].tolist(), sums[row].tolist())


def test_logits_far_below_the_largest_are_nothing_and_not_infinite(tmp_path):
    keys = stored(tmp_path / "k", one_head([[TOP, 0], [-TOP, 0]], [[-TOP, 0]]), 1, 2)
    asked = key_rows(np.array([[1e4, 0]], np.float32), np.array([0]), np.ones(1, np.float32))
    assert scores(asked, (keys, [0, 1])).tolist() == [1, 0]
    assert scores(asked, (keys, [1])).tolist() == [1]
    assert keys.attention(asked, 0, products) == pytest.approx([1, 0], abs=1e-30)


def test_attention_to_one_passage_is_its_score_alone(tmp_path):
    keys = stored(tmp_path / "k", passages([7, 5]))
    vectors, heads, weights = question(6)
    asked = key_rows(vectors, heads, weights)
    found, of_row = keys.attention(asked, 1, products), keys.keys(1).astype(np.float64)
    logits = np.stack([of_row[:, h] @ v for v, h in zip(vectors, heads, strict=True)])
    wanted = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True) * weights[:, None]).sum(0)
    assert found == pytest.approx(wanted, abs=1e-3)
    assert found.sum() == pytest.approx(scores(asked, (keys, [1]))[0], abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=10), st.data())
def test_merging_gives_the_file_that_was_written_together(tmp_path_factory, lengths, data):
    path, rows = tmp_path_factory.mktemp("m"), passages(lengths)
    cut = data.draw(st.integers(1, len(rows) - 1))
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    parts = [stored(path / "a", rows[:cut]), stored(path / "b", rows[cut:])]
    merge_keys(path / "m", [(parts[0], keep[:cut]), (parts[1], keep[cut:])])
    stored(path / "w", [row for row, kept in zip(rows, keep, strict=True) if kept])
    assert (path / "m").read_bytes() == (path / "w").read_bytes()


@pytest.mark.parametrize(("kv_heads", "dim"), [(1, 16), (2, 8)])
def test_keys_of_other_shapes_are_not_merged(tmp_path, kv_heads, dim):
    parts = [stored(tmp_path / "a", passages([1]))]
    parts.append(stored(tmp_path / "b", passages([1], kv_heads, dim), kv_heads, dim))
    with pytest.raises(ValueError, match="cannot be merged with those of 2 and 16"):
        merge_keys(tmp_path / "m", [(part, np.ones(1, np.bool_)) for part in parts])


@pytest.mark.parametrize(
    ("lengths", "rows", "message"),
    [
        ([2], passages([3]), r"shape \(3, 2, 16\) for passage 0 where \(2, 2, 16\) was announced"),
        ([2], passages([2], 3), r"shape \(2, 3, 16\) for passage 0"),
        ([2, 2], passages([2]), "keys of 1 passages where 2 were announced"),
        ([2], passages([2, 2]), "passage 1 where"),
        ([1], [np.full((1, 2, 16), np.nan, np.float32)], "NaN or infinity"),
    ],
)
def test_keys_that_do_not_fit_are_refused(tmp_path, lengths, rows, message):
    with pytest.raises(ValueError, match=message):
        write_keys(tmp_path / "k", lengths, rows, np.zeros((2, 16), np.float32))


def test_a_question_that_does_not_fit_is_refused(tmp_path):
    keys = stored(tmp_path / "k", passages([1]))
    vectors, heads, weights = question(2)
    for wrong in (key_rows(vectors[:, :8], heads, weights), key_rows(vectors, heads + 2, weights)):
        with pytest.raises(ValueError, match="for keys of 2 heads and 16 dimensions"):
            keys.partials(wrong, np.array([0]), products)
    with pytest.raises(ValueError, match="do not make a question"):
        key_rows(vectors, heads[:1], weights)
    with pytest.raises(ValueError, match="do not make a question"):
        key_rows(vectors[:0], heads[:0], weights[:0])
    with pytest.raises(ValueError, match="NaN"):
        key_rows(vectors * np.float32(np.inf), heads, weights)
