import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.traced import Called, traced

IDS = [3, 1, 4, 1, 5]


def call(net: Any, ids: Tensor, mask: Tensor) -> Tensor:
    made: Tensor = net(ids, mask)
    return made


class Sums(nn.Module):
    """The sum of each text's embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 4)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return (self.table(ids) * mask[:, :, None]).sum(1)


class Branching(Sums):
    """Doubles the sums of batches of one text."""

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return super().forward(ids, mask) * (2 if len(ids) == 1 else 1)


class Listing(Sums):
    """Gives what no graph can."""

    def forward(self, ids: Tensor, mask: Tensor) -> Any:
        return range(len(ids))


def test_a_traced_net_gives_the_same_for_any_shape() -> None:
    net = Sums()
    forward = traced("sums", net, call, IDS)
    assert isinstance(forward, torch.jit.ScriptModule)
    with torch.inference_mode():
        for texts, tokens in ((1, 1), (4, 9), (7, 2)):
            ids = torch.randint(9, (texts, tokens))
            mask = torch.ones_like(ids)
            assert torch.equal(forward(ids, mask), net(ids, mask))


@pytest.mark.parametrize(
    ("net", "why"), [(Branching(), "branches on what it reads"), (Listing(), "cannot be traced")]
)
def test_a_net_that_cannot_be_traced_runs_as_it_is_and_that_is_said(
    net: nn.Module, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        forward = traced("odd", net, call, IDS)
    assert isinstance(forward, Called)
    assert f"the net odd {why}" in caplog.text
