"""Inverse cloze and body first selection, on passages whose pairs one can name."""

import pytest

from models.training.pretraining import Pair, Passage, bfs, ict

SHORT = "Cats sleep."
TIDE = "The moon pulls the tide."
MOON = "It is the moon that pulls."
RAIN = "Rain falls on the sea."
LONG = " ".join(["word"] * 41) + "."


def passage(*sentences: str, document: str = "d") -> Passage:
    return Passage(document, "A title", sentences)


def test_a_question_is_the_only_fit_sentence_and_the_document_the_others() -> None:
    assert list(ict([passage(SHORT, TIDE, LONG)], seed=0, keep=0)) == [Pair(TIDE, 0, f"{SHORT} {LONG}")]
    assert list(ict([passage(SHORT, TIDE)], seed=0, keep=1)) == [Pair(TIDE, 0, f"{SHORT} {TIDE}")]


def test_passages_that_give_no_pair_are_passed_over() -> None:
    """No fit sentence; nothing beside it; nothing beside it but what repeats it."""
    none = [passage(SHORT, LONG), passage(TIDE), passage(MOON, f"We say: {MOON}"), passage()]
    assert [pair.place for pair in ict([*none, passage(RAIN, SHORT)], seed=3, keep=0)] == [4]


def test_what_several_passages_say_is_no_question() -> None:
    assert list(ict([passage(TIDE, RAIN), passage(SHORT, TIDE)], seed=0, keep=0)) == [Pair(RAIN, 0, TIDE)]
    again = [passage(TIDE, document="two"), passage(TIDE, document="two")]
    assert list(bfs(again, seed=0)) == []


@pytest.mark.parametrize(("words", "pairs"), [(4, 0), (5, 1), (40, 1), (41, 0)])
def test_questions_have_5_to_40_words(words: int, pairs: int) -> None:
    sentence = " ".join(["tide"] * words)
    assert len(list(ict([passage(sentence, SHORT)], seed=0))) == pairs


def numbered(number: int, document: str = "d") -> Passage:
    """A passage that says two things of a number, and one that all say."""
    return passage(
        f"The moon has number {number}.", SHORT, f"Number {number} is the tide.", document=document
    )


def test_with_no_sentence_kept_no_document_has_its_question() -> None:
    pairs = list(ict([numbered(n) for n in range(50)], seed=1, keep=0))
    assert len(pairs) == 50
    assert not any(pair.query in pair.text for pair in pairs)
    assert {pair.query.split()[0] for pair in pairs} == {"The", "Number"}


def test_about_a_tenth_keeps_its_question() -> None:
    pairs = list(ict([numbered(n) for n in range(2000)], seed=5))
    assert 150 < sum(pair.query in pair.text for pair in pairs) < 250


def test_pairs_depend_on_the_seed_and_on_nothing_else() -> None:
    passages = [numbered(n, str(n // 5)) for n in range(100)]
    assert list(ict(passages, seed=1)) == list(ict(passages, seed=1)) != list(ict(passages, seed=2))
    assert list(bfs(passages, seed=1)) == list(bfs(passages, seed=1)) != list(bfs(passages, seed=2))


def test_a_share_is_a_share() -> None:
    with pytest.raises(ValueError, match="share from 0 to 1, not 10"):
        list(ict([], seed=0, keep=10))


def test_a_document_begins_with_the_question_and_another_of_its_passages_answers() -> None:
    passages = [
        passage(TIDE, SHORT, document="two"),
        passage(RAIN, document="two"),
        passage(MOON, document="one"),
        passage(SHORT, document="unfit"),
        passage(RAIN, document="unfit"),
    ]
    assert list(bfs(passages, seed=0)) == [Pair(TIDE, 1, RAIN)]
    assert list(bfs([], seed=0)) == []


def test_any_passage_but_the_first_may_answer() -> None:
    passages = [numbered(n, str(n // 3)) for n in range(300)]
    places = {pair.place % 3 for pair in bfs(passages, seed=0)}
    assert places == {1, 2}
