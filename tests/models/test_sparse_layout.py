import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from models import Kind
from models.sparse_layout import Layout, layout, mute
from models.sparse_recipe import Recipe
from tests.nets import VOCABULARY, write_tokenizer

SPLADE = Recipe(kind="mlm", pooling="max", activation="log1p")
ECHO = Recipe(
    kind="decoder", pooling="max", activation="log1p", separator="! !", prompts={"query": "the cat is"}
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("net")
    write_tokenizer(path, 64)
    return Tokenizer.from_file(str(path / "tokenizer.json"))


def ids(text: str) -> tuple[int, ...]:
    return tuple(map(VOCABULARY.index, text.split()))


def test_special_tokens_and_prompts_are_read_but_do_not_vote(tokenizer: Tokenizer) -> None:
    recipe = Recipe(**{**SPLADE.model_dump(), "prompts": {"query": "is"}})
    laid = layout(tokenizer, recipe, "query", 16).lay(ids("sea"))
    assert laid == [*mute(ids("[CLS] is")), *ids("sea"), *mute(ids("[SEP]"))]
    assert layout(tokenizer, recipe, "document", 16).lay([]) == [*mute(ids("[CLS] [SEP]"))]


def test_no_token_is_lost_by_being_mute() -> None:
    assert mute((0, 3)) == (-1, -4)
    assert mute(mute((0, 3))) == (-1, -4)
    assert tuple(~number for number in mute((0, 3))) == (0, 3)


def test_a_causal_model_reads_a_text_twice_and_only_the_second_copy_votes(tokenizer: Tokenizer) -> None:
    laid = layout(tokenizer, ECHO, "query", 64).lay(ids("moon sea"))
    first = mute(ids("[CLS] the cat is moon sea ! !"))
    assert laid == [*first, *ids("moon sea"), *mute(ids("[SEP]"))]


@pytest.mark.parametrize(("kind", "most", "room"), [("document", 10, 3), ("query", 10, 1), ("query", 11, 2)])
def test_the_second_copy_is_never_cut(tokenizer: Tokenizer, kind: Kind, most: int, room: int) -> None:
    found = layout(tokenizer, ECHO, kind, most)
    assert found.room == room
    laid = found.lay(range(10, 60))
    assert len(laid) <= most
    assert [number for number in laid if number >= 0] == list(range(10, 10 + room))


def test_a_prompt_that_leaves_no_room_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="leave no room for a text in 8"):
        layout(tokenizer, ECHO, "query", 8)


@given(st.lists(st.integers(0, 99)), st.integers(1, 9), st.none() | st.just((-5,)))
def test_what_votes_is_the_text_up_to_its_room(text: list[int], room: int, between: tuple[int, ...]) -> None:
    laid = Layout((-1,), between, (-2, -3), room).lay(text)
    assert [number for number in laid if number >= 0] == text[:room]
