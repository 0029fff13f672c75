"""Which folders of training text there are: of which packages, on what terms, made how.

Licences are those that the packages' `debian/copyright` states for the text itself. Text of one licence, or
of several alike, makes one folder, so that whoever trains on them can leave some out.
"""

import gzip
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks import text_dictd, text_man, text_marked, text_pod, text_rst, text_sections, text_wordnet
from benchmarks.text_pairs import Pair

SECTION = "query: page title and heading; document: the prose under it, 30 to 250 words"
TERM = "query: the headword, in part as a question; document: its definition, 30 to 250 words"
MANUAL = "query: the NAME line, or page and heading; document: the section's prose, 30 to 200 words"
GLOSS = (
    "query: words of a synset, in part as a question; document: its gloss, without examples that hold them"
)
# Pages about a project's own making, and lists of what changed.
SKIPPED = re.compile(
    r"whats_?new|changelog|changes|release|generated|auto_examples|gitwash|/dev(?:el\w*)?/|contribut|roadmap"
    r"|install|governance|testimonials|license|/translations/|about|credits|team|legal|gfdl|fdl|delta\.pod"
    r"|/reference/|/api/|/skips/"
)


class Folder(NamedTuple):
    """One folder to make; `pairs` reads the root of one unpacked package."""

    packages: tuple[str, ...]
    most: int
    licence: str
    made: str
    pairs: Callable[[Path], Iterable[Pair]]


def wordnet(root: Path) -> Iterator[Pair]:
    """Pairs of `data.noun` and its like; the files say nothing of an encoding and hold ASCII."""
    paths = sorted(root.rglob("data.*"))
    return text_wordnet.pairs(line for path in paths for line in path.read_text("latin-1").splitlines())


def manual(root: Path) -> Iterator[Pair]:
    """Pairs of every page in a folder of manual pages."""
    pages = (text_man.page(_text(path)) for path in sorted(root.rglob("man/man*/*.gz")))
    return text_man.pairs(page for page in pages if page)


def documentation(
    read: Callable[[str], Iterator[text_sections.Section]], *wanted: str
) -> Callable[[Path], Iterator[Pair]]:
    """Return a reader of the files that match one of the patterns."""

    def pairs(root: Path) -> Iterator[Pair]:
        paths = sorted({path for pattern in wanted for path in root.rglob(pattern) if path.is_file()})
        kept = (path for path in paths if not SKIPPED.search(path.relative_to(root).as_posix()))
        return text_sections.pairs(section for path in kept for section in read(_text(path)))

    return pairs


def dictionary(name: str, read: Callable[[str], tuple[str, str]]) -> Callable[[Path], Iterator[Pair]]:
    """Return a reader of the dictionary of that name."""

    def pairs(root: Path) -> Iterator[Pair]:
        folder = root / "usr/share/dictd"
        index = (folder / f"{name}.index").read_text("utf-8").splitlines()
        text = gzip.decompress((folder / f"{name}.dict.dz").read_bytes())
        return text_dictd.pairs(text_dictd.entries(index, text), read)

    return pairs


def _text(path: Path) -> str:
    raw = path.read_bytes()
    return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8", "replace")


_rst = documentation(text_rst.sections, "*.rst.txt", "*.rst.gz")
_html = documentation(text_marked.sections, "*.html")

FOLDERS = {
    "wordnet": Folder(("wordnet-base",), 4500, "WordNet 3.0 licence", GLOSS, wordnet),
    "man_pages": Folder(
        ("manpages", "manpages-dev"), 3000,
        "GPL-2+, Linux-man-pages-copyleft, BSD and others, page by page", MANUAL, manual,
    ),
    "python_docs": Folder(("python3.11-doc",), 2500, "PSF-2.0", SECTION, _rst),
    "foldoc": Folder(
        ("dict-foldoc",), 3000,
        "GFDL-1.1+, no invariant sections: The Free On-line Dictionary of Computing, http://www.foldoc.org/, "
        "Editor Denis Howe", TERM, dictionary("foldoc", text_dictd.foldoc),
    ),
    "jargon": Folder(
        ("dict-jargon",), 800, "public domain (Jargon File 4.4.7)", TERM,
        dictionary("jargon", text_dictd.jargon),
    ),
    "gcide": Folder(
        ("dict-gcide",), 2000, "GPL-2+; entries of WordNet 1.5 in it: WordNet licence", TERM,
        dictionary("gcide", text_dictd.gcide),
    ),
    "elements": Folder(
        ("dict-elements",), 120, "public domain (Jay F. Kominek)", TERM,
        dictionary("elements", text_dictd.elements),
    ),
    "science_docs": Folder(
        (
            "python-sklearn-doc", "python-astropy-doc", "python-statsmodels-doc", "python-skimage-doc",
            "python-nipy-doc", "python-qutip-doc", "python-sasmodels-doc", "python-xarray-doc",
        ),
        2500, "BSD-3-Clause; of python-qutip-doc CC-BY-3.0, of python-xarray-doc Apache-2.0", SECTION, _rst,
    ),
    "scipy_docs": Folder(
        ("python-scipy-doc", "python-dipy-doc", "python-nitime-doc", "python-nibabel-doc"), 600,
        "BSD-3-Clause; of python-nibabel-doc Expat", SECTION,
        documentation(text_marked.sections, "html/**/*.html"),
    ),
    "postgresql_docs": Folder(("postgresql-doc-15",), 1000, "PostgreSQL", SECTION, _html),
    "perl_docs": Folder(
        ("perl-doc",), 1000, "GPL-1+ or Artistic-1.0-Perl", SECTION,
        documentation(text_pod.sections, "*.pod"),
    ),
    "linux_docs": Folder(("linux-doc-6.1",), 1200, "GPL-2", SECTION, _rst),
    "astronomy_chemistry": Folder(
        ("kstars-data", "kalzium-data"), 300,
        "of kstars-data GFDL-1.2+, no invariant sections; of kalzium-data GFDL-1.2", SECTION,
        documentation(text_marked.sections, "HTML/en/*/*.docbook"),
    ),
    "gnucash_docs": Folder(
        ("gnucash-docs",), 400, "GFDL-1.1+, no invariant sections", SECTION,
        documentation(text_marked.sections, "gnucash-*-en/*.html"),
    ),
    "debian_handbook": Folder(
        ("debian-handbook",), 500, "GPL-2+ or CC-BY-SA-3.0", SECTION,
        documentation(text_marked.sections, "html/en-US/*.html"),
    ),
    "tool_manuals": Folder(
        ("git-man", "libssl-doc", "grass-doc"), 1200,
        "of git-man GPL-2; of libssl-doc Apache-2.0; of grass-doc GPL-2+", MANUAL, manual,
    ),
    "gnome_help": Folder(
        ("gnome-user-docs",), 400, "CC-BY-SA-3.0", SECTION,
        documentation(text_marked.sections, "help/C/*/*.page"),
    ),
}  # fmt: skip
