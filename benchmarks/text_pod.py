"""Perl's plain old documentation to sections: a heading asks for the prose under it (perlpod(1))."""

import re
from collections.abc import Iterator

from benchmarks.text_pairs import squeeze
from benchmarks.text_sections import Section

ESCAPES = {"lt": "<", "gt": ">", "verbar": "|", "sol": "/"}
_CODE = re.compile(r"([A-Z])(?:<<+\s(.+?)\s>>+|<([^<>]*)>)", re.DOTALL)


def plain(text: str) -> str:
    """Return formatting codes as their words: `C<x>` is x, `L<text|page>` is text; index entries go."""
    while (shorter := _CODE.sub(lambda code: _words(code[1], code[2] or code[3] or ""), text)) != text:
        text = shorter
    return squeeze(text.replace("\0", "<").replace("\1", ">"))


def sections(source: str) -> Iterator[Section]:
    """Every heading with its paragraphs, in order; code, which is indented, is left out.

    A path begins with what the NAME section says of the page; a heading that is a question stands alone.
    """
    page: tuple[str, ...] = ()
    for path, text in _headed(source):
        if path == ("NAME",):
            page = (text,) if " - " in text else ()
        elif path[-1].endswith("?"):
            yield Section(path[-1:], text)
        else:
            yield Section((*page, *path), text)


def _headed(source: str) -> Iterator[tuple[tuple[str, ...], str]]:
    path: list[str] = []
    held: list[str] = []
    for block in re.split(r"\n\s*\n", source):
        command, _, rest = block.strip("\n").partition(" ")
        if command.startswith("=head"):
            if path:
                yield tuple(path), plain("\n".join(held))
            path, held = [*path[: int(command[5:] or 1) - 1], plain(rest)], []
        elif block.strip() and not block.strip("\n").startswith((" ", "\t", "=")):
            held.append(block)
    if path:
        yield tuple(path), plain("\n".join(held))


def _words(code: str, held: str) -> str:
    if code in "XZ":
        return ""
    if code == "E":
        return {"<": "\0", ">": "\1"}.get(ESCAPES.get(held, ""), ESCAPES.get(held, ""))
    return held.split("|")[0].strip('/"') if code == "L" else held
