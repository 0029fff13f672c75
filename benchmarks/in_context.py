"""Reading candidates in context, in blocks and from what was read before, against a forward of the whole
prompt.

    python -m benchmarks.in_context [--documents 10 50 100] [--dtype bfloat16 float32] [--dense 100]
                                    [--threads 1] [--tokens 100] [--layers 9 18] [--rounds 3]

SmolLM2-135M, random documents of `--tokens` tokens, an instruction of 48 and a question of 40. `dense` is the
forward of transformers itself over all tokens (SDPA, the same number format and threads, logits of the last
token only); beyond `--dense` documents, where it takes minutes, it is a fit a·n + b·n² to those that were
measured, and stands with a "~". `blocks` reads all documents, to the last layer or to l*; `cached` asks over
keys and values in memory (`int8`: in the pages of the service's cache); `keys` asks without documents and
meets stored 8-bit keys of l*. Each figure is the least of `--rounds` runs in milliseconds; all that is
divided was measured in this process.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from benchmarks.machine import describe
from indexer.kernels import warm
from indexer.passage_keys import key_centre
from indexer.segment.keys import Keys, combine, key_rows, write_keys
from models.in_context.cache import KVCache, document_key
from models.in_context.items import Block, Prompt, Question
from models.in_context.net import InContextNet
from models.in_context.opened import load_model, opened
from models.in_context.read_out import BlockRank
from models.in_context.recipe import Recipe
from models.in_context.states import Joined
from models.load import SMOLLM2
from models.maxsim import products

CACHE = Path.home() / ".cache" / "winnow" / "weights"
INSTRUCTION, QUESTION = 48, 40
Run = Callable[[], object]


def least(run: Run, rounds: int) -> float:
    """Milliseconds of the fastest run, one not counted before; of a single one if `rounds` is 0."""
    return by_turns([run], rounds)[0]


def by_turns(runs: Sequence[Run], rounds: int) -> list[float]:
    """The like of several runs that take turns."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds + 1):
        for run, taken in zip(runs, times, strict=True):
            began = time.perf_counter()
            run()
            taken.append(time.perf_counter() - began)
    return [1000 * min(taken[1:] or taken) for taken in times]


def random_ids(number: int, length: int, seed: int) -> list[list[int]]:
    """Tokens that no tokeniser means anything by."""
    return np.random.default_rng(seed).integers(10, 40_000, (number, length)).tolist()


class Bench:
    """One net in one number format."""

    def __init__(self, dtype: Any, layer: int, rounds: int) -> None:
        found = opened(SMOLLM2, CACHE)
        model, tokenizer = load_model(found, "cpu", dtype)
        self.net = InContextNet(replace(found, recipe=Recipe(SMOLLM2, layer=layer)), model, tokenizer, "cpu")
        (ids,) = random_ids(1, QUESTION, 1)
        self.question = Question(Block(ids, range(5, 30)), range(38, 40), BlockRank())
        self.instruction = random_ids(1, INSTRUCTION, 2)[0]
        self.net.__dict__["instruction"] = self._instruction()
        self.rounds = rounds

    def _instruction(self) -> object:
        with torch.inference_mode():
            return self.net._instruct(self.instruction)

    def blocks(self, documents: list[list[int]]) -> float:
        """Instruction, documents and question, up to l*."""
        prompt = Prompt("query_aware", self.instruction, documents, self.question)
        return least(lambda: self.net.rank([prompt]), self.rounds if len(documents) < 100 else 0)

    def cached(self, documents: list[list[int]], *, int8: bool) -> float:
        """The question over documents that were read."""
        net, states = self.net, self._states(documents)
        if not int8:
            source = Joined(states)
            return least(lambda: net.ask([self.question], [source]), self.rounds)
        cache = KVCache(net.layer, net.kv_heads, net.head_dim, net.dtype, 4 * 2**30)
        with cache.lease() as lease:
            parts = [
                lease.put(document_key(net.fingerprint, ids), each)
                for ids, each in zip(documents, states, strict=True)
            ]
            pages = cache.documents(parts)
            return least(lambda: net.ask([self.question], [pages]), self.rounds)

    def keys(self, documents: list[list[int]], path: Path) -> list[float]:
        """The question alone, and with documents' keys from a mapped file."""
        few = self.net.document_keys(documents[:10])
        keys = [few[number % len(few)] for number in range(len(documents))]
        write_keys(path, [len(each) for each in keys], keys, key_centre(self.net))
        stored, rows = Keys(path), np.arange(len(documents))

        def run() -> object:
            (asked,) = self.net.ask_alone([self.question])
            split = key_rows(asked.vectors, asked.kv_heads, asked.weights)
            return combine(*stored.partials(split, rows, products), split.weights)

        return by_turns([lambda: self.net.ask_alone([self.question]), run], 5 * self.rounds)

    def _states(self, documents: list[list[int]]) -> list[Any]:
        """What is read of a few documents, again and again: reading five hundred would take minutes."""
        few = self.net.read_documents(documents[:10])
        return [few[number % len(few)] for number in range(len(documents))]


def dense(dtype: torch.dtype, counts: Sequence[int], length: int, rounds: int) -> dict[int, float]:
    """Milliseconds of transformers' own forward of the whole prompt."""
    path = opened(SMOLLM2, CACHE).path
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="sdpa").eval()
    found = {}
    for number in counts:
        ids = torch.tensor(
            [list(chain.from_iterable(random_ids(1, number * length + INSTRUCTION + QUESTION, 3)))]
        )

        def run(ids: torch.Tensor = ids) -> object:
            with torch.inference_mode():
                return model(ids, use_cache=False, logits_to_keep=1)

        found[number] = least(run, rounds if number < 50 else 0)
    return found


def fitted(times: dict[int, float]) -> Callable[[int], float]:
    """Least squares of a·n + b·n² in relative error."""
    n, y = np.array(list(times), float), np.array(list(times.values()))
    a, b = np.linalg.lstsq(np.stack([n, n * n], 1) / y[:, None], np.ones(len(y)), rcond=None)[0]
    return lambda number: a * number + b * number * number


def report(dtype: str, options: argparse.Namespace) -> None:
    """The table of one number format."""
    counts, kind = options.documents, getattr(torch, dtype)
    measured = dense(kind, [n for n in counts if n <= options.dense], options.tokens, options.rounds)
    fit = fitted(measured)
    print(f"\n{dtype}, {options.threads} thread(s), ms" + "".join(f"{n:>11}" for n in counts))

    def row(name: str, values: Sequence[float], marks: str = "") -> None:
        shown = zip(values, marks or [""] * len(values), strict=True)
        cells = [f"{mark}{value:,.{0 if value >= 100 else 2 if value < 10 else 1}f}" for value, mark in shown]
        print(f"{name:<28}" + "".join(f"{cell:>11}" for cell in cells), flush=True)

    whole = [measured.get(n) or fit(n) for n in counts]
    row("dense", whole, ["" if n in measured else "~" for n in counts])
    documents = {n: random_ids(n, options.tokens, n) for n in counts}
    table: dict[str, list[float]] = {}
    for layer in options.layers:
        bench = Bench(dtype, layer, options.rounds)
        if layer == max(options.layers):
            table[f"blocks, l*={layer}"] = [bench.blocks(documents[n]) for n in counts]
        table[f"cached, l*={layer}"] = [bench.cached(documents[n], int8=False) for n in counts]
        table[f"cached int8, l*={layer}"] = [bench.cached(documents[n], int8=True) for n in counts]
        with tempfile.TemporaryDirectory() as folder:
            pairs = [bench.keys(documents[n], Path(folder) / str(n)) for n in counts]
        table[f"question alone, l*={layer}"] = [alone for alone, _ in pairs]
        table[f"keys, l*={layer}"] = [keys for _, keys in pairs]
    full = Bench(dtype, bench.net.layers - 1, 1)
    table["blocks, all layers"] = [full.blocks(documents[n]) for n in counts if n <= 100]
    for name, values in table.items():
        row(name, values)
    layer = max(options.layers)
    ratio = {name: [w / v for w, v in zip(whole, values, strict=False)] for name, values in table.items()}
    row(f"dense / blocks, l*={layer}", ratio[f"blocks, l*={layer}"])
    row(f"dense / cached, l*={layer}", ratio[f"cached, l*={layer}"])
    row(f"dense / cached int8, l*={layer}", ratio[f"cached int8, l*={layer}"])
    for each in options.layers:
        keys, alone = table[f"keys, l*={each}"], table[f"question alone, l*={each}"]
        row(f"keys / question, l*={each}", [a / b for a, b in zip(keys, alone, strict=True)])
        print(f"keys, l*={each}: {counts[-1]} documents take {keys[-1] / keys[0]:.2f} × {counts[0]}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, nargs="+", default=[10, 50, 100, 200, 500])
    parser.add_argument(
        "--dtype", nargs="+", default=["bfloat16", "float32"], choices=["bfloat16", "float32"]
    )
    parser.add_argument("--dense", type=int, default=100, help="documents up to which dense is measured")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--layers", type=int, nargs="+", default=[9, 18])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warm()
    print(describe("torch", "transformers"))
    for dtype in options.dtype:
        report(dtype, options)
    print(describe("torch", "transformers"))


if __name__ == "__main__":
    main()
