"""How many searches a second the default pipeline answers, and how long they take, by number of clients.

    python -m benchmarks.throughput --data DIR [--seconds 30] [--documents 5000] [--cores 0] [--cached]

DIR is a BEIR folder, whose documents are indexed and whose queries are asked, each client's next when it has
the answer to its last (`benchmarks.load`). Service and clients share the cores, the clients in a process of
their own. Every answer is worked out, or with --cached only the first to a question. Percentiles are of
answers with status 200; others are counted beside.
"""

import argparse
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.endpoint_loads import Load
from benchmarks.endpoint_servers import cores, winnow
from benchmarks.load import Closed, measure, percentiles
from benchmarks.machine import describe
from benchmarks.search_loads import index, searches
from benchmarks.server import running

OK = 200


def main() -> None:
    """Measure and print a table."""
    options = _options()
    os.sched_setaffinity(0, options.cores)  # what is started inherits it
    print(f"command: python -m benchmarks.throughput {' '.join(sys.argv[1:])}")
    print(f"machine: {describe('torch', 'uvicorn')}")
    with TemporaryDirectory(prefix="winnow-") as data_dir:
        documents = index(options.data, Path(data_dir), options.documents)
        service = winnow(data_dir)
        print(f"{documents} documents, cores {sorted(options.cores)} for service and clients\n")
        print("| | requests/s | p50 ms | p95 ms | p99 ms | not answered |\n|---|---|---|---|---|---|")
        with running(service.command, service.probe) as server:
            for load in searches(options.data):
                print(_row(load, server.port, options), flush=True)
    print(f"\nload average at the end {os.getloadavg()[0]:.1f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="BEIR folder")
    parser.add_argument("--seconds", type=float, default=30, help="for each number of clients")
    parser.add_argument("--documents", type=int, default=5000, help="at most so many are indexed")
    parser.add_argument(
        "--cores", type=cores, default=os.sched_getaffinity(0), help="0 or 0,1 (default: all)"
    )
    parser.add_argument("--cached", action="store_true", help="take answers from the cache")
    return parser.parse_args()


def _row(load: Load, port: int, options: argparse.Namespace) -> str:
    job = Closed(port, load.path, load.bodies, load.clients, options.seconds, cached=options.cached)
    outcome = measure(job)
    taken = outcome.milliseconds(OK)
    times = " | ".join(f"{each:.1f}" for each in percentiles(taken, 50, 95, 99))
    others = len(outcome.answers) - len(taken)
    return f"| {load.label} | {len(taken) / options.seconds:.1f} | {times} | {others} |"


if __name__ == "__main__":
    main()
