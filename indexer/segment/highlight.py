"""The parts of a passage that answer a question's words, with these marked.

Works on the same terms as the search, so stems, pairs of CJK characters and
prefixes are marked where they were found. The text is escaped: what comes out
is HTML in which `<mark>` is the only element.
"""

from collections.abc import Container, Iterator
from html import escape

from indexer.segment.analyzer import Analyzer, Word

WIDTH = 200
MOST = 3


def highlights(
    analyzer: Analyzer, wanted: Container[str], text: str, most: int = MOST, width: int = WIDTH
) -> list[str]:
    """Up to `most` fragments of at most `width` characters that hold a wanted term, in order of the text.

    Those with the most different terms are chosen, then those with more of them.
    """
    words = [word for word in analyzer.words(text) if word.term in wanted]
    found = [(span, inside) for span in _fragments(text, width) if (inside := _inside(words, *span))]
    found.sort(key=lambda one: (-len({word.term for word in one[1]}), -len(one[1])))
    return [_marked(text, *one) for one in sorted(found[:most])]


def _fragments(text: str, width: int) -> Iterator[tuple[int, int]]:
    """Cut a text at its last space within every `width` characters, or hard where there is none."""
    begin = 0
    while begin < len(text):
        end = begin + width
        if end < len(text):
            space = text.rfind(" ", begin + 1, end)
            end = end if space < 0 else space
        yield begin, min(end, len(text))
        begin = end


def _inside(words: list[Word], begin: int, end: int) -> list[Word]:
    return [word for word in words if begin <= word.start < end]


def _marked(text: str, span: tuple[int, int], words: list[Word]) -> str:
    at, end = span
    parts = []
    for start, stop in _joined(words):
        parts += [escape(text[at:start]), "<mark>", escape(text[start : min(stop, end)]), "</mark>"]
        at = min(stop, end)
    return "".join([*parts, escape(text[at:end])]).strip()


def _joined(words: list[Word]) -> list[tuple[int, int]]:
    """Spans of the words, those that overlap (pairs of CJK characters) as one."""
    spans: list[tuple[int, int]] = []
    for word in words:
        if spans and word.start < spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], word.end))
        else:
            spans.append((word.start, word.end))
    return spans
