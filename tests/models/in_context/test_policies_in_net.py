"""A whole prompt through a net whose layers attend by a policy."""

import numpy as np
import pytest
import torch

from models.in_context.flat import causal_attention, masked_attention
from models.in_context.net import InContextNet
from models.in_context.policies import FlexPrefill, Windows, sparse_attention
from models.in_context.read_out import BlockRank
from models.in_context.segments import Segments, mask
from tests.models.in_context.nets import QUERY, tiny_net

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> InContextNet:
    return tiny_net(tmp_path_factory.mktemp("net"), gap=400, document_tokens=256)


def test_document_scores_by_policies(net: InContextNet):
    """All blocks kept are full attention; documents of two blocks each do not see one another as windows."""
    prompt = net.prompt(QUERY, [[5, 6, 7, 8] * 64, [9, 8, 7, 5] * 64], "dense", BlockRank("words"))
    instruction, question = len(prompt.instruction), len(prompt.question.block.ids)
    segments = Segments.of(instruction, [256, 256], question)
    positions = torch.arange(segments.tokens)

    def scores(attend):
        return net.flat(prompt, attend, positions).scores

    full = scores(causal_attention)
    assert np.allclose(scores(sparse_attention(FlexPrefill(mass=1), segments)), full, atol=1e-6)

    kept = Windows()(*torch.zeros(2, 4, segments.tokens, 2), segments)[0]
    seen = (
        mask(segments.causal())
        & kept.repeat_interleave(128, 0).repeat_interleave(128, 1)[: segments.tokens, : segments.tokens]
    )
    by_windows = scores(sparse_attention(Windows(), segments))
    assert np.allclose(by_windows, scores(masked_attention(seen)), atol=1e-6)
    assert not np.allclose(by_windows, full, atol=1e-6)
