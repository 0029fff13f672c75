"""Which sentences are kept: the rule on numbers checked by hand, and a net's head against its states."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer

from models.cross import CrossEncoder
from models.cross_heads import FILE
from models.cross_keep import Kept, Rule, judge
from models.sentences import sentences
from tests.models.cross_folders import HIDDEN, encoder, head_tensors, headed, say
from tests.nets import VOCABULARY

QUERY = "the moon"
TEXT = "The moon pulls the sea.  A cat is in\nthe rain!  Öl: the sun. "


def kept(rule: Rule, threshold: float, *rows: list[float]) -> list[bool]:
    """Of sentences whose tokens, a character each, have these probabilities."""
    ends = np.cumsum([0, *map(len, rows)]).tolist()
    spans = list(pairwise(ends))
    probabilities = np.array([each for row in rows for each in row], np.float32)
    return judge(spans, np.arange(ends[-1]), probabilities, threshold, rule).kept.tolist()


FIRST, SECOND = [0.05, 0.2, 0.05, 0.05, 0.05], [0.9, 0.05, 0.05, 0.02]


def test_a_sentence_is_kept_for_its_mean_or_for_the_majority_of_its_tokens():
    assert kept("mean", 0.1, FIRST, SECOND) == [False, True]  # means 0.08 and 0.255
    assert kept("majority", 0.1, FIRST, SECOND) == [False, False]  # one of five, one of four
    assert kept("majority", 0.1, [0.2, 0.05], [0.2, 0.2, 0.05]) == [False, True]


@pytest.mark.parametrize("rule", ["mean", "majority"])
def test_a_threshold_of_zero_keeps_all_and_one_of_one_nothing(rule: Rule):
    assert kept(rule, 0.0, FIRST, SECOND, [0.01]) == [True] * 3
    assert kept(rule, 1.0, FIRST, SECOND, [0.99]) == [False] * 3


def test_tokens_count_where_they_begin_and_what_was_not_read_is_kept():
    found = judge(
        [(0, 4), (5, 9), (10, 12)], np.array([0, 3, 4, 8, 9]), np.full(5, 0.05, np.float32), 0.1, "mean"
    )
    assert found.kept.tolist() == [False, False, True]
    assert found.scores.tolist() == [
        pytest.approx(0.05),
        pytest.approx(0.05),
        pytest.approx(np.nan, nan_ok=True),
    ]
    with pytest.raises(ValueError, match=r"from 0 to 1, not at 1\.5"):
        judge([], np.empty(0, np.int64), np.empty(0, np.float32), 1.5, "mean")


def test_what_is_kept_is_a_part_of_the_text_as_it_stands():
    found = Kept(np.array(sentences(TEXT)), np.zeros(3, np.float32), np.array([True, False, True]))
    assert found.parts(TEXT) == ["The moon pulls the sea.", "Öl: the sun."]


def keeping(path: Path, **recipe: object) -> CrossEncoder:
    """A net whose head keeps tokens by a random direction."""
    headed(path, **recipe)
    keep = torch.randn(2, HIDDEN, generator=torch.Generator().manual_seed(3))
    tensors = {**head_tensors(), "keep.weight": keep, "keep.bias": torch.tensor([0.5, -0.5])}
    save_file(tensors, path / FILE)
    return CrossEncoder.load(str(path), dtype="float32")


def probabilities(folder: Path, text: str) -> np.ndarray:
    """p of every token of a pair, by `transformers` and the tensors alone."""
    read = AutoTokenizer.from_pretrained(folder / "net")(QUERY, text, return_tensors="pt")
    keep = torch.randn(2, HIDDEN, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        states = encoder(folder / "net")(**read).last_hidden_state[0]
        found: np.ndarray = (states @ keep.T + torch.tensor([0.5, -0.5])).softmax(-1)[:, 1].numpy()
    return found


def test_the_head_judges_the_sentences_of_a_passage(tmp_path: Path):
    net = keeping(tmp_path / "own")
    text = "the moon is. a cat is in the rain."
    p = probabilities(tmp_path, text)  # [CLS] the moon [SEP] and then 4 tokens, 7 tokens, [SEP]
    (found,) = net.keep(QUERY, [("", text)])
    assert found.spans.tolist() == [[0, 12], [13, 34]]
    np.testing.assert_allclose(found.scores, [p[4:8].mean(), p[8:15].mean()], atol=1e-5)
    assert found.kept.tolist() == (found.scores > 0.1).tolist()
    most = [(p[4:8] > 0.4).sum() > 2, (p[8:15] > 0.4).sum() > 3.5]
    assert net.keep(QUERY, [("", text)], 0.4, "majority")[0].kept.tolist() == most


def test_a_title_is_read_and_not_judged(tmp_path: Path):
    net = keeping(tmp_path / "own")
    p = probabilities(tmp_path, "cat. dog. the moon is. sea.")
    (found,) = net.keep(QUERY, [("cat. dog.", "the moon is. sea.")])
    assert found.spans.tolist() == [[0, 12], [13, 17]]
    np.testing.assert_allclose(found.scores, [p[8:12].mean(), p[12:14].mean()], atol=1e-5)


def test_texts_of_a_batch_do_not_change_one_another(tmp_path: Path):
    net = keeping(tmp_path / "own")
    documents = [("", TEXT), ("Tides", "the sea. " * 30), ("", ""), ("cat", "dog")]
    together = net.keep(QUERY, documents, budget=100)
    for one, document in zip(together, documents, strict=True):
        (alone,) = net.keep(QUERY, [document])
        assert one.spans.tolist() == alone.spans.tolist()
        np.testing.assert_allclose(one.scores, alone.scores, atol=1e-5)
    assert [len(each.kept) for each in together] == [3, 30, 0, 1]
    assert net.keep(QUERY, []) == []


def test_a_long_text_is_read_in_windows_to_its_end(tmp_path: Path):
    net = keeping(tmp_path / "own", window=12, overlap=0, passages=1, weights=[1])
    text = "a cat is in the rain. " * 20
    (found,) = net.keep(QUERY, [("sea", text)])
    assert len(found.kept) == 20
    assert not np.isnan(found.scores).any()
    assert [text[begin:end] for begin, end in found.spans.tolist()] == ["a cat is in the rain."] * 20
    p = probabilities(tmp_path, "sea " + text[44:65])
    window = net.keep(QUERY, [("sea", text[44:65])])[0].scores
    np.testing.assert_allclose(window, [p[5:12].mean()], atol=1e-5)


def test_keeping_does_not_change_what_is_scored(tmp_path: Path):
    net, plain = keeping(tmp_path / "own"), headed(tmp_path / "plain")
    pairs = [(QUERY, TEXT), ("cat", "the sea")]
    expected = CrossEncoder.load(str(plain), dtype="float32").predict(pairs)
    np.testing.assert_allclose(net.predict(pairs), expected, atol=1e-5)


def test_a_net_without_that_head_says_so(tmp_path: Path):
    net = CrossEncoder.load(str(headed(tmp_path / "own")), dtype="float32")
    assert not net.keeps
    with pytest.raises(ValueError, match="own has no head that says which sentences to keep"):
        net.keep(QUERY, [("", TEXT)])


def test_half_a_head_is_refused(tmp_path: Path):
    path = say(headed(tmp_path / "own"), model="../net")
    save_file({**head_tensors(), "keep.weight": torch.ones(2, HIDDEN)}, path / FILE)
    with pytest.raises(ValueError, match=r"with .*keep.* or without, but holds"):
        CrossEncoder.load(str(path))


def test_the_words_of_these_texts_are_single_tokens():
    assert {"the", "moon", "is", "a", "cat", "in", "rain", "sea", "."} <= set(VOCABULARY)
