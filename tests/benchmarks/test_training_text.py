"""Parsers of packaged text, on inputs one can read at a glance, and what becomes of the pairs."""

import json
from pathlib import Path

import pytest

from benchmarks import (
    text_dictd,
    text_man,
    text_marked,
    text_packages,
    text_pod,
    text_rst,
    text_sections,
    text_wordnet,
)
from benchmarks.text_pairs import Pair, Source, clip, draw, is_prose, write
from benchmarks.training_text import MOST, counts, make_xquad
from indexer.sources import read_documents, read_qrels, read_queries

PROSE = (
    "the cat is on a mat and the dog is in the garden with a ball for the dogs of the house that they share"
)
LONG = f"{PROSE}, so {PROSE}."
GENE = (
    "05437785 08 n 02 allele 0 allelo_morph 0 001 @ 05436752 n 0000 | one of the forms of a gene; "
    '"some alleles are dominant over others"; "eye colour is one such"  '
)


def _section(*path: str, text: str) -> text_sections.Section:
    return text_sections.Section(path, text)


def test_a_synset_is_its_words_what_is_above_them_and_a_gloss() -> None:
    assert text_wordnet.parse(GENE) == text_wordnet.Synset(
        key="n05437785",
        words=("allele", "allelo morph"),
        above=("n05436752",),
        definition="one of the forms of a gene",
        examples=("some alleles are dominant over others", "eye colour is one such"),
    )
    assert text_wordnet.parse("  1 This software and database is being provided") is None


def test_a_gloss_loses_the_examples_that_give_the_word_away() -> None:
    (pair,) = text_wordnet.pairs([GENE])
    assert "allele" in pair.query
    assert pair.text == "one of the forms of a gene; eye colour is one such"


def test_a_word_of_two_meanings_is_asked_with_what_it_is() -> None:
    plant = (
        "00000001 00 n 01 plant 0 001 @ 00000003 n 0000 | a green thing that grows in earth and needs light"
    )
    works = "00000002 00 n 01 plant 0 000 | where many people make many things to be sold in shops"
    being = "00000003 00 n 01 being 0 000 | what lives"
    (pair,) = text_wordnet.pairs([plant, works, being])
    assert "plant (being)" in pair.query
    assert "green" in pair.text


@pytest.mark.parametrize(("digits", "value"), [("A", 0), ("B", 1), ("BA", 64), ("/", 63), ("b", 27)])
def test_a_dictionary_counts_in_base_64(digits: str, value: int) -> None:
    assert text_dictd.whole(digits) == value


def test_entries_of_several_headwords_come_once_and_those_about_the_file_never() -> None:
    index = ["00-database-info\tA\tC", "cat\tC\tD", "dog\tF\tD", "feline\tC\tD"]
    assert list(text_dictd.entries(index, b"iicatdog")) == [("cat", "cat"), ("dog", "dog")]


def test_foldoc_loses_links_subject_and_date() -> None:
    entry = (
        "stack\n\n   <programming> (LIFO) A {pile\n   (http://a.example/)} of plates.\n\n   (1994-11-08)\n"
    )
    assert text_dictd.foldoc(entry) == ("stack", "(LIFO) A pile of plates.")
    assert text_dictd.foldoc("developer\n\n   <Debian> A member of the project.\n") == ("", "")


def test_jargon_loses_pronunciation_and_part_of_speech() -> None:
    entry = "beta\n /bay't@/, /be´t@/, n.\n\n    1. Mostly working [see {alpha}]. 2. Flaky.\n"
    assert text_dictd.jargon(entry) == ("beta", "1. Mostly working. 2. Flaky.")


def test_an_element_loses_its_fields() -> None:
    entry = "carbon\nSymbol: C\nAtomic number: 6\nAtomic weight: 12.01115\nIt has three\nallotropic forms.\n"
    assert text_dictd.elements(entry) == ("carbon", "It has three allotropic forms.")


def test_gcide_keeps_senses_without_etymology_quotations_and_sources() -> None:
    entry = (
        'Abdomen \\Ab*do"men\\, n. [L. abdomen (a word [of] old): cf. F.]\n'
        "   1. (Anat.) The belly. --Bailey.\n"
        "      [1913 Webster]\n\n"
        "            O belly, thou\n"
        "            art empty.\n\n"
        "   2. (Zool.) The hind part. [R.]\n\n"
        "   Syn: Belly.\n"
    )
    assert text_dictd.gcide(entry) == ("Abdomen", "1. (Anat.) The belly. 2. (Zool.) The hind part.")
    assert text_dictd.gcide("Center \\Cen\\, or Centre \\Cen\\, n.") == ("", "")


MANUAL = r""".\" a comment
.TH open 2 2023-02-05
.SH NAME
open, creat \- open and possibly create a file
.SH SYNOPSIS
.nf
int open(const char *path);
.fi
.SH DESCRIPTION
The
.BR open ()
call opens \fIpath\fP.
.EX
fd = open("x");
.EE
.RI ( libc ", " \-lc )
.SS File flags
.B O_CREAT
creates it.
"""


def test_a_manual_page_is_name_summary_and_sections_without_code() -> None:
    page = text_man.page(MANUAL)
    assert page is not None
    assert (page.name, page.summary) == ("open", "open and possibly create a file")
    assert page.sections[-2:] == (
        text_man.Section("DESCRIPTION", "", "The open() call opens path. (libc, -lc)"),
        text_man.Section("File flags", "DESCRIPTION", "O_CREAT creates it."),
    )
    assert text_man.page(".so man2/open.2") is None


def test_a_page_is_asked_by_summary_and_its_own_sections_by_name() -> None:
    sections = tuple(text_man.Section(head, "", LONG) for head in ("DESCRIPTION", "NOTES", "FILE FLAGS"))
    pairs = text_man.pairs([text_man.Page("open", "open and create a file", sections)])
    assert [pair.query for pair in pairs] == ["open and create a file", "open file flags"]


RST = """.. _top:

=====
Lists
=====

A :class:`list` holds ``things``, see `the page <https://a.example>`_.

Sorting
-------

Call :func:`~list.sort`::

   values.sort()

>>> values
[1, 2]

.. code-block:: python

   sorted(values)

.. note:: Sorting is *stable*.

It takes time.

.. function:: sorted(values, key=None)

   Return a new list.

Ties
^^^^

They stay.

Searching
---------
"""


def test_restructured_text_is_headings_with_prose_and_no_code() -> None:
    assert list(text_rst.sections(RST)) == [
        _section("Lists", text="A list holds things, see the page."),
        _section("Lists", "Sorting", text="Call list.sort: Sorting is stable. It takes time."),
        text_sections.Section(("Lists", "Sorting", "sorted"), "Return a new list.", described=True),
        _section("Lists", "Sorting", "Ties", text="They stay."),
        _section("Lists", "Searching", text=""),
    ]


HTML = """<html><head><title>x</title></head><body><div class="navheader"><p>Next</p></div>
<h1>13. Locks<a class="headerlink">¶</a></h1><p>A <em>lock</em>s wait.<pre>LOCK x;</pre>
<h2>13.1. Dead &amp; live</h2><p>Two wait<br>for ever.</p></body></html>"""
DOCBOOK = """<chapter><title>Sky</title><para>It is &blue;.</para><sect1>
<sect1info><author>A</author></sect1info><title>Stars</title><para>They <firstterm>shine</firstterm>.</para>
<figure><title>A star</title></figure></sect1></chapter>"""


def test_html_and_docbook_are_headings_with_prose() -> None:
    assert list(text_marked.sections(HTML)) == [
        _section("Locks", text="A locks wait."),
        _section("Locks", "Dead & live", text="Two wait for ever."),
    ]
    assert list(text_marked.sections(DOCBOOK)) == [
        _section("Sky", text="It is blue."),
        _section("Sky", "Stars", text="They shine."),
    ]


POD = """=head1 NAME

perlx - about X<index>x

=head1 USE

Say C<< $a->b >> or L<this|perlop>: I<one E<lt> two>.

    code;

=head2 Why?

Because.
"""


def test_perl_documentation_has_its_name_above_all_but_questions() -> None:
    assert list(text_pod.sections(POD)) == [
        _section("perlx - about x", "USE", text="Say $a->b or this: one < two."),
        _section("Why?", text="Because."),
    ]


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (("shutil --- File operations", "Archiving"), "shutil: File operations: Archiving"),
        (("Data model", "Classes", "Examples"), "Data model: Classes"),
        (("Data model", "See also"), ""),
        (("Linear models",), "Linear models"),
        (("Lists",), ""),
        (("Overview", "Sorting lists"), "Sorting lists"),
    ],
)
def test_a_heading_asks_with_the_title_above_it_unless_it_says_nothing(
    path: tuple[str, ...], query: str
) -> None:
    assert text_sections.asked(path) == query


def test_a_section_loses_what_announces_code() -> None:
    (pair,) = text_sections.pairs([_section("Data model", "Lists", text=f"{LONG} For example:")])
    assert pair == Pair("Data model: Lists", LONG)


STANZAS = f"""Package: libfoo-dev
Description-md5: 0
Description-en: development files of foo
 {PROSE}
 {PROSE}
 .
  * headers

Package: foo
Description-en: finds what is lost
 {PROSE} {PROSE}
 .
 More.

Package: bar
Description-en: bar finds what is lost
 {PROSE}, {PROSE}
"""


def test_packages_described_alike_come_once_by_the_shortest_name() -> None:
    found = list(text_packages.descriptions(STANZAS))
    assert [each.package for each in found] == ["libfoo-dev", "foo", "bar"]
    assert found[0].paragraphs == (f"{PROSE} {PROSE}", "headers")
    assert list(text_packages.pairs(found)) == [
        Pair("bar finds what is lost", f"{PROSE}, {PROSE}", title=""),
        Pair("finds what is lost", f"{PROSE} {PROSE} More.", title="foo"),
    ]


def test_prose_is_long_enough_and_made_of_words() -> None:
    assert is_prose(LONG)
    assert not is_prose(PROSE)
    assert not is_prose("0x1f == 17 -> { 3 } " * 20)


def test_a_text_is_cut_after_a_sentence_where_one_ends_late_enough() -> None:
    assert clip("One two three. Four five six.", 4) == "One two three."
    assert clip("One. Two three four five six.", 4) == "One. Two three four"
    assert clip(" One\n two ", 4) == "One two"


def test_no_query_and_no_text_is_drawn_twice_and_a_seed_draws_the_same() -> None:
    pairs = [Pair("a", "x"), Pair("A", "y"), Pair("b", "x"), Pair("c", "z"), Pair("d", "w")]
    assert draw(pairs, 9, seed=0) == [pairs[0], pairs[3], pairs[4]]
    assert draw(pairs, 2, seed=0) == draw(iter(pairs), 2, seed=0)
    assert set(draw(pairs, 2, seed=0)) < set(draw(pairs, 9, seed=0))


def test_a_folder_reads_back_with_its_terms(tmp_path: Path) -> None:
    assert write(tmp_path / "set", [Pair("q", "d", "t")], Source("package 1", "GPL-2+", "by hand")) == 1
    (document,) = read_documents(tmp_path / "set")
    assert (document.id, document.title, document.text) == ("set-0", "t", "d")
    assert read_queries(tmp_path / "set") == {"q-set-0": "q"}
    assert read_qrels(tmp_path / "set") == {"q-set-0": {"set-0": 1}}
    terms = json.loads((tmp_path / "set/source.json").read_text())
    assert (terms["source"], terms["licence"], terms["documents"]) == ("package 1", "GPL-2+", 1)


def test_of_a_collection_of_languages_english_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "xquad_r"
    folder.mkdir()
    for name, keys in (("corpus", ("en-0", "de-0", "en-1")), ("queries", ("en-7", "de-7"))):
        lines = [json.dumps({"_id": key, "title": "", "text": f"{name} {key}"}) for key in keys]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    judged = ["query-id\tcorpus-id\tscore", "en-7\ten-1\t1", "en-7\tde-0\t1", "de-7\ten-1\t1"]
    (folder / "qrels.tsv").write_text("\n".join(judged))
    assert make_xquad(tmp_path, tmp_path) == 2
    assert read_queries(tmp_path / "xquad_en") == {"en-7": "queries en-7"}
    assert read_qrels(tmp_path / "xquad_en") == {"en-7": {"en-1": 1}}


def test_the_most_pairs_of_a_folder_can_be_set() -> None:
    assert counts(["wordnet=7"]) == MOST | {"wordnet": 7}
    with pytest.raises(ValueError, match="expected FOLDER=COUNT"):
        counts(["wordnets=7"])
