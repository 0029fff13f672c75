from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from models.late_layout import UNSEEN, Fill, Layout, batched, entries, punctuation
from models.tokens import copied
from tests.models.late_folders import plain
from tests.nets import VOCABULARY

CLS, SEP, MASK, SEA, CAT, THE, DOT, PAD = (
    VOCABULARY.index(each) for each in ("[CLS]", "[SEP]", "[MASK]", "sea", "cat", "the", ".", "[PAD]")
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain(tmp_path_factory.mktemp("nets") / "tiny")


@pytest.fixture(scope="module")
def backend(path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(path / "tokenizer.json"))


def lay(backend: Tokenizer, layout: Layout, text: str) -> tuple[list[int], list[int], list[list[int]]]:
    """The tokens of a text, and the ids and spans of its rows."""
    encoding = copied(backend, layout.most).encode(layout.before + text)
    laid = layout.lay(encoding, PAD)
    pieces = layout.pieces(encoding, laid)
    return laid, pieces.ids.tolist(), pieces.spans.tolist()


def test_a_text_in_a_bare_layout_has_a_row_a_token(backend: Tokenizer) -> None:
    laid, ids, spans = lay(backend, Layout(8), "cat sea.")
    assert laid == ids == [CLS, CAT, SEA, DOT, SEP]
    assert spans == [[0, 0], [0, 3], [4, 7], [7, 8], [0, 0]]


def test_markers_get_a_vector_and_prompts_and_what_is_skipped_do_not(backend: Tokenizer) -> None:
    layout = Layout(8, marker="cat ", prompt="the ", skip=frozenset([DOT]))
    laid, ids, spans = lay(backend, layout, "sea.")
    assert laid == [CLS, CAT, ~THE, SEA, ~DOT, SEP]
    assert ids == [CLS, CAT, SEA, SEP]
    assert spans == [[0, 0], [0, 0], [0, 3], [0, 0]]


@pytest.mark.parametrize(("seen", "token"), [(True, MASK), (False, MASK + UNSEEN)])
def test_a_text_is_filled_up_and_never_beyond(backend: Tokenizer, seen: bool, token: int) -> None:
    layout = Layout(5, fill=Fill(MASK, 5, seen))
    assert lay(backend, layout, "sea") == (
        [CLS, SEA, SEP, token, token],
        [CLS, SEA, SEP, MASK, MASK],
        [[0, 0], [0, 3], [0, 0], [0, 0], [0, 0]],
    )
    assert lay(backend, layout, "sea sea sea sea")[0] == [CLS, SEA, SEA, SEA, SEP]


def test_two_layouts_that_differ_are_described_differently() -> None:
    layouts = [
        Layout(8),
        Layout(9),
        Layout(8, marker="x"),
        Layout(8, prompt="x"),
        Layout(8, skip=frozenset([1])),
        Layout(8, fill=Fill(1, 8, True)),
        Layout(8, fill=Fill(1, 8, False)),
    ]
    assert len({str(layout.described()) for layout in layouts}) == len(layouts)
    same = [Layout(8, skip=frozenset(each)) for each in ([1, 2, 1 << 20], [1 << 20, 2, 1])]
    assert same[0].described() == same[1].described()


def test_punctuation_is_single_ascii_marks_however_vocabularies_write_the_space() -> None:
    vocabulary = {".": 1, "▁.": 2, "Ġ,": 3, "..": 4, "a": 5, "—": 6, "▁": 7, "[CLS]": 8, "$": 9}
    assert punctuation(vocabulary) == {1, 2, 3, 9}


def test_entries_are_what_the_vocabulary_has(path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(path)
    assert entries(tokenizer, ["sea", ".", "moonlight"]) == {SEA, DOT}
    assert entries(tokenizer, ["[UNK]"]) == {VOCABULARY.index("[UNK]")}


def test_a_batch_says_what_is_read_seen_and_counted() -> None:
    """A token with a vector, one without, one that fills, and padding by entry 9."""
    ids, seen, counted = batched([[4, ~5, 6 + UNSEEN], [7]], 9)
    assert ids.tolist() == [[4, 5, 6], [7, 9, 9]]
    assert seen.tolist() == [[True, True, False], [True, False, False]]
    assert counted.tolist() == [[True, False, True], [True, False, False]]
