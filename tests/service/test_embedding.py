import numpy as np
import pytest

from models import Kind
from service.embedding import cut, fewest_of_cut, fitted, narrowed, refuse_cut, refuse_dimensions
from service.errors import InvalidError, TooLongError
from tests.models.late_folders import multi_vector
from tests.models.sparse_folders import causal
from tests.nets import WordOverlapEncoder, tiny_encoder

NET = WordOverlapEncoder()
KINDS: tuple[Kind, ...] = ("document", "query")
TEXT = "the cat, the dog; a moon"


@pytest.mark.parametrize(
    ("most", "start", "end"),
    [(1, "the", "moon"), (3, "the cat, the", "dog; a moon"), (6, TEXT, TEXT), (9, TEXT, TEXT)],
)
def test_a_text_keeps_its_first_or_last_tokens(most: int, start: str, end: str):
    assert cut(NET, [TEXT, "cat"], most) == [start, "cat"]
    assert cut(NET, [TEXT, "cat"], most, "left") == [end, "cat"]


def test_tokens_that_the_net_adds_are_counted_where_texts_must_fit():
    assert fitted(NET, [TEXT], "document", 4, "right") == ["the cat"]
    assert fitted(NET, [TEXT], "document", 4, "left") == ["a moon"]
    with pytest.raises(InvalidError, match="2 tokens are too few: 2 of them are the model's own"):
        fitted(NET, [TEXT], "document", 2, "right")


@pytest.mark.parametrize("end", ["left", "right"])
@pytest.mark.parametrize(
    "text", ["tideserfowls moonings", "owlowlowl", "🌊🌊🌊🌊 sea", "tide 海の水 and sun"]
)
def test_what_is_left_of_a_text_has_no_more_pieces_than_asked(tmp_path, text: str, end):
    """A part of a word may have more pieces than it had within the word, so texts are cut until they fit."""
    from models.dense import DenseEncoder

    net = DenseEncoder.load(str(tiny_encoder(tmp_path)))
    whole = len(net.offsets([text])[0])
    for most in range(1, whole):
        (left,) = cut(net, [text], most, end)
        assert len(net.offsets([left])[0]) <= most
        assert text.endswith(left) if end == "left" else text.startswith(left)


@pytest.mark.parametrize("attend", [False, True])
def test_questions_are_judged_by_what_is_read_of_them(tmp_path, attend: bool):
    """Of a ColBERT's question five pieces beside two special tokens and a marker, of a passage more."""
    from models.late import LateEncoder

    filling = {"strategy": "fixed", "attend": attend, "length": 8}
    net = LateEncoder.load(str(multi_vector(tmp_path, query_expansion=filling)))
    refuse_cut(net, ["sea sea sea sea sea"], "query")
    refuse_cut(net, ["sea sea sea sea sea sea"], "document")
    with pytest.raises(TooLongError, match="the question has 6 tokens, and the model reads 5 of them"):
        refuse_cut(net, ["sea sea sea sea sea sea"], "query")
    with pytest.raises(TooLongError, match="text 1 has 6 tokens"):
        refuse_cut(net, ["sea", "sea sea sea sea sea sea"], "query")


def test_texts_that_stand_twice_before_a_net_are_judged_by_one_copy(tmp_path):
    from models.sparse import SparseEncoder

    recipe = {"kind": "decoder", "pooling": "max", "activation": "log1p", "separator": "and"}
    net = SparseEncoder.load(str(causal(tmp_path, 32, **recipe, prompts={"query": "the sun is"})))
    for kind in KINDS:
        room = net.room(kind)
        assert sum(each >= 0 for each in net.tokenize(["sea " * 50], kind)[0]) == room
        refuse_cut(net, ["sea " * room], kind)
        with pytest.raises(TooLongError, match=f"reads {room} of them"):
            refuse_cut(net, ["sea " * (room + 1)], kind)
        assert len(net.tokenize(["sea " * (room + 1)], kind)[0]) >= fewest_of_cut(net, kind)
        assert fitted(net, ["sea " * 50], kind, None, "left") == [("sea " * room).strip() + " "]


def test_the_first_numbers_of_a_vector_are_as_they_were_or_at_unit_length():
    vectors = np.float32([[3, 4, 12], [0, 0, 1]]) / np.float32([[13], [1]])
    np.testing.assert_array_equal(narrowed(vectors, 2, unit=False), vectors[:, :2])
    np.testing.assert_allclose(narrowed(vectors, 2, unit=True), [[0.6, 0.8], [0, 0]], rtol=1e-6)


def test_more_numbers_than_there_are_is_an_error():
    refuse_dimensions("net", 3, 3)
    with pytest.raises(InvalidError, match="dimensions is 4, and the vectors of net have 3 numbers"):
        refuse_dimensions("net", 3, 4)
