"""`winnow heads`: which heads of a language model find what is relevant in documents like yours.

Weights that nobody trained for reranking hold heads that do it, and which these are depends on the weights.
Judged questions show it: candidates come of a pipeline over a temporary index, as they would come to the
model in a search, and one reading shows what every head does. Half of the questions choose, the other half
says what the choice is worth, since on the questions that chose them the best of some hundred heads always
look good.
"""

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from models.load import SMOLLM2
from service.commands.common import (
    CommandError,
    Json,
    Language,
    Schema,
    prepare_environment,
    progress_bar,
    read_schema,
    stderr,
)
from service.commands.evaluate import Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from models.in_context.net import InContextNet
    from models.in_context.opened import Opened
    from models.in_context.recipe import Recipe
    from models.load import Weights
    from service.commands.head_choice import Choice, Measured
    from service.commands.head_survey import Survey

FILE = "in_context.json"


@dataclass(frozen=True, eq=False)
class Findings:
    """What so many questions chose, and what it is worth by the others.

    scores float32 [2, 2, layers, heads]: attention to relevant documents of those that chose and of the
    others, each in modes `cached` and `keys`. `first` is nDCG@10 of the pipeline alone.
    """

    choice: "Choice"
    choosing: int
    measuring: int
    scores: "NDArray[np.float32]"
    first: float
    measured: "Sequence[Measured]"


def heads(
    dataset: Annotated[
        Path, typer.Argument(help="A BEIR folder: corpus.jsonl, queries.jsonl and qrels.tsv.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the in_context.json; made if it is not there.")],
    model: Annotated[
        str,
        typer.Option(
            help="Weights, or a folder with an in_context.json, whose limits are kept.",
            envvar="WINNOW_IN_CONTEXT_MODEL",
        ),
    ] = SMOLLM2,
    pipeline: Annotated[str, typer.Option(help="The named pipeline that finds the candidates.")] = "bm25",
    candidates: Annotated[int, typer.Option(min=2, max=1000, help="Candidates of each query.")] = 20,
    queries: Annotated[
        int | None, typer.Option(min=2, help="Use so many of the queries.", show_default="all")
    ] = None,
    number: Annotated[int, typer.Option("--heads", min=1, help="Heads to choose.")] = 8,
    layer: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Last layer that runs, from 0, and the one that mode keys reads: the deeper, the slower.",
            show_default="chosen",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Chooses queries, halves them, and flips signs in the test.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an in_context.json that is there.")] = False,
    language: Language = None,
    schema: Schema = "{}",
    as_json: Json = False,
) -> None:
    """Choose the heads of a language model that find what is relevant, by judged queries.

    One half of the queries chooses heads and a layer; the other shows what these do to the order of the
    pipeline's candidates, alone and fused with it. Queries without a relevant candidate are left out.

    All that is written is OUT/in_context.json, which names the model and its heads.
    """
    out = out.expanduser().resolve()
    _check_place(out, force)
    task, given = Task.read(dataset, queries, seed), read_schema(schema, language)
    _prepare(model, given)

    from service.commands.head_survey import candidates as candidates_of
    from service.commands.head_survey import survey, whole_net

    net, found = whole_net(model)  # before the index, which takes longer to find fault with
    _check_choice(net, number, layer)
    with progress_bar() as progress:
        hits = candidates_of(dataset, task, pipeline, candidates, given, progress)
        surveyed = survey(net, task, hits, seed, progress)
    findings = _findings(task, surveyed, number, layer, seed)
    recipe = _recipe(found, findings.choice, out)
    if as_json:
        typer.echo(json.dumps(_plain(dataset, pipeline, surveyed, findings, recipe)))
    else:
        title = f"{dataset.resolve().name}, {candidates} candidates of {pipeline}"
        _show(title, pipeline, surveyed, findings)
    _write(out, recipe)
    _say_how(out)


def _check_place(out: Path, force: bool) -> None:
    if out.exists() and not out.is_dir():
        raise CommandError(f"{out} is a file: name a folder, or one that is not there yet")
    if (out / FILE).exists() and not force:
        raise CommandError(f"{out / FILE} is there already: name another folder, or give --force")


def _prepare(model: str, schema: dict[str, Any]) -> None:
    from service.commands.encoding_cache import cache_home

    fields = ("encoder", "sparse_encoder", "late_encoder", "in_context_model")
    prepare_environment(cache_home(), (model, *(str(schema.get(field, "")) for field in fields)))


def _check_choice(net: "InContextNet", number: int, layer: int | None) -> None:
    if layer is not None and layer >= net.layers:
        raise CommandError(f"--layer is from 1 to {net.layers - 1} in {net.name}, not {layer}")
    if number > net.layers * net.heads:
        raise CommandError(f"--heads is at most {net.layers * net.heads} in {net.name}, not {number}")


def _findings(task: Task, surveyed: "Survey", number: int, layer: int | None, seed: int) -> Findings:
    import numpy as np

    from service.commands.head_choice import choose, halves, mean_on_relevant, measure

    choosing, measuring = halves(surveyed.seen, seed)
    scores = np.stack([mean_on_relevant(choosing), mean_on_relevant(measuring)])
    choice = choose(scores[0], number, layer)
    first, measured = measure(measuring, choice, task.qrels, seed)
    return Findings(choice, len(choosing), len(measuring), scores, first, measured)


def _recipe(found: "Opened", choice: "Choice", out: Path) -> "Recipe":
    """What the model was used by, with the chosen heads, and with names that lead somewhere from `out`."""
    model = _name(found, found.base, out)
    adapter = None if found.adapter is None else _name(found, found.adapter, out)
    return replace(found.recipe, model=model, adapter=adapter, layer=choice.layer, read=choice.read)


def _name(found: "Opened", weights: "Weights", out: Path) -> str:
    """The name of weights in a recipe in `out`: of what is inside of it relative, of other folders whole."""
    from models.load import folder, is_path

    if not is_path(weights.name):
        return weights.name
    if not is_path(found.name) and weights.path.is_relative_to(place := folder(found.name)):
        # A package's or a hub's recipe, which stands beside its weights or above them.
        below = weights.path.relative_to(place).as_posix()
        if below == ".":
            return found.name
        if not found.name.startswith("hf:"):  # of which no folder can be named
            return f"{found.name}/{below}"
    inside = weights.path.is_relative_to(out)
    return str(weights.path.relative_to(out) if inside else weights.path)


def _write(out: Path, recipe: "Recipe") -> None:
    from indexer.segment.durable import replace_file
    from models.in_context.recipe import recipe_to_json

    values = {name: value for name, value in recipe_to_json(recipe).items() if value is not None}
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in values.items()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        replace_file(out / FILE, ("{\n" + ",\n".join(lines) + "\n}\n").encode())
    except OSError as error:
        raise CommandError(f"{out / FILE} cannot be written: {error}") from error


def _say_how(out: Path) -> None:
    setting = f"WINNOW_IN_CONTEXT_MODEL={shlex.quote(str(out))}"
    stderr().print(f"Wrote {out / FILE}. Collections that are made by a service with", soft_wrap=True)
    stderr().print(f"  {setting}", soft_wrap=True)
    stderr().print("read with these heads; those that are there already keep the model they were made with.")


def _plain(
    dataset: Path, pipeline: str, surveyed: "Survey", findings: Findings, recipe: "Recipe"
) -> dict[str, Any]:
    from models.in_context.recipe import recipe_to_json

    fused = [
        {"mode": each.mode, "weight": each.weight, "nDCG@10": round(each.value, 4), "p": round(each.p, 4)}
        for each in findings.measured
    ]
    return {
        "dataset": dataset.resolve().name,
        "queries": {
            "choosing": findings.choosing,
            "measuring": findings.measuring,
            "skipped": surveyed.skipped,
        },
        "candidates": {"read": surveyed.read, "cut": surveyed.cut},
        "pipeline": {"name": pipeline, "nDCG@10": round(findings.first, 4)},
        "fused": fused,
        "recipe": recipe_to_json(recipe),
    }


def _show(title: str, pipeline: str, surveyed: "Survey", findings: Findings) -> None:
    from service.commands.head_choice import MODES, verdict

    others, console = findings.measuring, Console(highlight=False)
    said = (
        f"{title}: heads by {findings.choosing} queries, up to layer {findings.choice.layer}. Shares of "
        "their attention that lie on relevant candidates, less that of a question without content; in "
        f"brackets by the {others} queries that did not choose.",
        _heads_table(findings),
        f"What these heads do to {pipeline}, by the {others} queries that did not choose. p of the "
        "difference: paired randomisation, two-sided, uncorrected.",
        _measures_table(pipeline, findings),
        *(verdict(mode, findings.measured) for mode in MODES),
        *_left_out(surveyed),
    )
    for each in said:
        console.print(each)


def _left_out(surveyed: "Survey") -> Iterator[str]:
    if surveyed.skipped:
        yield f"Queries left out since none of their candidates is relevant: {surveyed.skipped}."
    if surveyed.cut:
        yield f"Candidates longer than the model is given to read: {surveyed.cut} of {surveyed.read}."


def _heads_table(findings: Findings) -> Table:
    """How much of their attention the chosen heads have on what is relevant, in both halves."""
    table = _table("layer", "head", "cached", "keys")
    for layer, head, _ in findings.choice.read.heads:
        own, others = findings.scores[:, :, layer, head]
        cached, keys = (f"{mine:+.3f} ({theirs:+.3f})" for mine, theirs in zip(own, others, strict=True))
        table.add_row(str(layer), str(head), cached, keys if layer == findings.choice.layer else "not read")
    return table


def _measures_table(pipeline: str, findings: Findings) -> Table:
    from service.commands.head_choice import ALONE, MEASURE

    table = _table(MEASURE, "difference", "p", first="ranking")
    table.add_row(pipeline, f"{findings.first:.3f}", "", "")
    for each in findings.measured:
        how = "heads alone" if each.weight == ALONE else f"fused, weight {each.weight}"
        table.add_row(f"{each.mode}: {how}", f"{each.value:.3f}", f"{each.difference:+.3f}", f"{each.p:.4f}")
    return table


def _table(*numbers: str, first: str | None = None) -> Table:
    table = Table(*(first,) if first else (), box=SIMPLE)
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True)
    return table
