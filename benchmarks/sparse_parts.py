"""The parts of the sparse benchmark: each measures one thing on one data set and gives a table.

Ours answers from a reopened, memory-mapped index of which one passage in twenty is dead, and is judged by the
truth of the others; pyseismic, which cannot delete, answers and is judged over all. A ratio is of processor
time to the anchor's in the same rounds.
"""

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.rival_seismic import Seismic, SeismicBatch, seismic_builds
from benchmarks.rivals import Engine, KannoloFlat, NumpyGather, ScipyProduct
from benchmarks.sparse_bench import CHOOSING, Bench
from benchmarks.sparse_masks import filters
from benchmarks.sparse_measure import Questions, answers, interleaved, progress, throughput
from benchmarks.sparse_process import in_own_process
from benchmarks.sparse_truth import Truth, truths
from benchmarks.sparse_tuning import Knobs, Tried, fastest, tried, winnow_grid
from benchmarks.sparse_winnow import EXACT
from indexer.segment.sparse import Plan

ANCHOR = "pyseismic"
SLOW = 100  # questions for engines that look at every passage
FILTERED = 500
MIB = 2**20

Row = dict[str, str | float]
Judged = dict[str, tuple[Engine, Truth]]  # engines by name, with what each should find


class Table(NamedTuple):
    """A title and rows that share their columns."""

    title: str
    rows: list[Row]


def build(bench: Bench, k: int) -> Table:
    """Processor seconds, memory above the data and size on disk, each in a process of its own."""
    names = [f"seismic:{build}" for build in seismic_builds(len(bench.data.passages))]
    anchor = f"seismic:{bench.anchor(k).build}"
    figures = {name: bench.figures(name) for name in (anchor, "winnow", "winnow-lists", *names)}
    rows: list[Row] = [
        {
            "engine": name,
            "CPU s": each["cpu_s"],
            "ratio": each["cpu_s"] / figures[anchor]["cpu_s"],
            "wall s": each["wall_s"],
            "peak MiB": each["peak_bytes"] / MIB,
            "disk MiB": each["bytes"] / MIB,
        }
        for name, each in figures.items()
    ]
    return Table("build, one thread", rows)


def opening(bench: Bench, k: int) -> Table:
    """From a cold page cache, each in a process of its own."""
    rows: list[Row] = []
    for name in (f"seismic:{bench.anchor(k).build}", "winnow"):
        folder = bench.index(name)
        each = in_own_process("open", name, bench.cache / f"{bench.data.name}.npz", folder)
        rows.append(
            {
                "engine": name,
                "open ms": each["open_ms"],
                "read MiB": each["read_bytes"] / MIB,
                "of MiB": bench.figures(name)["bytes"] / MIB,
                "first question ms": each["first_question_ms"],
                "first 100 ms": each["hundred_questions_ms"],
                "read MiB then": each["read_bytes_after_hundred"] / MIB,
            }
        )
    return Table("opening from a cold page cache", rows)


def latency(bench: Bench, k: int) -> Table:
    """One thread: the anchor, ours by default, as chosen on the training half, and exactly."""
    engines = _anchors(bench, k) | {
        "winnow": (bench.search(Plan(), bench.live), bench.live_truth),
        "winnow exact": (bench.search(EXACT, bench.live), bench.live_truth),
        "winnow, none dead": (bench.search(Plan()), bench.truth),
    }
    if bench.has_lists:
        best = fastest(winnow_tried(bench, k, "winnow"))
        engines[f"winnow {best.label}"] = (bench.search(best.knobs, bench.live), bench.live_truth)
    title = f"latency, k = {k}, one thread; winnow's index has {'' if bench.has_lists else 'no '}lists"
    return Table(title, _latencies(bench, engines, bench.held_out(k), k))


def exhaustive(bench: Bench, k: int) -> Table:
    """Those that look at every passage, on fewer questions."""
    engines = _anchors(bench, k) | {
        "winnow exact": (bench.search(EXACT, bench.live), bench.live_truth),
        "numpy gather": (NumpyGather(bench.data), bench.truth),
        "scipy product": (ScipyProduct(bench.data), bench.truth),
        "kannolo flat": (KannoloFlat(bench.data), bench.truth),
    }
    return Table(
        f"exact searches, k = {k}, one thread", _latencies(bench, engines, bench.held_out(k)[:SLOW], k)
    )


def threads(bench: Bench, k: int) -> Table:
    """Questions a second by one thread and by two at once."""
    engines = {name: engine for name, (engine, _) in _anchors(bench, k).items()}
    engines |= {"winnow": bench.search(Plan(), bench.live), "winnow exact": bench.search(EXACT, bench.live)}
    one, two = (throughput(engines, bench.held_out(k), k, count, bench.rounds) for count in (1, 2))
    rows: list[Row] = [
        {
            "engine": name,
            "1 thread, questions/s": one[name],
            "2 threads": two[name],
            "gain": two[name] / one[name],
            "2 threads to anchor's": two[name] / two[ANCHOR],
        }
        for name in engines
    ]
    return Table(f"throughput, k = {k}", rows)


def filtered(bench: Bench, k: int) -> Table:
    """Ours among the passages that a filter lets through; the ratio is to ours without a filter."""
    masks = filters(len(bench.data.passages))
    wanted = truths(bench.data, {f"filter-{share}": mask for share, mask in masks.items()}, bench.cache)
    engines: Judged = {"no filter": (bench.search(Plan(), bench.live), bench.live_truth)}
    for share, mask in masks.items():
        engines[f"{share}, {mask.sum():,} rows"] = (bench.search(Plan(), mask), wanted[f"filter-{share}"])
    rows = _latencies(bench, engines, bench.held_out(k)[:FILTERED], k, base="no filter")
    return Table(f"winnow with filters, k = {k}, one thread", rows)


def beside(bench: Bench, k: int) -> Table:
    """What is left for another Python thread: its share of what it does when alone."""
    anchor = bench.anchor(k)
    opened = bench.seismic(anchor.build)
    engines: dict[str, Engine] = {
        ANCHOR: Seismic(opened, anchor.knobs),
        "pyseismic batch_search, 500 a call": SeismicBatch(opened, anchor.knobs, 500),
        "winnow": bench.search(Plan(), bench.live),
        "winnow exact": bench.search(EXACT, bench.live),
    }
    seen = progress(engines, bench.held_out(k), k, bench.rounds)
    rows: list[Row] = [
        {"engine": name, "share": one.share, "longest pause ms": one.stall_ms, "calls/s": one.answered}
        for name, one in seen.items()
    ]
    return Table("progress of another Python thread during search", rows)


def grid_seismic(bench: Bench, k: int) -> Table:
    """Every setting of pyseismic's knobs with the anchor's build; ratios are to its fastest that suffices."""
    build = bench.anchor(k).build
    settings = bench.seismic_tried(build, k)
    return Table(f"pyseismic {build}, k = {k}", _settings(settings))


def grid_winnow(bench: Bench, k: int) -> Table:
    """Every setting of ours, likewise, with lists whether or not they prove themselves."""
    return Table(f"winnow, k = {k}", _settings(winnow_tried(bench, k, "winnow-lists")))


def winnow_tried(bench: Bench, k: int, engine: str) -> list[Tried[Plan]]:
    """Every plan of the grid, with the dead."""
    engines = {plan: bench.search(plan, bench.live, engine) for plan in winnow_grid()}
    return tried(engines, bench.data, bench.live_truth, k, bench.asked(k), CHOOSING)


def _anchors(bench: Bench, k: int) -> Judged:
    anchor = bench.anchor(k)
    string, raw = Seismic(bench.seismic(anchor.build), anchor.knobs), bench.seismic_raw(anchor)
    return {ANCHOR: (string, bench.truth), "pyseismic raw": (raw, bench.truth)}


def _latencies(bench: Bench, engines: Judged, asked: Questions, k: int, base: str = ANCHOR) -> list[Row]:
    times = interleaved({name: engine for name, (engine, _) in engines.items()}, asked, k, bench.rounds)
    rows: list[Row] = []
    for name, (engine, truth) in engines.items():
        time = times[name]
        rows.append(
            {
                "engine": name,
                "CPU µs": time.cpu,
                "ratio": time.cpu / times[base].cpu,
                "wall µs": time.wall,
                "median": time.median,
                "p95": time.p95,
                f"recall@{k}": truth.recall(bench.data, asked, answers(engine, asked, k), k),
            }
        )
    return rows


def _settings(settings: Sequence[Tried[Knobs]]) -> list[Row]:
    base = fastest(settings).cpu
    return [
        {
            "setting": one.label,
            "CPU µs": one.cpu,
            "ratio": one.cpu / base,
            "recall, train": one.train,
            "recall, held out": one.held_out,
        }
        for one in settings
    ]
