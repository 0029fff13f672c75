import numpy as np
import pytest

from service.batcher import Batcher
from service.metrics import Metrics
from service.net_metrics import NetMetrics
from service.readings import queue
from service.workers import Workers
from tests.nets import CountingNet


async def test_what_a_batcher_does_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, net, workers = Metrics(), CountingNet(), Workers(1)
    observer = NetMetrics(metrics.nets, "dense", "counting")
    batcher = Batcher(net, workers, budget=20, most=64, limit=20, name="counting", observer=observer)
    metrics.read(lambda: queue("dense", batcher))
    await batcher.start()
    await batcher.encode(["a b c", "d"])
    forward = net.forward

    def little_memory(items: list[list[int]]) -> object:
        if len(items) > 1:
            raise MemoryError
        return forward(items)

    monkeypatch.setattr(net, "forward", little_memory)
    assert isinstance(await batcher.encode(["a", "b"]), np.ndarray)
    await batcher.close()
    workers.close()
    labels = 'net="counting",role="dense"'
    text = metrics.exposition().decode()
    for line in (
        'winnow_net_wait_seconds_count{net="counting",priority="interactive",role="dense"} 2.0',
        f"winnow_net_batch_texts_count{{{labels}}} 3.0",
        f"winnow_net_batch_tokens_sum{{{labels}}} {5 + 3 + 3 + 3}.0",
        f"winnow_net_forward_seconds_count{{{labels}}} 3.0",
        f"winnow_net_failed_forwards_total{{{labels}}} 0.0",
        f"winnow_net_padding_tokens_total{{{labels}}} 2.0",
        f"winnow_net_halvings_total{{{labels}}} 1.0",
        'winnow_net_dropped_texts_total{net="counting",reason="full",role="dense"} 0.0',
        f"winnow_net_budget_tokens{{{labels}}} 10.0",
        'winnow_net_queued_tokens{net="counting",priority="bulk",role="dense"} 0.0',
        f"winnow_net_queue_limit_tokens{{{labels}}} 20.0",
        f"winnow_net_tokens_per_second{{{labels}}} ",
    ):
        assert line in text, line


def test_two_nets_of_one_name_are_told_apart() -> None:
    metrics = Metrics()
    NetMetrics(metrics.nets, "dense", "n").dropped("full", 2)
    NetMetrics(metrics.nets, "late", "n").dropped("full", 3)
    text = metrics.exposition().decode()
    assert 'winnow_net_dropped_texts_total{net="n",reason="full",role="dense"} 2.0' in text
    assert 'winnow_net_dropped_texts_total{net="n",reason="full",role="late"} 3.0' in text
