"""Scorers: a question and texts in, a score for each text out, by one net. One file for each way to score."""

from service.scorers.base import Scale, Scored, Scorer
from service.scorers.cross import CrossScorer
from service.scorers.dense import DenseScorer
from service.scorers.in_context import InContextScorer
from service.scorers.late import LateScorer
from service.scorers.sparse import SparseScorer

__all__ = [
    "CrossScorer",
    "DenseScorer",
    "InContextScorer",
    "LateScorer",
    "Scale",
    "Scored",
    "Scorer",
    "SparseScorer",
]
