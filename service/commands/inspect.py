"""`winnow inspect`: what lies in a data directory, and whether its bytes are those that were written."""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from service.commands.common import DEFAULT_DATA_DIR, CommandError, DataDir, readable_bytes

if TYPE_CHECKING:
    from indexer.segment.manifest import FileEntry, Manifest


def inspect(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", help="Only this one.", show_default="all")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read every byte and check its checksum.")] = False,
    pruned: Annotated[
        bool, typer.Option("--pruned", help="List passages without a sparse vector for want of quality.")
    ] = False,
) -> None:
    """Show collections: generation, segments, rows, dead and pruned rows, and bytes per component."""
    from indexer.collection import collection_path, list_collections

    names = [name for name in list_collections(data_dir) if collection in (None, name)]
    if not names:
        raise CommandError(f"{data_dir} has no collection" + (f" {collection!r}" if collection else ""))
    console = Console(highlight=False)
    damages = []
    for name in names:
        directory = collection_path(data_dir, name)
        damages += _inspect(directory, console, verify=verify, pruned=pruned)
    for damage in damages:
        console.print(f"[red]damaged:[/red] {damage}", soft_wrap=True)
    if damages:
        raise CommandError(f"{len(damages)} files are damaged: restore them, or index those documents again")
    if verify:
        console.print("Every file matches its checksum.")


def _inspect(directory: Path, console: Console, *, verify: bool, pruned: bool) -> list[str]:
    """Print one collection; return what is wrong with it."""
    from indexer.segment.arrays import CorruptFile
    from indexer.segment.manifest import read_current

    try:
        manifest = read_current(directory)
        console.print(_segments(directory, manifest))
        for line in _pruned(directory, manifest) if pruned else ():
            typer.echo(line)
    except (CorruptFile, FileNotFoundError) as error:
        return [str(error)]
    return list(_damages(directory, manifest)) if verify else []


def _segments(directory: Path, manifest: "Manifest") -> Table:
    live = manifest.statistics
    title = (
        f"{directory.name}: generation {manifest.generation}, {live.documents} documents, "
        f"{live.passages} passages, {_queued(directory, manifest)} operations waiting"
    )
    components = sorted({name for entry in manifest.segments for name in _by_component(entry.files)})
    counts = {"rows": "rows", "dead": "dead_rows", "pruned": "pruned_rows", "documents": "documents"}
    if not any(entry.pruned_rows for entry in manifest.segments):
        del counts["pruned"]
    table = Table("segment", *counts, *components, title=title, title_justify="left")
    for entry in manifest.segments:
        sizes = _by_component(entry.files)
        numbers = (str(getattr(entry, field)) for field in counts.values())
        table.add_row(entry.name, *numbers, *(readable_bytes(sizes[component]) for component in components))
    if manifest.lexical is not None:
        size = sum(entry.size for entry in manifest.lexical.files.values())
        table.caption = f"full query syntax: {manifest.lexical.directory}, {readable_bytes(size)}"
    return table


def _pruned(directory: Path, manifest: "Manifest") -> Iterator[str]:
    """A line for every live passage that was pruned: document, characters [begin, end), quality."""
    from indexer.part import Part

    for entry in manifest.segments:
        part = Part.open(directory, entry)
        store, quality = part.segment.store, part.segment.quality
        if quality is None:
            continue
        for row in (quality.pruned & ~part.dead).nonzero()[0].tolist():
            begin, end = store.spans[row].tolist()
            document = store.id(int(store.document_of_row[row]))
            yield f"{document}\t{begin}\t{end}\t{quality.values[row]:.4f}"


def _queued(directory: Path, manifest: "Manifest") -> int:
    from indexer.collection import log_path
    from indexer.queue.sqlite import SqliteLog

    with closing(SqliteLog(log_path(directory))) as log:
        return max(0, log.last_position() - manifest.position)


def _by_component(files: "dict[str, FileEntry]") -> Counter[str]:
    """Component -> bytes: a component is a file, or all files that begin with its name."""
    sizes: Counter[str] = Counter()
    for name, entry in files.items():
        sizes[Path(name).parts[0].partition(".")[0]] += entry.size
    return sizes


def _damages(directory: Path, manifest: "Manifest") -> Iterator[str]:
    from indexer.segment.arrays import CorruptFile
    from indexer.segment.manifest import verify_files

    for name, entry in manifest.files().items():
        try:
            verify_files(directory, {name: entry})
        except CorruptFile as error:
            yield str(error)
