"""Which batch is tried after one that failed."""

from indexer.queue.contract import Trial
from indexer.trial import TRIES, Suspicion, begin, failed, succeeded


def test_a_failed_batch_is_tried_in_eighths():
    assert failed(None) is None
    assert failed(Trial(last=512, size=512)) == Suspicion(until=512, most=64)
    assert failed(Trial(last=64, size=64)) == Suspicion(until=64, most=8)
    assert failed(Trial(last=5, size=5)) == Suspicion(until=5, most=1)


def test_an_operation_alone_has_three_tries():
    suspicion = Suspicion(until=9, most=1)
    for tries in range(1, TRIES + 1):
        assert not suspicion.proven
        suspicion = failed(begin(9, 1, suspicion))
        assert suspicion == Suspicion(until=9, most=1, tries=tries)
    assert suspicion.proven


def test_a_suspicion_ends_where_it_was_raised():
    suspicion = Suspicion(until=64, most=8, tries=2)
    assert succeeded(8, suspicion) == Suspicion(until=64, most=8, tries=0)
    assert succeeded(64, suspicion) is None
    assert succeeded(8, None) is None
