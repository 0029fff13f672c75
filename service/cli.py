"""The command line, and the composition root: what may import every part, and puts them together."""

from typing import Any

import typer
from typer.core import TyperGroup

from indexer.sources import SourceError
from service.commands.common import CommandError, print_error
from service.commands.evaluate import evaluate
from service.commands.heads import heads
from service.commands.index import index
from service.commands.inspect import inspect
from service.commands.keys import app as keys
from service.commands.openapi import openapi
from service.commands.quickstart import quickstart
from service.commands.search import search
from service.commands.serve import serve
from service.commands.snapshots import backup, restore, snapshots
from service.commands.train import app as train
from service.commands.worker import worker


class Commands(TyperGroup):
    """Makes an expected error one sentence and exit code 1; any other is a bug and shows its trace."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (CommandError, SourceError) as error:
            print_error(error)
            raise typer.Exit(1) from error


app = typer.Typer(
    name="winnow",
    cls=Commands,
    help="Documents in, the right passages out, with an honest account of how each was found.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    serve,
    worker,
    index,
    search,
    evaluate,
    heads,
    inspect,
    backup,
    restore,
    snapshots,
    openapi,
    quickstart,
):
    app.command()(command)
app.add_typer(train)
app.add_typer(keys)

if __name__ == "__main__":
    app()
