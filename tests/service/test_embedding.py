import numpy as np
import pytest

from service.embedding import cut, fitted, narrowed, refuse_dimensions
from service.errors import InvalidError
from tests.nets import WordOverlapEncoder, tiny_encoder

NET = WordOverlapEncoder()
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


def test_the_first_numbers_of_a_vector_are_as_they_were_or_at_unit_length():
    vectors = np.float32([[3, 4, 12], [0, 0, 1]]) / np.float32([[13], [1]])
    np.testing.assert_array_equal(narrowed(vectors, 2, unit=False), vectors[:, :2])
    np.testing.assert_allclose(narrowed(vectors, 2, unit=True), [[0.6, 0.8], [0, 0]], rtol=1e-6)


def test_more_numbers_than_there_are_is_an_error():
    refuse_dimensions("net", 3, 3)
    with pytest.raises(InvalidError, match="dimensions is 4, and the vectors of net have 3 numbers"):
        refuse_dimensions("net", 3, 4)
