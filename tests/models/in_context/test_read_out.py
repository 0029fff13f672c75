"""What is read of attention, on numbers that can be checked in the head."""

import numpy as np
import pytest
import torch

from models.in_context.read_out import (
    BlockRank,
    Drop,
    Heads,
    Icr,
    Reading,
    ReadOut,
    mass,
    parts,
    read_out_from_json,
    read_out_to_json,
)

LOG2 = float(np.log(2))


def test_mass_is_attention_weighted_over_heads() -> None:
    """Two heads share one key head. The first prefers key 0 two to one, the second does not care."""
    queries = torch.tensor([[[LOG2]], [[0.0]]])  # heads, signal tokens, numbers
    keys = torch.tensor([[[1.0], [0.0]]])
    found = mass(queries, keys, torch.tensor([0.75, 0.25]), 1.0)
    torch.testing.assert_close(found, torch.tensor([0.75 * 2 / 3 + 0.125, 0.75 / 3 + 0.125]))


def test_mass_is_the_mean_of_signal_tokens() -> None:
    queries = torch.tensor([[[LOG2], [-LOG2]]])
    found = mass(queries, torch.tensor([[[1.0], [0.0]]]), torch.ones(1), 1.0)
    torch.testing.assert_close(found, torch.tensor([0.5, 0.5]))


def test_heads_meet_the_keys_of_their_group() -> None:
    """Of four heads over two key heads, the last two meet the second."""
    queries = torch.full((4, 1, 1), LOG2)
    keys = torch.tensor([[[1.0], [0.0]], [[0.0], [1.0]]])
    first = mass(queries, keys, torch.tensor([0.0, 1.0, 0.0, 0.0]), 1.0)
    last = mass(queries, keys, torch.tensor([0.0, 0.0, 0.0, 1.0]), 1.0)
    torch.testing.assert_close(first, torch.tensor([2 / 3, 1 / 3]))
    torch.testing.assert_close(last, torch.tensor([1 / 3, 2 / 3]))


def test_what_a_token_does_not_see_has_no_attention() -> None:
    queries, keys = torch.zeros(1, 2, 1), torch.zeros(1, 2, 1)
    hidden = torch.tensor([[False, True], [False, False]])
    found = mass(queries, keys, torch.ones(1), 1.0, hidden)
    torch.testing.assert_close(found, torch.tensor([0.75, 0.25]))


def test_later_tokens_count_for_more() -> None:
    """Of three tokens by 1, 2 and 3: the first looks at one key, the others at the other."""
    assert parts(3, 0.0).tolist() == pytest.approx([1 / 3] * 3)
    assert parts(3, 1.0).tolist() == pytest.approx([1 / 6, 2 / 6, 3 / 6])
    queries = torch.tensor([[[99.0, 0.0], [0.0, 99.0], [0.0, 99.0]]])
    keys = torch.eye(2)[None]
    found = mass(queries, keys, torch.ones(1), 1.0, later=1.0)
    assert found.tolist() == pytest.approx([1 / 6, 5 / 6])


def test_temperature_flattens() -> None:
    queries, keys = torch.tensor([[[2 * LOG2]]]), torch.tensor([[[1.0], [0.0]]])
    torch.testing.assert_close(mass(queries, keys, torch.ones(1), 0.5), torch.tensor([2 / 3, 1 / 3]))


def test_a_reading_sums_tokens_by_document() -> None:
    reading = Reading.of(torch.tensor([0.1, 0.2, 0.3, 0.4]), [1, 3], robust=False)
    np.testing.assert_allclose(reading.scores, [0.1, 0.9])
    np.testing.assert_allclose(reading.tokens[1], [0.2, 0.3, 0.4])


def test_a_robust_reading_leaves_out_tokens_far_below_their_documents_mean() -> None:
    """Nine tokens of 1 and one of -9: mean 0, deviation 3.16, and -9 is further below. One alone stays."""
    tokens = torch.tensor([1.0] * 9 + [-9.0] + [-5.0])
    reading = Reading.of(tokens, [10, 1], robust=True)
    np.testing.assert_allclose(reading.scores, [9, -5])
    assert Reading.of(tokens, [10, 1], robust=False).scores[0] == 0


def test_dropping_keeps_a_share_and_at_least_one() -> None:
    scores = np.array([0.1, 0.5, 0.2, 0.5, 0.3])
    assert Drop(1, 0.6).kept(scores) == [1, 3, 4]
    assert Drop(1, 0.2).kept(scores) == [1]
    assert Drop(1, 0.01).kept(scores) == [1]
    for keep in (0, 1.5):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            Drop(1, keep)


def test_weights_of_heads_by_layer() -> None:
    assert BlockRank().weights(5, 4) == {5: [0.25] * 4}
    assert Icr().weights(1, 2) == {0: [1.0, 1.0], 1: [1.0, 1.0]}
    assert Icr((3,)).weights(5, 2) == {3: [1.0, 1.0]}
    chosen = Heads(((1, 0, 0.5), (1, 0, 0.25), (3, 1, 2.0)))
    assert chosen.weights(3, 2) == {1: [0.75, 0.0], 3: [0.0, 2.0]}
    assert chosen.at(3) == Heads(((3, 1, 2.0),))


@pytest.mark.parametrize(
    "read",
    [BlockRank(), BlockRank("words", True), Icr(), Icr((1, 2)), Heads(((1, 0, 0.5),), 2.0, False, "answer")],
)
def test_json_and_back(read: ReadOut) -> None:
    assert read_out_from_json(read_out_to_json(read)) == read


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"kind": "best"}, "one of blockrank, icr, heads"),
        ([], "is an object"),
        ({"kind": "icr", "heads": []}, "icr has no heads; it has layers"),
        ({"kind": "heads"}, "triples"),
        ({"kind": "heads", "heads": [[1, 2]]}, "triples"),
        ({"kind": "heads", "heads": []}, "needs one at least"),
        ({"kind": "heads", "heads": [[1, 2, 1]], "temperature": 0}, "must be above 0"),
        ({"kind": "heads", "heads": [[1, 2, 1]], "temperature": "hot"}, "is a number"),
        ({"kind": "heads", "heads": [[1, 2, 1]], "later": "much"}, "is a number"),
        ({"kind": "heads", "heads": [[1, 2, 1]], "later": -1}, "0 or more"),
        ({"kind": "heads", "heads": [[1, 2, "x"]]}, "triples"),
        ({"kind": "heads", "heads": 5}, "triples"),
        ({"kind": "icr", "layers": 5}, "layers are a list"),
        ({"kind": "icr", "layers": []}, "layers are a list"),
        ({"kind": "blockrank", "signal": "all"}, "'answer' or 'words'"),
        ({"kind": "blockrank", "calibrate": 1}, "true or false"),
    ],
)
def test_what_is_no_read_out_is_refused(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_out_from_json(value)
