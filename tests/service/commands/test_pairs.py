"""Collections that ask themselves: passages, questions and answers as files."""

from pathlib import Path

import pytest

from indexer.document import Document
from indexer.sources import read_documents, read_qrels, read_queries
from service.commands.common import CommandError
from service.commands.pairs import document_of, split_documents, write_pairs
from tests.service.commands.beir import write_beir

TIDE = "The moon pulls the tide."
CATS = "Cats sleep."


def test_passages_are_whole_sentences_of_at_most_150_words() -> None:
    sentence = "word " * 59 + "end."
    long = "word " * 199 + "end."
    text = f"{sentence} {sentence}\n{sentence} {long} {CATS}"
    found = list(split_documents([Document(id="a", title="A", text=text), Document(id="b", text="")]))
    assert [(p.document, p.title, len(p.sentences)) for p in found] == [
        ("a", "A", 2),
        ("a", "A", 1),
        ("a", "A", 1),
        ("a", "A", 1),
        ("b", "", 0),
    ]
    assert found[2].text == long
    assert found[3].sentences == (CATS,)


def test_a_sentence_is_asked_for_and_its_passage_lacks_it(tmp_path: Path) -> None:
    source = write_beir(tmp_path / "texts", {"cats": ("Cats", CATS), "tide": ("Tide", f"{TIDE} {CATS}")})
    write_pairs(source, tmp_path / "made", "ict", None, seed=1)
    documents = {each.id: (each.title, each.text) for each in read_documents(tmp_path / "made")}
    assert documents == {"cats#0": ("Cats", CATS), "tide#0": ("Tide", CATS)}
    assert read_queries(tmp_path / "made") == {"q0": TIDE}
    assert read_qrels(tmp_path / "made") == {"q0": {"tide#0": 1}}
    assert document_of("of#several#0") == "of#several"


def test_a_document_begins_with_a_question_and_goes_on_with_the_answer(tmp_path: Path) -> None:
    rest = "word " * 149 + "end."
    source = write_beir(tmp_path / "texts", {"tide": ("", f"{TIDE} {rest}"), "cats": ("", CATS)})
    write_pairs(source, tmp_path / "made", "bfs", None, seed=0)
    assert read_qrels(tmp_path / "made") == {"q0": {"tide#1": 1}}
    assert [each.text for each in read_documents(tmp_path / "made")] == [TIDE, rest, CATS]


def test_only_passages_that_are_asked_for_lack_a_sentence(tmp_path: Path) -> None:
    texts = {str(n): ("", f"This is the sentence number {n}. {CATS}") for n in range(20)}
    write_pairs(write_beir(tmp_path / "texts", texts), tmp_path / "made", "ict", 4, seed=1)
    changed = [each for each in read_documents(tmp_path / "made") if each.text == CATS]
    assert len(read_queries(tmp_path / "made")) == 4
    assert 0 < len(changed) <= 4
    write_pairs(tmp_path / "texts", tmp_path / "again", "ict", 4, seed=1)
    for name in ("corpus.jsonl", "queries.jsonl", "qrels.tsv"):
        assert (tmp_path / "made" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize(("task", "hint"), [("ict", "5 to 40 words and another"), ("bfs", "try --task ict")])
def test_text_that_gives_no_question_is_refused(tmp_path: Path, task: str, hint: str) -> None:
    source = write_beir(tmp_path / "texts", {"cats": ("Cats", CATS)})
    with pytest.raises(CommandError, match=hint):
        write_pairs(source, tmp_path / "made", task, None, seed=0)  # type: ignore[arg-type]
    assert not (tmp_path / "made").exists()
