"""Reading in blocks gives what one forward of the whole prompt gives under the same mask."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from models.in_context.flat import causal_attention, masked_attention
from models.in_context.growing import Growing
from models.in_context.items import AloneItem, AskItem, DocumentItem, PromptItem
from models.in_context.net import InContextNet
from models.in_context.read_out import BlockRank, Drop, Heads, Icr, Reading, ReadOut
from models.in_context.segments import Segments, mask
from models.in_context.states import Joined
from tests.models.in_context.nets import DOCUMENTS, QUERY, tiny_net, tokens, tolerance

CHOSEN = Heads(((0, 1, 1.0), (2, 0, 0.5), (2, 3, 2.0)), temperature=0.7, later=1.5)
READ_OUTS: list[ReadOut] = [
    BlockRank(),
    BlockRank("words"),
    BlockRank("words", calibrate=True),
    Icr(),
    Icr((1, 2)),
    CHOSEN,
]


@pytest.fixture(scope="module", params=[False, True], ids=["float32", "float64"])
def net(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> InContextNet:
    return tiny_net(tmp_path_factory.mktemp("net"), double=request.param)


def in_blocks(net: InContextNet, documents: list[list[int]], read: ReadOut, mode: str) -> Reading:
    if mode == "query_aware":
        return net.rank([net.prompt(QUERY, documents, "query_aware", read)])[0]
    states = net.read_documents(documents)
    return net.ask([net.question(QUERY, "cached", read)], [Joined(states)])[0]


def under_mask(net: InContextNet, documents: list[list[int]], read: ReadOut, mode: str) -> Reading:
    """All of a prompt as one sequence under BlockRank's mask; for read-outs that are not calibrated."""
    prompt = net.prompt(QUERY, documents, mode, read)
    block = prompt.question.block
    segments = Segments.of(len(prompt.instruction), list(map(len, documents)), len(block.ids))
    return net.flat(prompt, masked_attention(mask(segments)), segments.positions(net.recipe.gap))


def keys_scores(net: InContextNet, documents: list[list[int]], read: ReadOut) -> np.ndarray:
    """Mode keys by its definition: a softmax over all documents' tokens for every row of the question."""
    (asked,) = net.ask_alone([net.question(QUERY, "keys", read)])
    keys = net.document_keys(documents)
    flat = np.concatenate(keys)
    logits = np.einsum("rd,trd->rt", asked.vectors, flat[:, asked.kv_heads])
    attention = torch.from_numpy(logits).softmax(-1).numpy()
    ends = np.cumsum([len(each) for each in keys])
    mass = np.stack([each.sum(1) for each in np.split(attention, ends[:-1], axis=1)], axis=1)
    return asked.weights @ mass


@pytest.mark.parametrize("mode", ["query_aware", "cached"])
@pytest.mark.parametrize(
    "read", [BlockRank(), BlockRank("words"), Heads(CHOSEN.heads, 0.7, calibrate=False, later=2.0)]
)
def test_blocks_give_what_the_whole_prompt_gives_under_the_mask(
    net: InContextNet, read: ReadOut, mode: str
) -> None:
    ours, whole = (each(net, tokens(net), read, mode) for each in (in_blocks, under_mask))
    np.testing.assert_allclose(ours.scores, whole.scores, rtol=0, atol=tolerance(net))
    for mine, theirs in zip(ours.tokens, whole.tokens, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=tolerance(net))


@torch.inference_mode()
def test_attention_of_all_layers_over_everything_is_that_of_the_whole_prompt(net: InContextNet) -> None:
    """ICR's own read-out, less its calibration: the content-free question is asked for itself."""
    documents = tokens(net)
    prompt = net.prompt(QUERY, documents, "cached", Icr())
    question = prompt.question
    assert question.free is not None
    segments = Segments.of(len(prompt.instruction), list(map(len, documents)), len(question.block.ids))
    attend, positions = masked_attention(mask(segments)), segments.positions(net.recipe.gap)
    asked = net._flat(prompt.instruction, prompt, question.block, attend, positions)
    free_segments = Segments.of(len(prompt.instruction), list(map(len, documents)), len(question.free.ids))
    free = net._flat(
        prompt.instruction,
        prompt,
        question.free,
        masked_attention(mask(free_segments)),
        free_segments.positions(net.recipe.gap),
    )
    whole = Reading.of(asked - free, list(map(len, documents)), robust=True)
    ours = in_blocks(net, documents, Icr(), "cached")
    np.testing.assert_allclose(ours.scores, whole.scores, rtol=0, atol=10 * tolerance(net))


@pytest.mark.parametrize("read", READ_OUTS, ids=lambda read: read.kind)
@pytest.mark.parametrize("mode", ["query_aware", "cached"])
def test_order_of_documents_says_nothing(net: InContextNet, read: ReadOut, mode: str) -> None:
    order = [3, 0, 4, 2, 1]
    documents = tokens(net)
    plain = in_blocks(net, documents, read, mode)
    moved = in_blocks(net, [documents[number] for number in order], read, mode)
    np.testing.assert_allclose(moved.scores, plain.scores[order], rtol=0, atol=tolerance(net))


@pytest.mark.parametrize("read", [BlockRank(), CHOSEN, Icr((2,))], ids=lambda read: read.kind)
def test_order_of_documents_says_nothing_to_keys(net: InContextNet, read: ReadOut) -> None:
    order = [3, 0, 4, 2, 1]
    documents = tokens(net)
    moved = keys_scores(net, [documents[number] for number in order], read)
    np.testing.assert_allclose(moved, keys_scores(net, documents, read)[order], rtol=0, atol=1e-5)


def test_a_decoder_sees_the_order_of_documents(net: InContextNet) -> None:
    """Mode dense is an ordinary decoder, so it does."""
    documents = tokens(net)
    plain, moved = net.rank(
        [net.prompt(QUERY, each, "dense") for each in (documents, [*documents[1:], documents[0]])]
    )
    assert np.abs(moved.scores[[4, 0, 1, 2, 3]] - plain.scores).max() > 1e-4


def test_one_document_in_blocks_is_an_ordinary_forward(net: InContextNet) -> None:
    documents = tokens(net)[:1]
    prompt = net.prompt(QUERY, documents, "query_aware", BlockRank("words"))
    segments = Segments.of(len(prompt.instruction), [len(documents[0])], len(prompt.question.block.ids))
    causal = net.flat(prompt, causal_attention, segments.positions(net.recipe.gap))
    ours = in_blocks(net, documents, BlockRank("words"), "query_aware")
    np.testing.assert_allclose(ours.tokens[0], causal.tokens[0], rtol=0, atol=tolerance(net))


@pytest.mark.parametrize("read", READ_OUTS, ids=lambda read: read.kind)
def test_questions_asked_together_are_questions_asked_alone(net: InContextNet, read: ReadOut) -> None:
    states = net.read_documents(tokens(net))
    sources = [Joined(states), Joined(states[1:4]), Joined(states[:1])]
    questions = [
        net.question(query, "cached", read) for query in (QUERY, "cat", "the dog and the cat in water")
    ]
    together = net.ask(questions, sources)
    for question, source, reading in zip(questions, sources, together, strict=True):
        (alone,) = net.ask([question], [source])
        np.testing.assert_allclose(reading.scores, alone.scores, rtol=0, atol=tolerance(net))
    several = net.ask_alone([net.question(query, "keys", read.at(2)) for query in (QUERY, "cat")])
    (alone_keys,) = net.ask_alone([net.question("cat", "keys", read.at(2))])
    np.testing.assert_allclose(several[1].vectors, alone_keys.vectors, rtol=0, atol=10 * tolerance(net))


def test_documents_read_together_are_documents_read_alone(net: InContextNet) -> None:
    documents = tokens(net)
    together = net.read_documents(documents)
    for ids, states in zip(documents, together, strict=True):
        (alone,) = net.read_documents([ids])
        assert states.keys.shape == (3, 2, len(ids), 16)
        assert states.values.shape == (2, 2, len(ids), 16)
        torch.testing.assert_close(states.keys, alone.keys, rtol=0, atol=tolerance(net))
        torch.testing.assert_close(states.values, alone.values, rtol=0, atol=tolerance(net))


def test_keys_are_those_of_documents_that_were_read(net: InContextNet) -> None:
    documents = tokens(net)
    states = net.read_documents(documents)
    for keys, whole in zip(net.document_keys(documents), states, strict=True):
        np.testing.assert_allclose(keys, whole.keys[2].transpose(0, 1).numpy(), rtol=0, atol=1e-5)


def test_a_score_is_the_sum_of_its_tokens_and_all_sum_to_one(net: InContextNet) -> None:
    """By `blockrank` attention over the documents' tokens is a distribution."""
    reading = in_blocks(net, tokens(net), BlockRank(), "cached")
    np.testing.assert_allclose(reading.scores, [each.sum() for each in reading.tokens], rtol=1e-5)
    assert reading.scores.sum() == pytest.approx(1, abs=1e-5)
    assert [len(each) for each in reading.tokens] == [len(ids) for ids in tokens(net)]


def test_without_content_a_question_scores_nothing(net: InContextNet) -> None:
    """The content-free question is compared with itself."""
    states = net.read_documents(tokens(net))
    question = net.question("N/A", "cached", CHOSEN)
    (reading,) = net.ask([question], [Joined(states)])
    np.testing.assert_allclose(reading.scores, 0, atol=1e-5)
    (asked,) = net.ask_alone([net.question("N/A", "keys", CHOSEN)])
    half = len(asked.weights) // 2
    np.testing.assert_allclose(asked.weights[:half], -asked.weights[half:])
    np.testing.assert_allclose(asked.vectors[:half], asked.vectors[half:], atol=1e-5)


def test_dropping_all_but_the_best_leaves_them_in_front(net: InContextNet) -> None:
    documents = tokens(net)
    states = Joined(net.read_documents(documents))
    at_first_layer = net.ask(
        [
            net.question(
                QUERY,
                "cached",
                Heads(
                    ((1, 0, 0.25), (1, 1, 0.25), (1, 2, 0.25), (1, 3, 0.25)), calibrate=False, signal="answer"
                ),
            )
        ],
        [states],
    )[0]
    (reading,) = net.ask([net.question(QUERY, "cached", drop=Drop(1, 0.4))], [states])
    best = np.argsort(-at_first_layer.scores)
    assert set(np.argsort(-reading.scores)[:2]) == set(best[:2])
    assert list(np.argsort(-reading.scores)[2:]) == list(best[2:])
    # Those that stay are scored as if there were no others from that layer on, so they share all attention.
    assert reading.scores[best[:2]].sum() == pytest.approx(1, abs=1e-5)


def test_dropping_none_changes_nothing(net: InContextNet) -> None:
    plain, dropped = (
        net.rank([net.prompt(QUERY, tokens(net), "query_aware", None, drop)])[0]
        for drop in (None, Drop(1, 1.0))
    )
    np.testing.assert_allclose(dropped.scores, plain.scores, rtol=0, atol=tolerance(net))


def test_reading_only_as_far_as_is_needed_is_reading_all(net: InContextNet) -> None:
    documents, drop = tokens(net), Drop(1, 0.4)
    question = net.question(QUERY, "cached", drop=drop)
    (whole,) = net.ask([question], [Joined(net.read_documents(documents))])
    with torch.inference_mode():
        read = net._decoder.read(documents, net.instruction, 2, behind=1)
        growing = Growing(read, 1, 2, partial(net._read_on, net.instruction))
        (ours,) = net.ask([question], [growing])
    np.testing.assert_allclose(ours.scores, whole.scores, rtol=0, atol=tolerance(net))


def test_items_of_all_kinds_pass_together(net: InContextNet) -> None:
    documents = tokens(net)
    source = Joined(net.read_documents(documents))
    items = [
        PromptItem(net.prompt(QUERY, documents, "query_aware")),
        DocumentItem(documents[0]),
        AskItem(net.question(QUERY, "cached"), source),
        AloneItem(net.question(QUERY, "keys")),
        DocumentItem(documents[2]),
    ]
    found = net.forward(items)
    np.testing.assert_allclose(found[0].scores, in_blocks(net, documents, BlockRank(), "query_aware").scores)
    torch.testing.assert_close(found[1].keys, source._states[0].keys, rtol=0, atol=tolerance(net))
    np.testing.assert_allclose(found[2].scores, in_blocks(net, documents, BlockRank(), "cached").scores)
    assert found[3].vectors.shape == (8, 16)  # two tokens that the answer begins with, four heads
    assert found[4].tokens == len(documents[2])
    assert list(map(len, items[1:3])) == [len(documents[0]), len(net.question(QUERY, "cached"))]


def test_layers_above_the_last_one_read_are_let_go(net: InContextNet) -> None:
    assert (net.layer, net.layers, len(net._decoder._model.layers)) == (2, 4, 3)


@pytest.mark.parametrize(
    ("mode", "read", "drop", "message"),
    [
        ("cached", Heads(((3, 0, 1.0),)), None, "names head 0 of layer 3"),
        ("cached", Heads(((0, 4, 1.0),)), None, "has heads 0 to 3"),
        ("keys", Heads(((1, 0, 1.0),)), None, "none of layer 2"),
        ("keys", None, Drop(1, 0.5), "not in keys"),
        ("cached", None, Drop(2, 0.5), "from 1 to 1, not 2"),
    ],
)
def test_what_cannot_be_read_is_refused(
    net: InContextNet, mode: str, read: ReadOut | None, drop: Drop | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        net.question(QUERY, mode, read, drop)


def test_a_prompt_longer_than_the_context_is_refused(net: InContextNet) -> None:
    with pytest.raises(ValueError, match="sees 4096: rerank fewer"):
        net.prompt(QUERY, [[5] * 50] * 100, "dense")
    net.prompt(QUERY, [[5] * 50] * 100, "query_aware")


def test_fingerprint_is_of_what_is_made_of_documents(tmp_path: Path) -> None:
    def fingerprint(name: str, **recipe: object) -> str:
        return tiny_net(tmp_path / name, **recipe).fingerprint

    first = fingerprint("a")
    assert first == fingerprint("b", gap=90, question_tokens=30, read={"kind": "icr"})
    others = {
        fingerprint("c", layer=1),
        fingerprint("d", document_tokens=50),
        fingerprint("e", title_tokens=3),
    }
    assert len(others | {first, fingerprint("f", config={"seed": 8})}) == 5


def test_documents_are_never_empty(net: InContextNet) -> None:
    (cut,) = net.document_tokens([("", "")])
    assert cut.ids
    assert net.read_documents([cut.ids])[0].tokens == len(cut.ids)
    assert DOCUMENTS


@pytest.mark.parametrize("read", [BlockRank("words"), Icr()], ids=lambda read: read.kind)
def test_a_policy_that_keeps_everything_is_no_policy(
    net: InContextNet, read: ReadOut, tmp_path: Path
) -> None:
    double = net.dtype == torch.float64
    kept = tiny_net(tmp_path, double=double, policy={"kind": "flex_prefill", "mass": 1.0})
    ours, plain = (each.rank([each.prompt(QUERY, tokens(net), "dense", read)])[0] for each in (kept, net))
    np.testing.assert_allclose(ours.scores, plain.scores, rtol=0, atol=10 * tolerance(net))
