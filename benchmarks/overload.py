"""What becomes of a service that is asked for ten times what it can do.

    python -m benchmarks.overload --data DIR [--seconds 60] [--times 10] [--documents 5000] [--cores 0]
                                  [--only searches]

DIR is a BEIR folder, whose documents are searched by its queries with the default pipeline. Then, each time
of a new service, `/v1/embeddings` is asked by its queries, one a request, and by passages of 100 words in
16s. First by one client, whose times are those of a service at rest, and by as many as keep the service busy,
whose requests a second are what can be sustained; then for `--seconds` by so many times that rate, whether
answers come or not (`benchmarks.load`). Service and client share the cores.

Wanted: those who are refused hear so within 100 ms, and when to come back; 99 of 100 who are accepted wait
at most twice what they wait at rest and what a full queue takes (`WINNOW_QUEUE_MS` for searches, else
`WINNOW_QUEUED_TOKENS` at the tokens a second of the sustained rate); memory does not grow; and of the last
to be refused, who come back when they were told to and find that nobody else does, all are accepted. That the
client was late says that the cores were not enough for it: then the rate was not reached, and what it owes is
told apart.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.endpoint_loads import Load, Texts, token_counts
from benchmarks.endpoint_servers import Server, cores, winnow
from benchmarks.load import BROKEN, Closed, Open, Outcome, measure, percentiles
from benchmarks.machine import describe
from benchmarks.memory import memory, slope
from benchmarks.search_loads import PATH as SEARCH
from benchmarks.search_loads import index, searches
from benchmarks.server import Running, running
from service.settings import Settings

REST_SECONDS = 20
PATIENT = 4
OK, TOO_MANY = 200, 429


class Before(NamedTuple):
    """The service at rest and busy: milliseconds of 99 in 100 requests, requests a second, and milliseconds
    that as much takes as may wait.
    """

    p99: float
    rate: float
    full: float


def main() -> None:
    """Measure and print."""
    options = _options()
    os.sched_setaffinity(0, options.cores)  # what is started inherits it
    print(f"command: python -m benchmarks.overload {' '.join(sys.argv[1:])}")
    print(f"machine: {describe('torch', 'uvicorn')}")
    print(f"cores {sorted(options.cores)} for service and client", flush=True)
    for load in _loads(options):
        with TemporaryDirectory(prefix="winnow-") as data_dir:
            if load.path == SEARCH:
                print(f"{index(options.data, Path(data_dir), options.documents)} documents", flush=True)
            _one(load, winnow(data_dir), options)
    print(f"load average at the end {os.getloadavg()[0]:.1f}")


def _loads(options: argparse.Namespace) -> list[Load]:
    *_, searching = searches(options.data)
    if options.only == "searches":
        return [searching]
    *_, queries, passages = Texts(options.data).embedding()
    return [queries, passages] if options.only == "embeddings" else [searching, queries, passages]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="BEIR folder")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--documents", type=int, default=5000, help="at most so many are searched")
    parser.add_argument("--times", type=float, default=10, help="how many times the sustainable rate")
    parser.add_argument("--only", choices=["searches", "embeddings"])
    parser.add_argument(
        "--cores", type=cores, default=os.sched_getaffinity(0), help="0 or 0,1 (default: all)"
    )
    return parser.parse_args()


def _one(load: Load, service: Server, options: argparse.Namespace) -> None:
    """At rest, busy, overloaded, and after it."""
    with running(service.command, service.probe) as server:
        before = _before(server, load)
        with memory(server.pid) as sizes:
            outcome = measure(_overload(server, load, before, options))
        _report(load, before, options, outcome, sizes)
        _report_readiness(server)


def _before(server: Running, load: Load) -> Before:
    rest = measure(Closed(server.port, load.path, load.bodies, 1, REST_SECONDS))
    busy = measure(Closed(server.port, load.path, load.bodies, load.clients, REST_SECONDS))
    if {*rest.statuses(), *busy.statuses()} != {OK}:
        raise RuntimeError(f"answers with status {rest.statuses()} and {busy.statuses()} before any overload")
    rate = len(busy.answers) / REST_SECONDS
    return Before(percentiles(rest.milliseconds(), 99)[0], rate, _full(load, rate))


def _full(load: Load, rate: float) -> float:
    """Milliseconds of a full queue."""
    if load.path == SEARCH:
        return Settings().queue_ms
    inputs = [json.loads(body)["input"] for body in load.bodies]
    counts = token_counts([text for each in inputs for text in ([each] if isinstance(each, str) else each)])
    return 1000 * Settings().queued_tokens * len(inputs) / sum(counts) / rate


def _overload(server: Running, load: Load, before: Before, options: argparse.Namespace) -> Open:
    rate = options.times * before.rate
    return Open(server.port, load.path, load.bodies, rate, options.seconds, patient=PATIENT)


def _report(
    load: Load, before: Before, options: argparse.Namespace, outcome: Outcome, sizes: list[float]
) -> None:
    print(f"\n{load.label}: {before.rate:.1f} requests/s can be sustained")
    print(f"at rest p99 {before.p99:.0f} ms; a full queue takes {before.full:.0f} ms")
    print(f"{options.times * before.rate:.0f} requests/s for {options.seconds:.0f} s:\n")
    print("| status | requests/s | p50 ms | p99 ms | longest |\n|---|---|---|---|---|")
    for status in outcome.statuses():
        taken = outcome.milliseconds(status)
        p50, p99, longest = percentiles(taken, 50, 99, 100)
        name = "connection broken" if status == BROKEN else status
        print(f"| {name} | {len(taken) / options.seconds:.1f} | {p50:.0f} | {p99:.0f} | {longest:.0f} |")
    accepted, refused = (percentiles(outcome.milliseconds(status), 99)[0] for status in (OK, TOO_MANY))
    once_sent = percentiles(outcome.milliseconds_once_sent(TOO_MANY), 99)[0]
    late, latest = percentiles(outcome.late(), 99, 100)
    print(f"\n- accepted: p99 {accepted:.0f} ms of {2 * before.p99 + before.full:.0f} allowed")
    print(f"- refused: p99 {refused:.0f} ms of 100 allowed, {once_sent:.0f} ms from when it was really sent")
    print(f"- refused: {_retry_after(outcome)}")
    back = [answer.status for answer in outcome.retried]
    print(f"- came back when told to: {back.count(OK)} of {len(back)} accepted")
    print(f"- memory: {_growth(sizes)}")
    print(f"- the client was late by {late:.1f} ms at p99, {latest:.1f} at most", flush=True)


def _retry_after(outcome: Outcome) -> str:
    refused = [answer.retry_after for answer in outcome.answers if answer.status == TOO_MANY]
    told = [each for each in refused if each is not None]
    if not told:
        return "none was told when to come back"
    shown = ", ".join(f"{value:.0f} s {told.count(value)} times" for value in sorted(set(told)))
    return f"`Retry-After` {shown}, absent {len(refused) - len(told)} times"


def _growth(sizes: list[float]) -> str:
    """MiB before, at its most, and how fast it grew in the second half."""
    return (
        f"{sizes[0]:.0f} MiB before, {max(sizes):.0f} at most, {slope(sizes):+.1f} MiB a minute in the "
        "second half"
    )


def _report_readiness(server: Running) -> None:
    began = time.perf_counter()
    status = server.client.get("/readyz").status_code
    print(f"- after it /readyz answers {status} in {1000 * (time.perf_counter() - began):.0f} ms", flush=True)


if __name__ == "__main__":
    main()
