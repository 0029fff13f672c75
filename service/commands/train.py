"""`winnow train`: weights that fit your own documents, from the recipes of `models.training`.

Every kind of net learns from the same groups: a question, passages that Winnow's retrievers find for it, and
what these think of each. `mine` only makes the groups, which the others make too, and find again.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from service.commands.common import CommandError, prepare_environment, progress_bar, stderr

if TYPE_CHECKING:
    from service.commands.mining import Mined, Options

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

    _prepare()
    for mined in _mined(data, out, Options(task, queries, seed, documents, depth, language)):
        typer.echo(f"{mined.path}\t{len(mined.groups)}")


def _prepare() -> None:
    from service.commands.encoding_cache import cache_home

    prepare_environment(cache_home())


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
