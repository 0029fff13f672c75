"""Every backend reads the same of the same texts."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from models.in_context.batches import Backend, backend, padded_batch, ragged_batch
from models.in_context.growing import Growing
from models.in_context.net import InContextNet
from models.in_context.read_out import Drop
from models.in_context.states import Joined
from tests.models.in_context.nets import QUERY, tiny_net, tokens

PADDED, RAGGED = Backend(1600, padded_batch), Backend(1 << 15, ragged_batch)


@pytest.fixture(
    scope="module", params=[PADDED, RAGGED, Backend(60, ragged_batch)], ids=["padded", "ragged", "few"]
)
def net(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> InContextNet:
    return tiny_net(tmp_path_factory.mktemp("net"), double=True, backend=request.param)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> InContextNet:
    return tiny_net(tmp_path_factory.mktemp("net"), double=True, backend=Backend(1, padded_batch))


def test_what_is_read_together_is_what_is_read_alone(net: InContextNet, reference: InContextNet) -> None:
    for mine, alone in zip(
        net.read_documents(tokens(net)), reference.read_documents(tokens(net)), strict=True
    ):
        torch.testing.assert_close(mine.keys, alone.keys, rtol=0, atol=1e-10)
        torch.testing.assert_close(mine.values, alone.values, rtol=0, atol=1e-10)


def test_prompts_score_alike(net: InContextNet, reference: InContextNet) -> None:
    ours, theirs = (
        each.rank([each.prompt(QUERY, tokens(net), "query_aware")])[0].scores for each in (net, reference)
    )
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)


def test_reading_on_is_reading_whole(net: InContextNet) -> None:
    documents, question = tokens(net), net.question(QUERY, "cached", drop=Drop(1, 0.4))
    (whole,) = net.ask([question], [Joined(net.read_documents(documents))])
    with torch.inference_mode():
        read = net._decoder.read(documents, net.instruction, 2, behind=1)
        (ours,) = net.ask([question], [Growing(read, 1, 2, partial(net._read_on, net.instruction))])
    np.testing.assert_allclose(ours.scores, whole.scores, rtol=0, atol=1e-10)


def test_a_device_has_its_backend() -> None:
    assert backend("cpu").batch is padded_batch
    assert backend("cuda").batch is backend("cuda:1").batch is ragged_batch


def test_a_net_without_a_choice_reads_as_its_device_does(tmp_path: Path) -> None:
    assert tiny_net(tmp_path)._decoder._backend == backend("cpu")
