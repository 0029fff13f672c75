"""Full query syntax: phrases, fields, booleans, prefixes, fuzzy words.

    +tides -lunar "spring tide"~2 title:moon (neap OR ebb) gravit* attracton~1 word^2

tantivy reads the text; we turn what it read into its queries ourselves, so that
words are analysed as everywhere else and are known to the highlighter. Ranges
and regular expressions are refused: the first belong in `filter`, the second
can cost anything.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import tantivy

from indexer.segment.analyzer import Analyzer, Word

TEXT_FIELDS = ("title", "text")
ID_FIELD = "id"

MAX_BYTES = 8192
MAX_CLAUSES = 1024
MAX_PARENTHESES = 64
MAX_DEPTH = 128
MAX_EXPANDED = 64

_PREFIX = re.compile(r"(.+)\*")
_FUZZY = re.compile(r"(.+)~([12]?)")


class QuerySyntaxError(ValueError):
    """A question that is not full query syntax, or too large; the message says where and why."""


@dataclass
class Wanted:
    """What a question's answer is recognised by: terms, and beginnings of terms."""

    terms: set[str] = field(default_factory=set)
    prefixes: set[str] = field(default_factory=set)

    def __contains__(self, term: object) -> bool:
        return term in self.terms or any(str(term).startswith(prefix) for prefix in self.prefixes)


def read(question: str) -> dict[str, Any]:
    """What tantivy reads in a question. Raises QuerySyntaxError."""
    if len(question.encode()) > MAX_BYTES:
        raise QuerySyntaxError(f"a question has at most {MAX_BYTES:,} bytes")
    if question.count("(") > MAX_PARENTHESES:  # its parser is recursive and would overflow the stack
        raise QuerySyntaxError(f"a question has at most {MAX_PARENTHESES} parentheses")
    tree, errors = tantivy.parse_query_lenient(question)
    if errors:
        first = errors[0]
        raise QuerySyntaxError(f"full query syntax: {first['message']} at character {first['pos']}")
    return tree


class Reading:
    """A question as a tantivy query for one index; `wanted` holds its terms that are not excluded."""

    def __init__(
        self, question: str, analyzer: Analyzer, schema: tantivy.Schema, title_boost: float = 1.0
    ) -> None:
        self.wanted = Wanted()
        self._analyzer, self._schema, self._title_boost = analyzer, schema, title_boost
        self._clauses = self._expanded = self._depth = 0
        self._excluded = False
        self.query = self._node(read(question)) or tantivy.Query.empty_query()

    def _node(self, node: dict[str, Any]) -> tantivy.Query | None:
        """The query of a part of the question; None when it has no words, as when all are stop words."""
        self._clauses += 1
        if self._clauses > MAX_CLAUSES:
            raise QuerySyntaxError(f"a question has at most {MAX_CLAUSES:,} clauses")
        kind = node["type"]
        if kind == "bool":
            return self._boolean(node["clauses"])
        if kind == "boost":
            inner = self._node(node["underlying"])
            return None if inner is None else tantivy.Query.boost_query(inner, node["boost"])
        if kind == "literal":
            return self._literal(node)
        if kind == "set":
            return _any([self._words(node["field"], element) for element in node["elements"]])
        if kind == "all":
            return tantivy.Query.all_query()
        raise QuerySyntaxError(f"full query syntax: {_REFUSED.get(kind, f'{kind} is not supported')}")

    def _boolean(self, clauses: Sequence[tuple[str | None, dict[str, Any]]]) -> tantivy.Query | None:
        self._depth += 1
        if self._depth > MAX_DEPTH:  # NOT NOT NOT … needs no parentheses
            raise QuerySyntaxError(f"a question nests at most {MAX_DEPTH} deep")
        parts = []
        for occurrence, node in clauses:
            outer, self._excluded = self._excluded, self._excluded or occurrence == "must_not"
            query = self._node(node)
            self._excluded = outer
            if query is not None:
                parts.append((_OCCURRENCE[occurrence], query))
        self._depth -= 1
        if parts and all(occur == tantivy.Occur.MustNot for occur, _ in parts):
            parts.append((tantivy.Occur.Must, tantivy.Query.all_query()))
        return tantivy.Query.boolean_query(parts) if parts else None

    def _literal(self, node: dict[str, Any]) -> tantivy.Query | None:
        name, phrase = node["field_name"], node["phrase"]
        if node["delimiter"] == "none":
            if found := _PREFIX.fullmatch(phrase):
                return self._prefix(name, found[1])
            if found := _FUZZY.fullmatch(phrase):
                return self._fuzzy(name, found[1], int(found[2] or 1))
        return self._words(name, phrase, node["slop"], node["prefix"])

    def _words(
        self, name: str | None, phrase: str, slop: int = 0, prefix: bool = False
    ) -> tantivy.Query | None:
        """One word, or several in their order; with `prefix` the last is a beginning."""
        if name == ID_FIELD:
            return tantivy.Query.term_query(self._schema, ID_FIELD, phrase)
        words = self._analyzer.words(phrase)
        if prefix and len(words) == 1:
            return self._prefix(name, phrase)
        self._want(*(word.term for word in words))
        return self._in_fields(name, lambda each: self._phrase(each, words, slop, prefix))

    def _phrase(self, name: str, words: list[Word], slop: int, prefix: bool) -> tantivy.Query | None:
        if len(words) < 2:
            return tantivy.Query.term_query(self._schema, name, words[0].term) if words else None
        places: list[str | tuple[int, str]] = [(w.position - words[0].position, w.term) for w in words]
        if prefix:
            return tantivy.Query.phrase_prefix_query(self._schema, name, places)
        return tantivy.Query.phrase_query(self._schema, name, places, slop)

    def _prefix(self, name: str | None, beginning: str) -> tantivy.Query | None:
        """Terms that begin so, and the term that the beginning is stemmed to: `running*` finds run."""
        words = self._analyzer.words(beginning)
        if len(words) != 1:
            return self._words(name, beginning)
        self._expand()
        lower = beginning[words[0].start : words[0].end].lower()
        self._want(words[0].term)
        if not self._excluded:
            self.wanted.prefixes.add(lower)
        pattern = re.escape(lower) + ".*"
        begun = partial(tantivy.Query.regex_query, self._schema, regex_pattern=pattern)
        stemmed = partial(tantivy.Query.term_query, self._schema, field_value=words[0].term)
        return self._in_fields(name, lambda each: _any([begun(field_name=each), stemmed(field_name=each)]))

    def _fuzzy(self, name: str | None, word: str, distance: int) -> tantivy.Query | None:
        words = self._analyzer.words(word)
        if len(words) != 1:
            return self._words(name, word)
        self._expand()
        self._want(words[0].term)
        near = partial(tantivy.Query.fuzzy_term_query, self._schema, text=words[0].term, distance=distance)
        return self._in_fields(name, lambda each: near(field_name=each))

    def _in_fields(
        self, name: str | None, make: Callable[[str], tantivy.Query | None]
    ) -> tantivy.Query | None:
        """The same query of the field that is named, or of every text field."""
        return _any([self._weighted(each, make(each)) for each in self._fields(name)])

    def _weighted(self, name: str, query: tantivy.Query | None) -> tantivy.Query | None:
        if query is None or name != "title" or self._title_boost == 1:
            return query
        return tantivy.Query.boost_query(query, self._title_boost)

    def _fields(self, name: str | None) -> tuple[str, ...]:
        if name is None:
            return TEXT_FIELDS
        if name not in TEXT_FIELDS:
            raise QuerySyntaxError(
                f"full query syntax: there is no field {name!r}; the fields are title, text and id, "
                "and conditions on metadata belong in `filter`"
            )
        return (name,)

    def _expand(self) -> None:
        self._expanded += 1
        if self._expanded > MAX_EXPANDED:  # each is compared with every term of the index
            raise QuerySyntaxError(f"a question has at most {MAX_EXPANDED} prefixes and fuzzy words")

    def _want(self, *terms: str) -> None:
        if not self._excluded:
            self.wanted.terms.update(terms)


def _any(queries: Sequence[tantivy.Query | None]) -> tantivy.Query | None:
    parts = [(tantivy.Occur.Should, query) for query in queries if query is not None]
    return tantivy.Query.boolean_query(parts) if parts else None


_OCCURRENCE = {
    None: tantivy.Occur.Should,
    "should": tantivy.Occur.Should,
    "must": tantivy.Occur.Must,
    "must_not": tantivy.Occur.MustNot,
}
_REFUSED = {
    "range": "ranges belong in `filter`",
    "regex": "regular expressions are not supported; write a prefix as word* or a fuzzy word as word~1",
}
