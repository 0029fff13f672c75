"""Sparse search side by side in one run: ours, pyseismic, kannolo, scipy and numpy.

    python -m benchmarks.sparse                                       everything on 100k synthetic passages
    python -m benchmarks.sparse --data debian real --k 10 1000 --parts latency filters
    python -m benchmarks.sparse --data synthetic-500k --grid          every setting of the knobs

Data sets: synthetic-100k, -500k, -1m (both sides expanded), ifree-100k, … (inference-free questions), and
encoded by the default sparse encoder: debian (package descriptions), collections (judged ones, needs
--collections), real (both), and with -idf the same passages asked by the IDF of word pieces. They are made
once and kept, as are truths, indices, and pyseismic's settings. Settings are chosen on one half of the
questions and reported on the other.

Every ratio is to pyseismic's fastest setting of recall 0.99, by turns in the same rounds, one question a
call.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import sparse_parts
from benchmarks.machine import describe
from benchmarks.rivals import check_installed
from benchmarks.sparse_bench import Bench
from benchmarks.sparse_data import NAMES, load
from benchmarks.sparse_parts import Row, Table
from indexer.kernels import warm
from models.csr import Csr
from service.commands.encoding_cache import cache_home

Part = Callable[[Bench, int], Table]

ONCE: dict[str, Part] = {
    "build": sparse_parts.build,
    "open": sparse_parts.opening,
    "threads": sparse_parts.threads,
    "filters": sparse_parts.filtered,
    "progress": sparse_parts.beside,
}
EVERY_K: dict[str, Part] = {"latency": sparse_parts.latency, "exact": sparse_parts.exhaustive}
PARTS = (*ONCE, *EVERY_K)
GRIDS = (sparse_parts.grid_seismic, sparse_parts.grid_winnow)


def main() -> None:
    """Measure, print and write."""
    options = _options()
    check_installed()
    warm()
    machine = describe("numba", "pyseismic-lsr", "kannolo", "scipy", "numpy")
    command = f"python {' '.join(sys.orig_argv[1:])}"
    print(f"{command}\n{machine}")
    report = {name: _report(name, options) for name in options.data}
    print(f"\nload at the end {os.getloadavg()[0]:.1f}")
    if options.json:
        options.json.write_text(
            json.dumps({"command": command, "machine": machine, "data": report}, indent=1)
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", choices=NAMES, default=["synthetic-100k"], metavar="NAME")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--k", nargs="+", type=int, default=[10, 100, 1000], help="at most 1000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--grid", action="store_true", help="print every setting of the knobs instead")
    parser.add_argument("--again", action="store_true", help="build and choose anew what was kept")
    parser.add_argument("--cache", type=Path, default=cache_home() / "benchmarks")
    parser.add_argument("--collections", type=Path, help="folder of BEIR folders")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    return parser.parse_args()


def _report(name: str, options: argparse.Namespace) -> dict[str, list[Row]]:
    """Measure and print every part; its rows by title."""
    data = load(name, options.cache, options.collections)
    print(f"\n{name}: {_sizes(data.passages, 'passages')}, {_sizes(data.questions, 'questions')}")
    bench = Bench(data, options.cache, options.rounds, options.again)
    rows = {}
    for part, k in _parts(options):
        table = part(bench, k)
        print(_text(table), flush=True)
        rows[table.title] = table.rows
    return rows


def _sizes(vectors: Csr, what: str) -> str:
    return f"{len(vectors):,} {what} of {len(vectors.terms) / len(vectors):.1f} terms"


def _parts(options: argparse.Namespace) -> list[tuple[Part, int]]:
    if options.grid:
        return [(part, k) for k in options.k for part in GRIDS]
    once = [(ONCE[name], options.k[0]) for name in options.parts if name in ONCE]
    return once + [(EVERY_K[name], k) for k in options.k for name in options.parts if name in EVERY_K]


def _text(table: Table) -> str:
    """Aligned columns: names to the left, figures to the right."""
    cells = [list(table.rows[0]), *([_cell(value) for value in row.values()] for row in table.rows)]
    first, *others = (max(map(len, column)) for column in zip(*cells, strict=True))
    lines = ["  ".join([name.ljust(first), *map(str.rjust, figures, others)]) for name, *figures in cells]
    return "\n".join(["", table.title, *(f"  {line}" for line in lines)])


def _cell(value: str | float) -> str:
    """The digits that matter."""
    if isinstance(value, str):
        return value
    digits = next(digits for digits, least in ((0, 100), (1, 10), (2, 1), (4, 0)) if abs(value) >= least)
    return f"{value:,.{digits}f}"


if __name__ == "__main__":
    main()
