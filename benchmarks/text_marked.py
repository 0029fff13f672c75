"""HTML, DocBook and Mallard to sections: a heading asks for the prose under it.

The three differ in how a heading is told: by its tag in HTML (h1 to h6), by the section around a `title` in
the others. Text in code, tables, navigation and lists of links is left out.
"""

import re
from collections.abc import Iterator
from html.parser import HTMLParser

from benchmarks.text_pairs import squeeze
from benchmarks.text_sections import Section

HEADINGS = {f"h{level}": level for level in range(1, 7)}
PARTS = {"book", "chapter", "appendix", "article", "section", "page"} | {
    f"sect{level}" for level in range(1, 6)
}
VOID = {"br", "hr", "img", "input", "link", "meta", "col", "area", "base", "wbr", "embed", "source"}
HIDDEN = {
    "head", "script", "style", "nav", "footer", "pre", "table", "svg", "math", "form", "button", "dt",
    "programlisting", "screen", "synopsis", "cmdsynopsis", "informaltable", "indexterm", "primary", "info",
    "bookinfo", "articleinfo", "figure", "mediaobject", "informalexample", "links", "credit", "comment",
    "footnote", "literallayout", "informalequation", "equation", "media",
} | {f"sect{level}info" for level in range(1, 6)}  # fmt: skip
CLASSES = {
    "navheader", "navfooter", "header", "footer", "related", "sphinxsidebar", "toc", "headerlink", "contents",
    "highlight", "copiable-anchor", "footnote", "example", "smallexample", "math", "bibliography",
    "prev-next-area", "prev-next-bottom", "prev-next-footer",
}  # fmt: skip
_NUMBER = re.compile(r"^(?:(?:Chapter|Appendix)\s+)?(?:[A-Z]\.|\d+\.)?(?:\d+\.?)*\s+(?=\S)")


def sections(source: str) -> Iterator[Section]:
    """Every heading with the prose up to the next one, in order; one without prose too."""
    reader = _Reader()
    reader.feed(source)
    reader.close()
    reader.end()
    yield from reader.found


class _Reader(HTMLParser):
    """Sections as they end, in `found`."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[Section] = []
        self.open: list[str] = []
        self.hidden: int | None = None  # how many elements were open where hiding began
        self.path: list[tuple[int, str]] = []
        self.level: int | None = None  # of the heading that is being read
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.text.append("" if tag in ("a", "em", "b", "i", "code", "span", "sub", "sup") else " ")
        if tag in VOID:
            return
        level = self._level(tag)
        self.open.append(tag)
        classes = set((dict(attributes).get("class") or "").split())
        if self.hidden is None and (tag in HIDDEN or classes & CLASSES):
            self.hidden = len(self.open)
        elif self.hidden is None and level is not None:
            self.end()
            self.level = level

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.open:
            return
        while self.open.pop() != tag:
            pass
        if self.hidden is not None and len(self.open) < self.hidden:
            self.hidden = None
        elif self.level is not None and (tag in HEADINGS or tag == "title"):
            self._head()

    def handle_data(self, data: str) -> None:
        if self.hidden is None:
            self.text.append(re.sub(r"&(\w+);", r"\1", data))

    def end(self) -> None:
        """End the section that is being read, if one is."""
        if self.path:
            path = tuple(title for _, title in self.path)
            self.found.append(Section(path, squeeze("".join(self.text).replace("¶", " "))))
        self.text = []

    def _level(self, tag: str) -> int | None:
        if tag == "title":
            return sum(each in PARTS for each in self.open) if self.open and self.open[-1] in PARTS else None
        return HEADINGS.get(tag)

    def _head(self) -> None:
        """Put the heading that was read in its place on the path."""
        level, self.level = self.level or 0, None
        title = _NUMBER.sub("", squeeze("".join(self.text).replace("¶", " ")))
        self.path = [(above, each) for above, each in self.path if above < level]
        if title:
            self.path.append((level, title))
        self.text = []
