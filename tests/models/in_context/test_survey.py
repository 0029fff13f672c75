"""What heads do, on numbers that can be checked in the head, and that a survey sees what a reading reads."""

from pathlib import Path

import numpy as np
import torch

from models.in_context.read_out import Heads
from models.in_context.states import Joined
from models.in_context.survey import best_heads, best_layer, by_head, on_relevant
from tests.models.in_context.nets import QUERY, tiny_net, tokens

LOG2 = float(np.log(2))


def test_attention_of_each_head_by_document() -> None:
    """Two heads over one key head and three tokens, of which the first document has two."""
    queries = torch.tensor([[[LOG2]], [[0.0]]])
    keys = torch.tensor([[[1.0], [0.0], [0.0]]])
    torch.testing.assert_close(
        by_head(queries, keys, [2, 1], 1.0), torch.tensor([[0.75, 0.25], [2 / 3, 1 / 3]])
    )


def test_scores_are_what_lies_on_relevant_documents() -> None:
    attention = np.array([[[0.5, 0.25, 0.25]], [[0.0, 0.5, -0.5]]], np.float32)
    np.testing.assert_allclose(on_relevant(attention, np.array([True, False, True])), [[0.75], [-0.5]])


def test_the_best_heads_and_the_layer_that_has_most_of_them() -> None:
    scores = np.array([[0.9, 0.8, 0.0], [0.1, 0.5, 0.3], [0.6, 0.0, 0.1], [0.0, 0.0, 0.0]], np.float32)
    assert best_layer(scores, 1) == 2
    assert best_layer(scores, 2) == 1
    assert best_heads(scores, 2, 2) == Heads(((0, 0, 1.0), (0, 1, 1.0)))
    assert best_heads(scores[1:], 1, 3).heads == ((0, 1, 1.0), (0, 2, 1.0), (1, 0, 1.0))


def test_a_survey_is_what_each_head_alone_would_read(tmp_path: Path) -> None:
    net = tiny_net(tmp_path, double=True)
    documents = tokens(net)
    surveyed = net.survey(QUERY, documents)
    assert surveyed.shape == (2, 3, 4, len(documents))
    states = Joined(net.read_documents(documents))
    for layer in range(3):
        for head in range(4):
            read = Heads(((layer, head, 1.0),))
            (reading,) = net.ask([net.question(QUERY, "cached", read)], [states])
            np.testing.assert_allclose(surveyed[0, layer, head], reading.scores, atol=1e-6)


def test_a_survey_of_keys_is_what_keys_give(tmp_path: Path) -> None:
    net = tiny_net(tmp_path, double=True)
    documents = tokens(net)
    surveyed = net.survey(QUERY, documents)
    keys = net.document_keys(documents)
    flat, ends = np.concatenate(keys), np.cumsum([len(each) for each in keys])
    (asked,) = net.ask_alone([net.question(QUERY, "keys", Heads(((2, 3, 1.0),)))])
    logits = np.einsum("rd,trd->rt", asked.vectors, flat[:, asked.kv_heads])
    attention = torch.from_numpy(logits).softmax(-1).numpy()
    mass = np.stack([each.sum(1) for each in np.split(attention, ends[:-1], axis=1)], axis=1)
    np.testing.assert_allclose(surveyed[1, 2, 3], asked.weights @ mass, atol=1e-5)
