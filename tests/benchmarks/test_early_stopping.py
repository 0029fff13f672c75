import numpy as np

from benchmarks.early_stopping import _guessed


def test_a_guessed_bound_stops_too_early():
    """Where an exact bound needs four look-ups to find candidates 1 and 3, the guess misses 3."""
    sparse, cosines = np.array([10, 9, 8, 6, 3, 1.0]), np.array([0.5, 0.9, 0.7, 0.95, 0.99, 0.2], np.float32)
    scores = (0.1 * sparse + 0.9 * cosines).astype(np.float32)
    assert np.argsort(-scores)[:2].tolist() == [1, 3]
    assert _guessed(scores, sparse, cosines, 0.1, 2) == 3
