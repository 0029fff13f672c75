"""Scorers: a question and texts in, a score for each text out, by one net. One file for each way to score."""

from service.scorers.base import Scale, Scored, Scorer
from service.scorers.dense import DenseScorer
from service.scorers.late import LateScorer

__all__ = ["DenseScorer", "LateScorer", "Scale", "Scored", "Scorer"]
