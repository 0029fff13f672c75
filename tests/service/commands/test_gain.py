"""What a net gained, by trials whose rankings one can see."""

from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from service.commands.gain import measure
from service.commands.mining import Questions
from service.commands.train_kinds import Trial
from service.stages import Bm25, Dense, Group, Sparse
from tests.nets import word_overlap
from tests.service.commands.beir import write_beir

CORPUS = {"sea": ("", "The sea, the sea and the sea."), "moon": ("", "Moon over the sea and rain in May.")}


@pytest.fixture(autouse=True)
def _word_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("service.commands.trial_run.loader_here", lambda cache: word_overlap)


def test_a_gain_is_the_difference_of_means_over_questions(tmp_path: Path) -> None:
    """The moon is first for two of four questions. For the others it is not found, and then second."""
    folder = write_beir(tmp_path / "texts", CORPUS)
    relevant = {query: frozenset({"moon"}) for query in "abcd"}
    queries = {"a": "moon", "b": "rain", "c": "sea", "d": "the sea"}
    questions = Questions(folder, "texts", queries, relevant, made=False)
    before = Trial("frequent words", (Bm25(k=1), Group()), {})
    after = Trial("meaning", (Dense(), Group()), {})
    gain = measure(questions, (before, after), "en", 0, Progress(disable=True))
    second = 1 / np.log2(3)  # what an answer at rank 2 counts
    assert (gain.source, gain.questions) == ("texts", 4)
    assert (gain.before, gain.after) == pytest.approx((0.5, (2 + 2 * second) / 4))
    assert gain.difference == pytest.approx(second / 2)
    assert gain.p == 0.5  # of four signings of two equal differences two are as extreme


def test_a_question_without_its_answer_counts_nothing(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "texts", CORPUS)
    relevant = {"a": frozenset({"moon"}), "b": frozenset({"lost"})}
    questions = Questions(folder, "texts", {"a": "moon", "b": "moon"}, relevant, made=False)
    trial = Trial("words", (Sparse(), Group()), {"sparse_query": "encoder"})
    gain = measure(questions, (trial, trial), "en", 0, Progress(disable=True))
    assert (gain.questions, gain.before, gain.after) == (2, 0.5, 0.5)
