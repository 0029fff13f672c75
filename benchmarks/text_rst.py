"""reStructuredText to sections: a heading asks for the prose under it.

Not docutils: Sphinx sources lean on roles and directives that only their own build knows. Read line by line:
headings by their adornments, prose kept, and code, tables, options, notes on versions and the like dropped
with everything indented under them. What a directive such as `function` documents is a section too, headed
by the name.
"""

import re
from collections.abc import Iterator

from benchmarks.text_pairs import squeeze
from benchmarks.text_sections import Section

ADORNMENT = re.compile(r"^([=\-~^\"'`#*+.:_<>])\1{2,}\s*$")
KEPT = {"note", "warning", "tip", "important", "caution", "hint", "attention", "admonition", "seealso"}
DESCRIBED = {"function", "method", "class", "exception", "data", "attribute", "decorator", "c:function"}
_DIRECTIVE = re.compile(r"^\.\. +(?:([\w:-]+)::(?: +(.*))?|.*)$")
_TABLE = re.compile(r"^(?:[+|]|={2,}[ =]*$|-{2,} +-[- ]*$)")
_ROLES = (
    (re.compile(r":[\w:+-]+:`!?~?([^`<]*?)\s*<[^`]*>`"), r"\1"),
    (re.compile(r":[\w:+-]+:`[!~]([^`]*)`"), r"\1"),
    (re.compile(r":[\w:+-]+:`([^`]*)`"), r"\1"),
    (re.compile(r"`([^`<]*?)\s*<[^`]*>`_{0,2}"), r"\1"),
    (re.compile(r"``([^`]+)``"), r"\1"),
    (re.compile(r"`([^`]+)`_{0,2}"), r"\1"),
    (re.compile(r"\s?\[[^\]\s]+\]_"), ""),
    (re.compile(r"\*\*([^*]+)\*\*"), r"\1"),
    (re.compile(r"(?<![\w*])\*([^\s*][^*]*)\*"), r"\1"),
    (re.compile(r"\|([^|\s][^|]*)\|_{0,2}"), r"\1"),
    (re.compile(r"\b([A-Za-z][A-Za-z0-9]*)__?(?=[\s.,;:)]|$)"), r"\1"),
    (re.compile(r"\\(.)"), r"\1"),
    (re.compile(r"^\s*Source code: \S+"), ""),
    (re.compile(r"<?https?://[^\s>]*>?"), ""),
)


def plain(text: str) -> str:
    """Return inline markup as its words."""
    for found, instead in _ROLES:
        text = found.sub(instead, text)
    return squeeze(text)


def sections(source: str) -> Iterator[Section]:
    """Every heading with its prose, in order; one without prose too."""
    lines = source.expandtabs().splitlines()
    path: list[str] = []
    levels: list[str] = []
    start = 0
    for at, (title, mark, after) in _headings(lines):
        if path:
            yield from _under(tuple(path), lines[start:at])
        if mark not in levels:
            levels.append(mark)
        path = [*path[: levels.index(mark)], plain(title)]
        start = after
    if path:
        yield from _under(tuple(path), lines[start:])


def _headings(lines: list[str]) -> Iterator[tuple[int, tuple[str, str, int]]]:
    """Line at which each heading begins, with its title, its adornment and the line after it."""
    at = 0
    while at + 1 < len(lines):
        over, under = ADORNMENT.match(lines[at]), ADORNMENT.match(lines[at + 1])
        if over and at + 2 < len(lines) and lines[at + 1].strip() and not under:
            if lines[at + 2].rstrip() == lines[at].rstrip() and len(lines[at]) >= len(lines[at + 1].strip()):
                yield at, (lines[at + 1].strip(), over[1] * 2, at + 3)
                at += 3
                continue
        elif under and not over and lines[at][:1].strip() and not lines[at].startswith(".. "):
            fits = len(lines[at + 1].rstrip()) >= min(len(lines[at].rstrip()), 4)
            if fits and (at == 0 or not lines[at - 1].strip() or lines[at - 1].startswith(".. ")):
                yield at, (lines[at].strip(), under[1], at + 2)
                at += 2
                continue
        at += 1


def _under(path: tuple[str, ...], lines: list[str]) -> Iterator[Section]:
    """Yield the section of these lines, and one for each thing that a directive in them documents."""
    described: list[Section] = []
    text = " ".join(_prose(lines, path, described))
    yield Section(path, plain(text))
    yield from described


def _prose(lines: list[str], path: tuple[str, ...], described: list[Section]) -> Iterator[str]:
    """Yield the lines that are prose; what directives document goes to `described`."""
    at = 0
    while at < len(lines):
        line, after = lines[at], _indented_until(lines, at)
        directive = _DIRECTIVE.match(line.strip())
        if directive:
            name, body = directive[1] or "", lines[at + 1 : after]
            if name in KEPT:
                yield directive[2] or ""
                yield from _prose(_dedented(body), path, described)
            elif name in DESCRIBED:
                headed = (*path, _signature(directive[2] or ""))
                found = _under(headed, _dedented(body))
                described.extend(section._replace(described=True) for section in found)
            at = after
        elif line.lstrip().startswith((">>>", "$ ", "%")) or _TABLE.match(line.lstrip()):
            at = _blank_from(lines, at)
        elif re.match(r"^:[\w ]+:(?:\s|$)", line.lstrip()) or re.match(r"^-{4,}\s*$", line):
            at = after
        elif line.rstrip().endswith("::"):
            yield line.rstrip()[:-1].rstrip(":") + ":" if line.strip() != "::" else ""
            at = _indented_until(lines, at)
        else:
            yield re.sub(r"^\s*(?:[*+-]|#\.|\(?\d+[.)])\s+", "", line)
            at += 1


def _indented_until(lines: list[str], at: int) -> int:
    """Return the line after those that are indented deeper than line `at`, empty ones among them."""
    depth = _depth(lines[at])
    end = at + 1
    while end < len(lines) and (not lines[end].strip() or _depth(lines[end]) > depth):
        end += 1
    return end


def _blank_from(lines: list[str], at: int) -> int:
    while at < len(lines) and lines[at].strip():
        at += 1
    return at


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _dedented(lines: list[str]) -> list[str]:
    depth = min((_depth(line) for line in lines if line.strip()), default=0)
    return [line[depth:] for line in lines]


def _signature(text: str) -> str:
    """Return what a signature names, without its arguments and what it returns."""
    name = re.sub(r"\(.*", "", text).split()
    return name[-1].lstrip("*") if name else ""
