import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification

from models.load import resolve
from models.quality import keep, load_quality
from tests.nets import VOCABULARY, tiny_classifier, tiny_sparse_encoder

TEXTS = ["the moon pulls the sea", "", "cat", "rain falls into the sea and the sea is water"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_classifier(tmp_path_factory.mktemp("nets") / "judge", max_tokens=16)


def call(path: Path, *labels: str) -> Path:
    """Give the classes of a classifier these names."""
    config = json.loads((path / "config.json").read_text())
    config["id2label"] = {str(number): label for number, label in enumerate(labels)}
    config["label2id"] = {label: number for number, label in enumerate(labels)}
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_information_to_noise_is_distinct_words_by_words() -> None:
    scores = load_quality("itn").scores(["The cat and the dog", "buy buy buy buy", "sea", "", "!?"])
    assert scores.dtype == np.float32
    assert scores.tolist() == [pytest.approx(0.8), 0.25, 1.0, 0.0, 0.0]


def test_a_classifier_says_the_log_probability_of_good(path: Path) -> None:
    judge = load_quality(str(path))
    net = AutoModelForSequenceClassification.from_pretrained(path).eval()
    ids = [VOCABULARY.index(token) for token in ("[CLS]", "the", "cat", "[SEP]")]
    with torch.inference_mode():
        expected = net(torch.tensor([ids])).logits.log_softmax(-1)[0, 1]
    (score,) = judge.scores(["the cat"])
    assert score == pytest.approx(float(expected), abs=1e-6)
    assert score <= 0
    assert (judge.name, judge.fingerprint) == (str(path), resolve(str(path)).fingerprint)


def test_the_texts_beside_it_and_its_place_change_no_score(path: Path) -> None:
    judge = load_quality(str(path))
    together = judge.scores(TEXTS)
    alone = np.concatenate([judge.scores([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(judge.scores(TEXTS[::-1]), together[::-1], atol=1e-6)


def test_no_texts_have_no_scores_and_long_ones_are_cut(path: Path) -> None:
    for name in ("itn", str(path)):
        assert load_quality(name).scores([]).shape == (0,)
    judge = load_quality(str(path))
    assert judge.scores(["sea " * 14])[0] == judge.scores(["sea " * 500])[0]


def test_the_class_of_good_passages_is_found_by_its_name(tmp_path: Path) -> None:
    first = load_quality(str(call(tiny_classifier(tmp_path / "first"), "true", "false"))).scores(TEXTS)
    second = load_quality(str(call(tiny_classifier(tmp_path / "second"), "false", "True"))).scores(TEXTS)
    np.testing.assert_allclose(np.exp(first) + np.exp(second), 1.0, atol=1e-6)


@pytest.mark.parametrize("labels", [("spam", "ham"), ("true", "yes"), ("relevant",)])
def test_classes_of_which_none_or_several_are_good_are_refused(
    labels: tuple[str, ...], tmp_path: Path
) -> None:
    path = call(tiny_classifier(tmp_path / "net", classes=len(labels)), *labels)
    with pytest.raises(ValueError, match="exactly one of at least two must be called true or relevant"):
        load_quality(str(path))


def test_a_net_without_a_trained_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lacks weights of BertForSequenceClassification"):
        load_quality(str(tiny_sparse_encoder(tmp_path / "net")))


def test_the_worst_quarter_goes() -> None:
    scores = np.array([-3.0, -1.0, -2.0, -4.0], np.float32)
    assert keep(scores, 0.25, ["a", "b", "c", "d"]).tolist() == [True, True, True, False]
    assert keep(scores, 0.49, ["a", "b", "c", "d"]).tolist() == [True, True, True, False]
    assert keep(scores, 0.5, ["a", "b", "c", "d"]).tolist() == [False, True, True, False]


def test_of_equally_good_passages_those_with_smaller_ids_stay() -> None:
    assert keep(np.zeros(3, np.float32), 0.4, ["b", "c", "a"]).tolist() == [True, False, True]
    assert keep(np.zeros(3, np.float32), 0.4, np.array([10, 9, 2])).tolist() == [False, True, True]


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_lies_between_nothing_and_all(share: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        keep(np.zeros(1, np.float32), share, ["a"])


@given(st.lists(st.sampled_from([-2.0, -1.0, 0.0])), st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]))
def test_exactly_the_share_goes_and_nothing_better_than_what_stays(values: list[float], share: float) -> None:
    scores = np.array(values, np.float32)
    kept = keep(scores, share, np.arange(len(values)))
    assert kept.sum() == len(values) - int(share * len(values))
    assert max(scores[~kept], default=-9) <= min(scores[kept], default=9)
