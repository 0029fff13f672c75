"""The sparse benchmark measures right: truths one can check in the head, engines that agree on small data."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import rivals
from benchmarks.rival_seismic import (
    Seismic,
    SeismicBuild,
    SeismicIndexOpened,
    SeismicKnobs,
    build_seismic,
)
from benchmarks.rivals import KannoloFlat, NumpyGather, ScipyProduct
from benchmarks.sparse_measure import answers
from benchmarks.sparse_synthetic import VOCABULARY, synthesise
from benchmarks.sparse_truth import exact_scores, truths
from benchmarks.sparse_vectors import Dataset, read
from benchmarks.sparse_winnow import EXACT, Winnow, build_winnow, open_winnow
from models.csr import from_dense


@pytest.fixture
def by_hand() -> Dataset:
    """Four passages over three terms; the question asks for 2 × term 0 + term 2."""
    passages = np.array([[1, 0, 1], [0, 5, 0], [1, 0, 1], [0, 0, 4]], np.float32)
    return Dataset("hand", from_dense(passages), from_dense(np.array([[2, 0, 1]], np.float32)), 3)


@pytest.fixture(scope="module")
def drawn() -> Dataset:
    return Dataset("drawn", *synthesise("splade", 500, 20), VOCABULARY)


def test_truth_by_hand(by_hand: Dataset, tmp_path: Path):
    # Scores 3, 0, 3, 4: what scores nothing is no answer, and equal scores go by row.
    truth = truths(by_hand, {"all": None}, tmp_path, depth=4)["all"]
    assert truth.rows.tolist() == [[3, 0, 2, -1]]
    assert truth.scores.tolist() == [[4, 3, 3, 0]]
    assert exact_scores(by_hand, 0, np.array([3, 1, 0])).tolist() == [4, 0, 3]


def test_masked_truth_by_hand(by_hand: Dataset, tmp_path: Path):
    mask = np.array([False, True, True, True])
    assert truths(by_hand, {"some": mask}, tmp_path, depth=2)["some"].rows.tolist() == [[3, 2]]


@pytest.mark.parametrize(
    ("answer", "k", "recall"),
    [
        ([3, 0], 2, 1.0),
        ([3, 2], 2, 1.0),  # as good as passage 0
        ([3, 1], 2, 0.5),
        ([3, 3], 2, 0.5),  # once is enough
        ([1, 3, 0], 2, 0.5),  # only the first two count
        ([3, 0, 2], 4, 1.0),  # no fourth scores at all
        ([], 2, 0.0),
    ],
)
def test_recall_by_hand(by_hand: Dataset, tmp_path: Path, answer: list[int], k: int, recall: float):
    truth = truths(by_hand, {"all": None}, tmp_path, depth=4)["all"]
    assert truth.recall(by_hand, [0], [np.array(answer, np.int64)], k) == recall


def test_a_data_set_is_read_as_it_was_saved(by_hand: Dataset, tmp_path: Path):
    by_hand.save(tmp_path / "hand.npz")
    again = read(tmp_path / "hand.npz")
    assert (again.name, again.vocabulary, len(again.passages), len(again.questions)) == ("hand", 3, 4, 1)
    assert [terms.tolist() for terms, _ in again.passages] == [[0, 2], [1], [0, 2], [2]]


def test_drawn_vectors_are_vectors(drawn: Dataset):
    for vectors in (drawn.passages, drawn.questions):
        assert (vectors.weights > 0).all()
        assert all((np.diff(terms) > 0).all() for terms, _ in vectors)
    assert 100 < len(drawn.passages.terms) / 500 < 140


def test_exact_searches_agree_with_the_truth(drawn: Dataset, tmp_path: Path):
    build_winnow(drawn, tmp_path)
    engines = [Winnow(open_winnow(tmp_path), drawn, EXACT), NumpyGather(drawn), ScipyProduct(drawn)]
    assert _recalls(engines, drawn, tmp_path) == [1.0, 1.0, 1.0]


def test_rivals_agree_with_the_truth(drawn: Dataset, tmp_path: Path):
    build_seismic(drawn, SeismicBuild(3500, 0.1, 0.4, 1.5), tmp_path)
    everything = SeismicKnobs(cut=200, heap_factor=0.0)
    engines = [Seismic(SeismicIndexOpened(drawn, tmp_path), everything), KannoloFlat(drawn)]
    assert min(_recalls(engines, drawn, tmp_path)) > 0.99  # both keep weights in 16 bits


def _recalls(engines: list[rivals.Engine], data: Dataset, directory: Path) -> list[float]:
    truth = truths(data, {"all": None}, directory)["all"]
    questions = np.arange(len(data.questions))
    return [truth.recall(data, questions, answers(engine, questions, 10), 10) for engine in engines]
