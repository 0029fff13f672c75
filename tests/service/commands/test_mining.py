"""Training groups by retrievers whose scores are counted words, so that each is known beforehand."""

from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from models.training.groups import Group, read_groups
from service.commands import mining
from service.commands.common import CommandError
from service.commands.mining import Mined, Options, choose, mine, questions_of
from tests.nets import WordOverlapEncoder, word_overlap
from tests.service.commands.beir import write_beir

CORPUS = {
    "tides": ("Tides", "The moon pulls water, and so there is a tide."),
    "moon": ("Moon", "A moon circles what is larger."),
    "cats": ("", "Cats sleep all day long."),
    "dogs": ("", "Dogs bark at the moon."),
}


@pytest.fixture(autouse=True)
def _word_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("service.commands.trial_run.loader_here", lambda cache: word_overlap)


def mined(data: Path, out: Path, **options: object) -> Mined:
    settled = Options(**options)  # type: ignore[arg-type]
    return mine(questions_of(data, out, settled), out, settled, Progress(disable=True))


def by_text(group: Group, teacher: str) -> dict[str, float]:
    return dict(zip((text for _, text in group.documents), group.scores[teacher], strict=True))


# Which passages


def test_of_a_relevant_document_only_the_best_passage_is_taken() -> None:
    values = np.array([0.1, 0.9, 0.5, 0.7, 0.3])
    documents = np.array([0, 0, 0, 1, 2])
    relevant = np.array([True, True, True, False, False])
    assert choose(values, documents, relevant, lambda row: True, 8) == [1, 3, 4]


def test_relevant_passages_come_first_into_a_group_but_fill_at_most_half() -> None:
    """Rows 0 to 4 are the worst, and of five relevant documents; rows 5 to 9 are better and not."""
    values = np.array([0.4, 0.3, 0.2, 0.1, 0.0, 0.9, 0.8, 0.7, 0.6, 0.5])
    relevant = np.arange(10) < 5
    documents = np.arange(10)
    assert choose(values, documents, relevant, lambda row: True, 4) == [5, 6, 0, 1]
    assert choose(values, documents, relevant, lambda row: True, 2) == [5, 0]
    assert choose(values, documents, relevant, lambda row: row != 6, 4) == [5, 7, 0, 1]


def test_of_equal_values_the_earlier_is_better() -> None:
    values, none = np.zeros(3), np.zeros(3, np.bool_)
    assert choose(values, np.arange(3), none, lambda row: True, 2) == [0, 1]


# Groups


def test_a_judged_question_has_its_answer_among_what_is_like_it(tmp_path: Path) -> None:
    data = write_beir(tmp_path / "sea", CORPUS, {"q": "the moon"}, {"q": {"tides": 2, "moon": 0}})
    found = mined(data, tmp_path / "out")
    (group,) = found.groups
    assert (group.query, group.source) == ("the moon", "sea")
    texts = [text for _, text in group.documents]
    assert texts[0] == "Dogs bark at the moon."  # both words in the shortest text
    assert set(group.documents) == {CORPUS["dogs"], CORPUS["tides"], CORPUS["moon"], CORPUS["cats"]}
    assert dict(zip(texts, group.relevant, strict=True)) == {
        text: name == "tides" for name, (_, text) in CORPUS.items()
    }


def test_every_teacher_scores_every_document_as_a_search_would(tmp_path: Path) -> None:
    """Sparse scores count shared words, dense ones are cosines; a depth of 1 changes neither."""
    data = write_beir(tmp_path / "sea", CORPUS, {"q": "the moon"}, {"q": {"cats": 1}})
    (group,) = mined(data, tmp_path / "out", depth=1).groups
    cats, dogs = CORPUS["cats"][1], CORPUS["dogs"][1]
    sparse, dense, bm25 = (by_text(group, name) for name in ("sparse", "dense", "bm25"))
    assert (sparse[cats], sparse[dogs]) == pytest.approx((0, 2), abs=0.02)
    question, answer = WordOverlapEncoder().encode(["the moon", dogs])
    assert (dense[cats], dense[dogs]) == pytest.approx((0, question @ answer), abs=0.01)
    assert bm25[cats] == 0 < bm25[dogs]


def test_other_passages_of_a_relevant_document_are_no_negatives(tmp_path: Path) -> None:
    first, second = "Rain and rain. " * 100, "The moon and the moon. " * 60
    corpus = {"long": ("", first + second), "dogs": CORPUS["dogs"], "cats": CORPUS["cats"]}
    data = write_beir(tmp_path / "sea", corpus, {"q": "the moon"}, {"q": {"long": 1}})
    (group,) = mined(data, tmp_path / "out").groups
    assert sorted(group.relevant) == [False, False, True]
    answer = group.documents[group.relevant.index(True)][1]
    assert "moon" in answer
    assert len(answer) < len(first + second)


def test_without_judgments_nothing_is_relevant(tmp_path: Path) -> None:
    data = write_beir(tmp_path / "sea", CORPUS, {"q": "the moon", "r": "cats"})
    groups = mined(data, tmp_path / "out").groups
    assert [group.query for group in groups] == ["the moon", "cats"]
    assert not any(any(group.relevant) for group in groups)
    assert [len(group.documents) for group in mined(data, tmp_path / "out", documents=2).groups] == [2, 2]


def test_questions_that_nobody_judged_are_left_out_beside_those_that_are(tmp_path: Path) -> None:
    queries = {"q": "the moon", "unjudged": "cats", "nothing relevant": "dogs", "lost": "moon"}
    qrels = {"q": {"moon": 1}, "nothing relevant": {"dogs": 0}, "lost": {"not in the corpus": 1}}
    found = mined(write_beir(tmp_path / "sea", CORPUS, queries, qrels), tmp_path / "out")
    assert [group.query for group in found.groups] == ["the moon"]
    assert (list(found.questions.queries), found.skipped) == (["q", "lost"], 1)


def test_judgments_for_training_are_found_where_beir_keeps_them(tmp_path: Path) -> None:
    data = write_beir(tmp_path / "sea", CORPUS, {"q": "the moon", "r": "cats"})
    (data / "qrels").mkdir()
    (data / "qrels" / "test.tsv").write_text("r\tcats\t1\n")
    (data / "qrels" / "train.tsv").write_text("q\tmoon\t1\n")
    assert [group.query for group in mined(data, tmp_path / "out").groups] == ["the moon"]


def test_a_text_that_asks_itself_is_not_told_from_what_says_the_same(tmp_path: Path) -> None:
    """Neither another passage of the document nor one with the question's very words is a negative."""
    question, rest = "The moon pulls the tide.", "Cats sleep. " * 140
    texts = {
        "tide": ("", f"{question} Water. {rest}"),
        "twice": ("", f"It is said that {question}"),
        "dogs": CORPUS["dogs"],
    }
    found = mined(write_beir(tmp_path / "sea", texts), tmp_path / "out", seed=1)
    (group,) = found.groups
    assert (found.questions.made, group.query, group.source) == (True, question, "sea")
    assert sorted(zip(group.documents, group.relevant, strict=True)) == [
        (CORPUS["dogs"], False),
        (("", ("Water. " + rest)[: len("Water. ") + 72 * len("Cats sleep. ") - 1]), True),
    ]


def test_groups_are_kept_and_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_beir(tmp_path / "sea", CORPUS, {"q": "the moon"}, {"q": {"tides": 1}})
    first = mined(data, tmp_path / "out")
    assert first.path.parent == tmp_path / "out" / "groups"
    assert first.path.name.startswith("sea-")
    assert read_groups(first.path) == first.groups
    with monkeypatch.context() as patched:
        patched.setattr(mining, "TrialRun", None)
        assert mined(data, tmp_path / "out") == first
    assert mined(data, tmp_path / "out", documents=3).path != first.path
    (data / "qrels.tsv").write_text("q\tmoon\t1\n")
    assert mined(data, tmp_path / "out").path not in (first.path, None)
    assert len(list((tmp_path / "out" / "groups").iterdir())) == 3


def test_so_many_questions_are_chosen_by_the_seed(tmp_path: Path) -> None:
    queries = {str(number): f"moon {number}" for number in range(50)}
    data = write_beir(tmp_path / "sea", CORPUS, queries)
    chosen = {
        seed: tuple(questions_of(data, tmp_path, Options(queries=5, seed=seed)).queries) for seed in range(5)
    }
    assert {len(each) for each in chosen.values()} == {5}
    assert len(set(chosen.values())) > 1


def test_folders_without_anything_to_learn_say_so(tmp_path: Path) -> None:
    unjudged = write_beir(tmp_path / "a", CORPUS, {"q": "moon"}, {"q": {"moon": 0}})
    with pytest.raises(CommandError, match="no query has a relevant document"):
        mined(unjudged, tmp_path / "out")
    lost = write_beir(tmp_path / "b", CORPUS, {"q": "moon"}, {"q": {"lost": 1}})
    with pytest.raises(CommandError, match="of 1 queries none has a relevant document in the corpus"):
        mined(lost, tmp_path / "out")
    assert not (tmp_path / "out").exists()
