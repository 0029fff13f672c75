"""A scorer of passages, on passages that say by one word whether they ever answer."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from models.quality import load_quality
from models.training.groups import Group
from models.training.quality import (
    QualityOptions,
    QualityStudent,
    auc,
    measured,
    open_base,
    save,
    sides,
    train,
)
from tests.nets import tiny_encoder, tiny_sparse_encoder

OPTIONS = QualityOptions(steps=60, batch=4, validate=30, learning_rate=3e-3)
WORDS = ("tide", "moon", "sea", "water", "rain", "sun")


def group(query: str, good: str, *others: str, scores: tuple[float, ...] = ()) -> Group:
    documents = tuple(("", text) for text in (good, *others))
    given = {"bm25": scores} if scores else {}
    return Group(query, documents, (True, *[False] * len(others)), given, "toys")


def toys(begin: int, end: int) -> list[Group]:
    """Each group's relevant passage tells of a dog, and its other one of a cat."""
    return [
        group(f"q{n}", f"the dog of the {WORDS[n % 6]} {n}", f"the cat of the {WORDS[n % 6]} {n}")
        for n in range(begin, end)
    ]


class Longest:
    """Longer is better."""

    name = fingerprint = "longest"

    def scores(self, texts):
        return np.array([len(text) for text in texts], np.float32)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_sparse_encoder(tmp_path / "base")


def test_good_is_what_answers_a_question_and_bad_what_never_does() -> None:
    """B answers one question and not the other: it is good."""
    found = sides([group("1", "a", "b", "c"), group("2", "b", "c", "d")], [], OPTIONS)
    assert found.training == {"a": True, "b": True, "c": False, "d": False}
    assert found.validation == {}


def test_what_a_teacher_thinks_much_of_is_neither() -> None:
    """Of ten documents the best, by any teacher, may only lack a judgement; so of validation's questions."""
    others = tuple("bcdefghij")
    one = group("1", "a", *others, scores=(5.0, 9.0, *range(8)))
    assert sides([one], [], OPTIONS).training == {"a": True, **dict.fromkeys("cdefghij", False)}
    other = group("2", "a", *others, scores=(0.0, *[0.0] * 8, 1.0))
    assert "j" not in sides([one], [other], OPTIONS).training
    assert sides([one], [], QualityOptions(low=1.0)).training == {"a": True, **dict.fromkeys(others, False)}


def test_equal_scores_are_all_low() -> None:
    """A teacher that found none of them says nothing for any."""
    one = group("1", "a", "b", "c", scores=(0.0, 0.0, 0.0))
    assert sides([one], [], OPTIONS).training == {"a": True, "b": False, "c": False}


def test_no_passage_is_on_both_sides() -> None:
    """Relevant to a question of either side: for training. To none: by a hash, if both sides have it."""
    both = [f"n{number}" for number in range(40)]
    found = sides(
        [group("1", "a", *both, "only here", "b")],
        [group("2", "b", "a", *both), group("3", "a", "d")],
        OPTIONS,
    )
    held = found.validation["toys"]
    assert not set(found.training) & set(held)
    assert {"a": True, "only here": False}.items() <= found.training.items()
    assert {"b": True, "d": False}.items() <= held.items()
    assert 10 < sum(text in held for text in both) < 30
    assert set(both) <= {*held, *found.training}


def test_the_area_under_the_curve_is_the_share_of_pairs_in_order() -> None:
    good = np.array([True, False, False, True])
    assert auc(np.array([3.0, 1.0, 2.0, 4.0], np.float32), good) == 1.0
    assert auc(np.array([1.5, 1.0, 2.0, 4.0], np.float32), good) == 0.75
    assert auc(np.zeros(4, np.float32), good) == 0.5
    with pytest.raises(ValueError, match="nothing to tell apart"):
        auc(np.zeros(2, np.float32), np.array([True, True]))


def test_measures_are_means_over_collections_that_have_both() -> None:
    """Of ten passages the three shortest go: in one collection they hold one of two good ones, else none."""
    one = {"x" * length: length in (2, 9) for length in range(1, 11)}
    two = {"x" * length: length == 10 for length in range(1, 11)}
    found = measured(Longest(), {"one": one, "two": two, "all good": {"x": True}})
    assert found == {"auc": pytest.approx((8 / 16 + 1.0) / 2), "kept": 0.75}


def test_it_learns_what_answers_and_its_folder_says_so(base: Path, tmp_path: Path) -> None:
    run = train(toys(0, 40), toys(40, 60), tmp_path / "out", OPTIONS, str(base), None)
    assert run.measure == "auc"
    assert run.best > 0.95
    assert {"kept", "itn_auc", "itn_kept"} < set(run.history[0])
    judge = load_quality(str(tmp_path / "out"))
    dogs, cats = (judge.scores([f"the {who} of the {word} 5" for word in WORDS]) for who in ("dog", "cat"))
    assert (dogs > cats).all()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["id2label"]["1"] == "true"


def test_the_folder_scores_as_the_net_did(base: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    student = QualityStudent(open_base(base), AutoTokenizer.from_pretrained(base), {}, OPTIONS)
    save(student.net.eval(), tmp_path / "out", base)
    texts = ["the moon pulls the sea", "", "cat"]
    found = load_quality(str(tmp_path / "out")).scores(texts)
    np.testing.assert_allclose(found, student.judge.scores(texts), atol=0.02)  # it is stored in bfloat16


def test_a_step_takes_a_good_and_a_bad_passage_of_each_group(base: Path) -> None:
    good = {"dog": True, "cat": False, "the dog": True, "the cat": False}
    student = QualityStudent(open_base(base), AutoTokenizer.from_pretrained(base), good, OPTIONS)
    assert student([group("1", "dog", "cat", "sea")]).item() > 0
    assert student.usable(group("1", "dog", "the cat"))
    assert not student.usable(group("1", "dog", "the dog", "sea"))
    with pytest.raises(ValueError, match="group of '1' has no good and bad passage"):
        student([group("1", "dog", "the dog")])


def test_word_embeddings_learn_only_if_asked_to(base: Path) -> None:
    def learns(options: QualityOptions) -> bool:
        student = QualityStudent(open_base(base), AutoTokenizer.from_pretrained(base), {}, options)
        return bool(student.net.get_input_embeddings().weight.requires_grad)

    assert [learns(OPTIONS), learns(QualityOptions(words=True))] == [False, True]


def test_without_bad_passages_there_is_nothing_to_learn(base: Path, tmp_path: Path) -> None:
    asked = [group(str(number), word, *WORDS) for number, word in enumerate(WORDS)]
    with pytest.raises(ValueError, match="every passage answers some question"):
        train(asked, toys(0, 4), tmp_path / "out", OPTIONS, str(base), None)
    with pytest.raises(ValueError, match="hold more questions out"):
        train(toys(0, 4), asked[:0], tmp_path / "out", OPTIONS, str(base), None)


def test_a_base_without_a_body_is_refused(tmp_path: Path) -> None:
    path = tiny_encoder(tmp_path / "net")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(ValueError, match=r"lacks weights of BertForSequenceClassification: bert\.encoder"):
        open_base(path)
