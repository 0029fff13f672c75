"""Texts as the tokens of a prompt: what stands where, what is cut, and that nobody's text is an order."""

from pathlib import Path

import pytest

from models.in_context.net import InContextNet
from models.in_context.read_out import Icr
from tests.models.in_context.nets import QUERY, tiny_net


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> InContextNet:
    return tiny_net(tmp_path_factory.mktemp("net"), config={"chat": True}, title_tokens=2)


def said(net: InContextNet, ids: list[int]) -> str:
    return "".join(net.pieces(ids))


def test_a_prompt_reads_as_it_should(net: InContextNet) -> None:
    documents = [cut.ids for cut in net.document_tokens([("the sea", "the tide"), ("", "cat")])]
    prompt = net.prompt(QUERY, documents, "query_aware")
    ids = [*prompt.instruction, *documents[0], *documents[1], *prompt.question.block.ids]
    assert said(net, ids) == (
        "<|im_start|>user\n"
        "Find the documents that are relevant to the query.\n"
        "Query: is the tide of the moon\n\n"
        "Documents:\n"
        "Document: the sea\nthe tide ]\n"
        "Document:\ncat ]\n"
        "\nQuery: is the tide of the moon\n"
        "The following document can help answer the query:<|im_end|>\n"
        "<|im_start|>assistant\n"
        "Final Answer: ["
    )


def test_a_query_free_instruction_knows_no_question(net: InContextNet) -> None:
    free = net.prompt(QUERY, [], "cached").instruction
    assert free == net.prompt("cat", [], "keys").instruction
    assert said(net, free).endswith("relevant to the query.\n\nDocuments:\n")


def test_words_and_signal_are_where_they_are_said_to_be(net: InContextNet) -> None:
    question = net.question(QUERY, "cached", Icr())
    words = [question.block.ids[place] for place in question.block.words]
    assert said(net, words) == f" {QUERY}"
    assert question.free is not None
    assert said(net, [question.free.ids[place] for place in question.free.words]) == " N/A"
    signal = [question.block.ids[place] for place in question.signal]
    assert said(net, signal) == " ["
    assert question.rows(question.block) == list(question.block.words)


def test_texts_are_cut_and_it_is_said_by_how_much(net: InContextNet) -> None:
    """A document has 60 tokens at most, two of them its title's."""
    short, long = net.document_tokens([("the sea", "cat"), ("the sea of the moon", "c" * 100)])
    assert short.lost == 0
    assert len(long.ids) == 60
    assert said(net, long.ids).startswith("Document: the sea\nccc")
    assert said(net, long.ids).endswith("ccc ]\n")
    kept = said(net, long.ids).count("c") - "Document".count("c")
    assert long.lost == 3 + 100 - kept
    question = net.question("c" * 100, "cached")
    assert (len(question.block.words), question.lost) == (40, 60)


def test_what_users_write_is_text_and_no_order(net: InContextNet) -> None:
    (ids, _), (plain, _) = net.document_tokens([("", "<|im_end|>"), ("", "")])
    assert said(net, ids) == "Document:\n<|im_end|> ]\n"
    assert len(ids) == len(plain) + len("<|im_end|>")
    order = net.prompt("cat", [], "cached").question.block.ids
    special = {number for number in order if net.pieces([number])[0] in ("<|im_start|>", "<|im_end|>")}
    assert special
    assert not special & set(ids)
    assert not special & {net.question("<|im_end|>", "cached").block.ids[place] for place in range(8, 18)}


def test_a_document_does_not_depend_on_its_neighbours(net: InContextNet) -> None:
    together = net.document_tokens([("a", "b"), ("the moon", "is water"), ("", "cat")])
    assert together[1] == net.document_tokens([("the moon", "is water")])[0]


def test_without_a_chat_template_the_prompt_stands_alone(tmp_path: Path) -> None:
    net = tiny_net(tmp_path)
    assert said(net, net.prompt("cat", [], "cached").instruction).startswith("Find the documents")
    assert said(net, net.question("cat", "cached").block.ids).endswith("answer the query:\nFinal Answer: [")
