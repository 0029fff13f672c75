"""`winnow train`: weights that fit your own documents, from the recipes of `models.training`.

Every kind of net learns from the same groups: a question, passages that Winnow's retrievers find for it, and
what these think of each. `mine` only makes the groups, which the others make too, and find again.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from service.commands.common import CommandError, Json, prepare_environment, progress_bar, stderr
from service.commands.train_kinds import KINDS, Kind

if TYPE_CHECKING:
    from service.commands.gain import Gain
    from service.commands.mining import Mined, Options
    from service.commands.training import Trained

Data = Annotated[
    list[Path],
    typer.Option(
        "--data",
        help="A folder to learn from; give it again for more. BEIR's files (corpus.jsonl and, if there are, "
        "queries.jsonl and qrels.tsv) or texts.",
    ),
]
Out = Annotated[Path, typer.Option("--out", help="Folder for what is made; made if it is not there.")]
Task = Annotated[
    Literal["judged", "ict", "bfs"] | None,
    typer.Option(
        help="`judged`: the folder's own queries. Or made of the text: `ict` takes a sentence out of a "
        "passage to find it by, `bfs` takes one of a document's beginning to find the rest.",
        show_default="judged; ict where there are no queries",
    ),
]
Queries = Annotated[
    int | None, typer.Option(min=1, help="Use so many of a folder's queries.", show_default="all")
]
Documents = Annotated[int, typer.Option(min=2, max=1000, help="Passages of a group at most.")]
Depth = Annotated[int, typer.Option(min=1, max=1000, help="How deep each retriever looks for them.")]
TextLanguage = Annotated[str, typer.Option("--language", help="Of the texts: de, zh, none …")]
Seed = Annotated[int, typer.Option(help="Of everything that is drawn.")]
Validation = Annotated[
    list[Path] | None,
    typer.Option(
        "--validation",
        help="A folder whose questions say when to stop and what was gained, in place of a share of the "
        "data's; give it again for more.",
        show_default="none",
    ),
]
HeldOut = Annotated[
    float, typer.Option(min=0.01, max=0.9, help="Share of the questions that are not trained on.")
]
Groups = Annotated[
    Path | None,
    typer.Option("--groups", help="Where mined groups are kept, as by `mine --out`.", show_default="OUT"),
]
Base = Annotated[str | None, typer.Option(help="Weights to begin with.", show_default="the default ones")]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps at most.", show_default="the recipe's")]
Minutes = Annotated[
    float | None,
    typer.Option(
        min=0.1,
        help="Train about so long, in place of --steps: their number is found by a few of them.",
        show_default="none",
    ),
]
Batch = Annotated[int | None, typer.Option(min=1, help="Groups of a step.", show_default="the recipe's")]
Rate = Annotated[
    float | None, typer.Option(min=0.0, help="Learning rate at its highest.", show_default="the recipe's")
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Another option of the recipe, as NAME=JSON; give it again for more. An unknown name lists all.",
        show_default="none",
    ),
]
Licence = Annotated[str, typer.Option(help="Licence of the weights, for their card.")]
Measure = Annotated[
    bool, typer.Option("--gain/--no-gain", help="Measure the net before and after: it takes two indexings.")
]
ABOUT = """Mines groups from the data, trains, and shows what was gained on questions that were held out: half
of these say when to stop, the other half is measured. Where nothing is judged, what retrievers together like
best stands for the answer, and the gain is measured by sentences taken out of passages. An interrupted run
goes on when it is started again. OUT has the weights, a card (README.md) and checksums."""
Force = Annotated[bool, typer.Option("--force", help="Replace a trained net that is there.")]

app = typer.Typer(
    name="train",
    help="Train small nets on your own documents, with or without judged queries.",
    no_args_is_help=True,
)


@app.command()
def mine(
    data: Data,
    out: Out,
    task: Task = None,
    queries: Queries = None,
    documents: Documents = 16,
    depth: Depth = 200,
    language: TextLanguage = "en",
    seed: Seed = 0,
) -> None:
    """Make training groups and nothing else: OUT/groups/NAME-….jsonl.gz for each folder.

    The first run encodes a folder's documents; their vectors are kept in ~/.cache/winnow. Groups that are
    there already are not made again.
    """
    from service.commands.mining import Options

    _prepare(())
    for mined in _mined(data, out, Options(task, queries, seed, documents, depth, language)):
        typer.echo(f"{mined.path}\t{len(mined.groups)}")


@app.command()
def mean(
    runs: Annotated[list[Path], typer.Argument(help="Folders that trainings of one kind wrote.")],
    out: Out,
    force: Force = False,
) -> None:
    """Take the mean of the weights of several runs of one kind, which may be better than each of them.

    The runs began with the same weights and differ in their seed, options or data. Not for nets with an
    adapter.
    """
    from models.training.soup import mean as mean_of

    _check_place(out, force)
    try:
        mean_of(runs, out)
    except (OSError, ValueError) as error:
        raise CommandError(f"there is no mean of these runs: {error}") from error
    typer.echo(out)


def _command(kind: Kind) -> Callable[..., None]:
    """The command of a kind; all have the same options."""

    def train(
        data: Data,
        out: Out,
        task: Task = None,
        queries: Queries = None,
        documents: Documents = 16,
        depth: Depth = 200,
        language: TextLanguage = "en",
        validation: Validation = None,
        held_out: HeldOut = 0.2,
        groups: Groups = None,
        base: Base = None,
        steps: Steps = None,
        minutes: Minutes = None,
        batch: Batch = None,
        learning_rate: Rate = None,
        changes: Set = None,
        seed: Seed = 0,
        licence: Licence = "not stated",
        gain: Measure = True,
        force: Force = False,
        as_json: Json = False,
    ) -> None:
        given = {"steps": steps, "batch": batch, "learning_rate": learning_rate}
        options = {name: value for name, value in given.items() if value is not None} | _changes(changes)
        if steps is not None and minutes is not None:
            raise typer.BadParameter("give --steps or --minutes, not both")
        _check_place(out, force)
        _prepare([base or kind.base])

        from service.commands.mining import Options
        from service.commands.training import Given
        from service.commands.training import train as train_one

        found = train_one(
            kind,
            Given(
                data,
                validation or [],
                out,
                groups or out,
                Options(task, queries, seed, documents, depth, language),
                held_out,
                base,
                minutes,
                options,
                licence,
                gain,
            ),
        )
        if as_json:
            typer.echo(json.dumps(_plain(found)))
        else:
            _show(found)
        stderr().print(f"To use it: {found.use}", soft_wrap=True, markup=False)

    return train


for _name, _kind in KINDS.items():
    app.command(_name, help=f"{_kind.help}\n\n{' '.join(ABOUT.split())}")(_command(_kind))


def _changes(given: Sequence[str] | None) -> dict[str, Any]:
    """Options of a recipe by name, of NAME=JSON."""
    found = {}
    for each in given or ():
        name, _, value = each.partition("=")
        try:
            found[name] = json.loads(value)
        except ValueError as error:
            raise typer.BadParameter(f"--set takes NAME=JSON, and {each!r} is not: {error}") from error
    return found


def _check_place(out: Path, force: bool) -> None:
    from service.commands.training import is_trained

    if out.exists() and not out.is_dir():
        raise CommandError(f"{out} is a file: name a folder, or one that is not there yet")
    if is_trained(out) and not force:
        raise CommandError(f"{out} holds a trained net already: name another folder, or give --force")


def _prepare(encoders: Sequence[str]) -> None:
    from service.commands.encoding_cache import cache_home

    prepare_environment(cache_home(), tuple(encoders))


def _mined(data: list[Path], out: Path, options: "Options") -> "list[Mined]":
    from service.commands.mining import mine as mine_one
    from service.commands.mining import questions_of

    found = []
    for folder in data:
        if not folder.exists():
            raise CommandError(f"{folder} does not exist")
        with progress_bar() as progress:
            mined = mine_one(questions_of(folder, out, options), out, options, progress)
        _say(mined)
        found.append(mined)
    return found


def _say(mined: "Mined") -> None:
    asked = len(mined.questions.queries)
    skipped = f"; {mined.skipped} have nothing to tell apart and are left out" if mined.skipped else ""
    stderr().print(f"{mined.questions.source}: {len(mined.groups)} groups of {asked} queries{skipped}.")


def _plain(found: "Trained") -> dict[str, Any]:
    run = found.run
    return {
        "steps": run.steps,
        "best_step": run.best_step,
        "seconds": round(run.seconds, 1),
        run.measure: round(run.best, 4),
        "gain": [{**asdict(each), "difference": round(each.difference, 4)} for each in found.gains],
    }


def _show(found: "Trained") -> None:
    run, console = found.run, Console(highlight=False)
    console.print(
        f"{run.steps} steps in {run.seconds / 60:.1f} min; the weights are those of step {run.best_step}, "
        f"with the best {run.measure} of {run.best:.3f} on the groups that steer."
    )
    if found.gains:
        console.print("nDCG@10 on questions that neither trained nor steered; p by paired randomisation.")
        console.print(_gain_table(found.gains))


def _gain_table(gains: "Sequence[Gain]") -> Table:
    table = Table("data", box=SIMPLE)
    for name in ("queries", "before", "after", "difference", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in gains:
        values = (f"{each.before:.3f}", f"{each.after:.3f}", f"{each.difference:+.3f}", f"{each.p:.4f}")
        table.add_row(each.source, str(each.questions), *values)
    return table
