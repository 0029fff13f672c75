"""Make BEIR folders of pairs to train small nets on, from text that apt packages install.

    python -m benchmarks.training_text OUT [--only wordnet packages] [--most packages=8000] [--shared DIR]

Each folder has corpus.jsonl, queries.jsonl, qrels.tsv and source.json: the packages with their versions, the
licence that they state, and how the pairs were made. None of it is a test collection but `xquad_en`, the
English part of XQuAD-R. Packages are unpacked in a folder of their own and nothing is installed.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import text_packages
from benchmarks.text_apt import translations, unpacked, version
from benchmarks.text_folders import FOLDERS
from benchmarks.text_pairs import Source, draw, write, write_judged
from indexer.sources import read_documents, read_qrels, read_queries

PACKAGES, XQUAD = "packages", "xquad_en"
MOST = {name: folder.most for name, folder in FOLDERS.items()} | {PACKAGES: 7000}


def make(name: str, out: Path, cache: Path, most: int, seed: int) -> int:
    """Write one of `FOLDERS`; return the number of documents."""
    folder = FOLDERS[name]
    found = (pair for package in folder.packages for pair in folder.pairs(unpacked(package, cache)))
    pairs = draw(found, most, seed)
    named = ", ".join(version(package, cache) for package in folder.packages)
    return write(out / name, pairs, Source(f"Debian packages {named}", folder.licence, folder.made))


def make_packages(out: Path, cache: Path, most: int, seed: int) -> int:
    """Write the pairs of Debian's package descriptions; return the number of documents."""
    found = text_packages.pairs(text_packages.descriptions(translations(cache)))
    source = Source(
        "Debian 12 (bookworm), Translation-en lists",
        "each description under its own package's licence, all free by the Debian Free Software Guidelines",
        "query: a package's summary; document: its description, 30 to 250 words; of packages described "
        "alike one",
    )
    return write(out / PACKAGES, draw(found, most, seed), source)


def make_xquad(out: Path, shared: Path) -> int:
    """Write the English sentences and questions of the collection `xquad_r`; return the documents."""
    folder = shared / "xquad_r"
    documents = {
        each.id: (each.title or "", each.text) for each in read_documents(folder) if _english(each.id)
    }
    judged = [
        (query, document)
        for query, grades in read_qrels(folder).items()
        for document in grades
        if _english(query) and document in documents
    ]
    asked = {query for query, _ in judged}
    queries = {key: text for key, text in read_queries(folder).items() if key in asked}
    source = Source(
        "XQuAD-R (google-research-datasets/lareqa), English part",
        "CC BY-SA 4.0",
        "query: a question; document: the sentence of Wikipedia that answers it",
    )
    return write_judged(out / XQUAD, documents, queries, judged, source)


def counts(given: Sequence[str]) -> dict[str, int]:
    """Return the most pairs a folder, `MOST` but for what `FOLDER=COUNT` says.

    Raises:
        ValueError: no such folder, or not a whole number.

    """
    most = dict(MOST)
    for each in given:
        name, _, count = each.partition("=")
        if name not in most or not count.isdecimal():
            raise ValueError(f"--most {each}: expected FOLDER=COUNT, FOLDER one of {', '.join(most)}")
        most[name] = int(count)
    return most


def _english(key: str) -> bool:
    return key.startswith("en-")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*MOST, XQUAD]
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="FOLDER")
    parser.add_argument("--most", nargs="+", default=[], metavar="FOLDER=COUNT", help="at most so many pairs")
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"), help="where xquad_r is")
    parser.add_argument("--cache", type=Path, default=Path("build/training_text"), help="for the packages")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Make the folders asked for, one after another, and say how large each is."""
    options = _options()
    most = counts(options.most)
    cache = options.cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        began = time.monotonic()
        if name == XQUAD:
            count = make_xquad(options.out, options.shared)
        elif name == PACKAGES:
            count = make_packages(options.out, cache, most[name], options.seed)
        else:
            count = make(name, options.out, cache, most[name], options.seed)
        sys.stdout.write(f"{name}: {count} documents, {time.monotonic() - began:.0f} s\n")


if __name__ == "__main__":
    main()
