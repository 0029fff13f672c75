"""A question and the keys of documents that were read just now."""

import math

import numpy as np
import pytest

from models.in_context.cache import KVCache
from models.in_context.items import KeyQuestion
from models.in_context.met import keys_of, met
from models.in_context.net import InContextNet
from models.in_context.states import Joined
from tests.models.in_context.nets import tiny_net, tokens

# One head, one dimension: a document of one token and one of two, whose logits are 0, 0 and log 2.
KEYS = np.array([[[0.0], [0.0], [math.log(2)]]], np.float32)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> InContextNet:
    return tiny_net(tmp_path_factory.mktemp("net"))


def question(*weights: float, heads: tuple[int, ...] = (0,)) -> KeyQuestion:
    vectors = np.ones((len(weights), 1), np.float32)
    return KeyQuestion(vectors, np.array(heads, np.int64), np.array(weights, np.float32))


def test_a_score_is_a_share_of_the_attention_to_all_tokens() -> None:
    np.testing.assert_allclose(met(question(1.0), KEYS, [1, 2]), [1 / 4, 3 / 4], rtol=1e-6)
    np.testing.assert_allclose(met(question(1.0), KEYS, [2, 1]), [2 / 4, 2 / 4], rtol=1e-6)


def test_one_document_has_all_of_it() -> None:
    assert met(question(1.0), KEYS, [3]).tolist() == [1.0]


def test_rows_count_by_their_weights_and_meet_their_own_heads() -> None:
    keys = np.concatenate([KEYS, np.zeros_like(KEYS)])  # to the second head all tokens are alike
    found = met(question(0.5, -1.0, heads=(0, 1)), keys, [1, 2])
    np.testing.assert_allclose(found, [0.5 / 4 - 1 / 3, 1.5 / 4 - 2 / 3], rtol=1e-6)


def test_large_logits_do_not_overflow() -> None:
    found = met(question(1.0), 1000 * KEYS, [1, 2])
    np.testing.assert_allclose(found, [0.0, 1.0], atol=1e-6)


def test_keys_of_documents_that_were_read_are_those_that_an_index_would_store(net: InContextNet) -> None:
    documents = tokens(net)
    found = keys_of(Joined(net.read_documents(documents)), net.layer, net.instruction)
    stored = np.concatenate(net.document_keys(documents)).transpose(1, 0, 2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, stored, atol=1e-5)


def test_keys_of_documents_that_are_kept_are_nearly_the_same(net: InContextNet) -> None:
    states = net.read_documents(tokens(net))
    cache = KVCache(net.layer, net.kv_heads, net.head_dim, net.dtype, 2**22, net.instruction)
    with cache.lease() as lease:
        kept = cache.documents([lease.put(bytes([number]), each) for number, each in enumerate(states)])
        found = keys_of(kept, net.layer, net.instruction)
    exact = keys_of(Joined(states), net.layer, net.instruction)
    assert 0 < np.abs(found - exact).max() < 0.05 * np.abs(exact).max()


def test_a_text_cut_by_offsets_has_so_many_tokens(net: InContextNet) -> None:
    text = "tide and moon é and water"
    (offsets,) = net.offsets([text])
    (whole,), (cut,) = (net.document_tokens([("", each)]) for each in (text, text[: offsets[5][1]]))
    (empty,) = net.document_tokens([("", "")])
    assert len(offsets) == len(whole.ids) - len(empty.ids)
    assert len(cut.ids) - len(empty.ids) == 6
    assert offsets.dtype == np.int64
    assert offsets[-1][1] == len(text)
