"""Measures on rankings one can check in the head, and the randomisation test against a worked example."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.evaluation import Answer, Latency, answer_of, compare, per_query, randomisation_test

QRELS = {"q": {"a": 3, "b": 2, "c": 1}}


def answer(*ids: str, took_ms: float = 1.0, degraded: bool = False) -> Answer:
    return Answer(ids=ids, took_ms=took_ms, stages={"bm25": took_ms}, degraded=degraded)


def test_stages_inside_of_fusion_are_told_apart():
    inner = {"stage": "bm25", "status": "ran", "reason": None, "ms": 1.0, "in": 0, "out": 1, "inputs": []}
    fuse = {**inner, "stage": "fuse", "ms": 3.0, "inputs": [[inner], [{**inner, "stage": "dense"}]]}
    hit = {"id": "a", "score": 1.0, "scores": {}}
    response = {"hits": [hit], "stages": [fuse], "degraded": ["dense"], "generation": 1, "took_ms": 4.0}
    given = answer_of(response)
    assert given == Answer(["a"], 4.0, {"fuse": 3.0, "fuse/bm25": 1.0, "fuse/dense": 1.0}, degraded=True)


def test_measures_of_a_ranking_by_hand():
    # Grades in rank order 0, 3, 0, 1: DCG = 3/log2(3) + 1/log2(5), the ideal 3 + 2/log2(3) + 1/2.
    values = per_query(QRELS, {"q": answer("x", "a", "y", "c")})
    assert values["nDCG@10"] == pytest.approx([0.48793], abs=1e-5)
    assert values["MRR@10"] == pytest.approx([0.5])
    assert values["Recall@100"] == pytest.approx([2 / 3])
    assert values["MAP"] == pytest.approx([(1 / 2 + 2 / 4) / 3])


def test_a_judged_query_without_an_answer_counts_zero():
    qrels = {"first": {"a": 1}, "second": {"b": 1}}
    report = compare(qrels, {"bm25": {"first": answer("a")}})["bm25"]
    assert report.measures["nDCG@10"] == 0.5
    assert report.measures["MRR@10"] == 0.5


def test_the_order_given_is_the_ranking_whatever_the_ids():
    # trec_eval would put "z" before "a" had they equal scores.
    qrels = {"q": {"a": 1}}
    assert per_query(qrels, {"q": answer("a", "z")})["MRR@10"] == [1.0]
    assert per_query(qrels, {"q": answer("z", "a")})["MRR@10"] == [0.5]


def test_a_document_that_comes_twice_counts_where_it_is_first():
    assert per_query({"q": {"b": 1}}, {"q": answer("a", "a", "b")})["MRR@10"] == [0.5]


def test_latency_and_degraded_answers_are_counted():
    answers = {str(n): answer("a", took_ms=float(n), degraded=n == 3) for n in range(1, 6)}
    report = compare({str(n): {"a": 1} for n in range(1, 6)}, {"bm25": answers})["bm25"]
    assert report.latency == Latency(p50_ms=3.0, p95_ms=pytest.approx(4.8))
    assert report.stages["bm25"].p50_ms == 3.0
    assert report.degraded == 1
    assert report.p_values is None


def test_the_first_pipeline_is_the_baseline():
    reports = compare(QRELS, {"bm25": {"q": answer("a")}, "dense": {"q": answer("x", "a")}})
    assert list(reports) == ["bm25", "dense"]
    assert reports["bm25"].p_values is None
    assert reports["dense"].p_values == dict.fromkeys(["nDCG@10", "MRR@10", "Recall@100", "MAP"], 1.0)


def test_a_pipeline_that_answered_nothing_scores_zero():
    report = compare(QRELS, {"bm25": {}})["bm25"]
    assert set(report.measures.values()) == {0.0}
    assert report.latency == Latency(0.0, 0.0)


def test_no_judgments_is_an_error():
    with pytest.raises(ValueError, match="at least one query"):
        compare({}, {})


def test_randomisation_by_hand():
    a, b = np.array([0.5, 0.4, 0.9, 0.3, 0.7]), np.array([0.45, 0.5, 0.6, 0.2, 0.6])
    assert randomisation_test(a, b) == 10 / 32


def test_equal_pipelines_have_p_one():
    assert randomisation_test(np.ones(30), np.ones(30)) == 1.0


def test_sampled_p_is_never_zero_and_repeats():
    a, b = np.zeros(40), np.full(40, 0.1)
    assert randomisation_test(a, b, samples=999) == 1 / 1000
    noise = np.random.default_rng(1).normal(size=40)
    assert randomisation_test(a, noise, samples=999) == randomisation_test(a, noise, samples=999)


@given(st.lists(st.floats(-1, 1, width=16), min_size=1, max_size=12))
@settings(max_examples=50, deadline=None)
def test_randomisation_is_symmetric_and_a_probability(differences: list[float]):
    zeros, values = np.zeros(len(differences)), np.array(differences, np.float64)
    p = randomisation_test(zeros, values)
    assert 0 < p <= 1
    assert p == randomisation_test(values, zeros)
