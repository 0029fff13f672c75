"""Text to terms, by tantivy's analyzers.

Words are runs of letters and digits, lower-cased; stop words are dropped and
the rest stemmed as the language allows. Chinese, Japanese and Korean have no
spaces to split at, so runs of their characters become the characters and their
overlapping pairs (pairs alone, as in Lucene's CJKAnalyzer, lose 0.002 nDCG@10
on CMRC 2018 and 0.006 on JSQuAD, and find nothing for one character). Words of
255 bytes and more are dropped: they are encoded data or line noise, and one of
them can be as large as a document.
"""

import re
from typing import NamedTuple

import tantivy

MAX_WORD_BYTES = 255

_STEMMED_AND_STOPPED = {
    "da": "danish",
    "de": "german",
    "en": "english",
    "es": "spanish",
    "fi": "finnish",
    "fr": "french",
    "hu": "hungarian",
    "it": "italian",
    "nl": "dutch",
    "no": "norwegian",
    "pt": "portuguese",
    "ru": "russian",
    "sv": "swedish",
}
_STEMMED = {"ar": "arabic", "el": "greek", "ro": "romanian", "ta": "tamil", "tr": "turkish"}
# What is left of initials, possessives and elisions ("J. Smith", "dog's", "l'eau"); docs/decisions/0002.
_LETTERS = list("abcdefghijklmnopqrstuvwxyz")
_UNSPACED = ("cjk", "ja", "ko", "zh")
LANGUAGES = tuple(sorted([*_STEMMED_AND_STOPPED, *_STEMMED, *_UNSPACED, "none"]))
"""Languages a collection may name; "none" splits into words and does nothing else."""


_RUN = re.compile(
    "([\u1100-\u11ff\u2e80-\u2fdf\u3005-\u3007\u3041-\u3096\u30a1-\u30fa\u30fc-\u30ff\u3105-\u312f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff66-\uff9f\U00020000-\U0002fa1f]+)"
)


class Word(NamedTuple):
    """A term, the characters of the text it stands for, and its place among the words (stop words count)."""

    term: str
    start: int
    end: int
    position: int


class Analyzer:
    """The analyser of one language; the same for documents and questions."""

    def __init__(self, language: str) -> None:
        """ValueError for a language that is not in LANGUAGES."""
        if language not in LANGUAGES:
            raise ValueError(f"unknown language {language!r}; known are {', '.join(LANGUAGES)}")
        self.language = language
        self.unspaced = language in _UNSPACED
        self._words = text_analyzer(language)

    def analyze(self, text: str) -> list[str]:
        """The terms of `text` in order, repeated as often as they are said."""
        return [word.term for word in self.words(text)] if self.unspaced else self._words.analyze(text)

    def words(self, text: str) -> list[Word]:
        """The terms of `text` in order, with where they stand."""
        if not self.unspaced:
            return self._plain(text, 0, 0)
        found: list[Word] = []
        begin = 0
        for run in _RUN.finditer(text):
            found += self._plain(text[begin : run.start()], begin, _after(found))
            found += _grams(run.group(), run.start(), _after(found))
            begin = run.end()
        return found + self._plain(text[begin:], begin, _after(found))

    def tokenized(self, text: str) -> tantivy.PreTokenizedString:
        """`text` as tantivy is given it, so that its index holds our terms."""
        if not self.unspaced:
            return self._words.pre_tokenize(text)
        tokens = [tantivy.Token(w.term, w.position, w.start, w.end) for w in self.words(text)]
        return tantivy.PreTokenizedString(text, tokens)

    def _plain(self, text: str, shift: int, position: int) -> list[Word]:
        tokens = self._words.pre_tokenize(text).tokens if text else []
        return [
            Word(t.text, t.char_offset_from + shift, t.char_offset_to + shift, t.position + position)
            for t in tokens
        ]


def _after(words: list[Word]) -> int:
    return words[-1].position + 1 if words else 0


def _grams(run: str, shift: int, position: int) -> list[Word]:
    """Every character of a run and, at the same position, the pair that it begins."""
    return [
        Word(run[i : i + n], shift + i, shift + i + n, position + i)
        for i in range(len(run))
        for n in (1, 2)
        if i + n <= len(run)
    ]


def text_analyzer(language: str) -> tantivy.TextAnalyzer:
    """Analyser for the words of a language (CJK runs left whole)."""
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
    builder = builder.filter(tantivy.Filter.remove_long(MAX_WORD_BYTES)).filter(tantivy.Filter.lowercase())
    if language in _STEMMED_AND_STOPPED:
        name = _STEMMED_AND_STOPPED[language]
        builder = builder.filter(tantivy.Filter.stopword(name)).filter(
            tantivy.Filter.custom_stopword(_LETTERS)
        )
        builder = builder.filter(tantivy.Filter.stemmer(name))
    elif language in _STEMMED:
        builder = builder.filter(tantivy.Filter.stemmer(_STEMMED[language]))
    return builder.build()
