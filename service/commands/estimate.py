"""How much room the keys of documents will take, said before they are made: more than anything else's."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from indexer.build import Passages
from indexer.document import Document
from indexer.encoders import Encoders, WrongEncoder
from indexer.passage_keys import key_bytes, key_lengths
from indexer.segment.manifest import read_current
from indexer.sources import SourceError, read_documents
from models.roles import Load
from service.commands.common import CommandError, readable_bytes, stderr

SAMPLE = 200
"""Documents that are cut and tokenised for an estimate."""


def announce_keys(directory: Path, source: Path, total: int, load: Load) -> None:
    """Print how much the keys of a source's documents will take, if the collection has keys.

    By up to 200 of its `total` documents, evenly spread. Loads the collection's nets: CommandError if they
    are not those that it was made with.
    """
    manifest = read_current(directory)
    if "keys" not in manifest.schema_.components or not total:
        return
    try:
        encoders = Encoders(load).of(manifest.schema_, manifest.fingerprints)
    except WrongEncoder as error:
        raise CommandError(str(error)) from error
    net, sample = encoders.in_context, list(_sample(source, total))
    assert net is not None, "keys need a language model"
    lengths = key_lengths(Passages.of(sample, manifest.schema_, encoders.encoders()).pairs(), net)
    size = key_bytes(lengths, net) * total / max(1, len(sample))
    passages = len(lengths.tokens)
    said = (
        f"Keys of {total} documents will take about {readable_bytes(size)}, by {len(sample)} of them: "
        f"{sum(lengths.tokens) / max(1, passages):.0f} tokens a passage, "
        f"{passages / max(1, len(sample)):.1f} passages a document."
    )
    if lengths.cut:
        said += f" {lengths.cut} of {passages} passages are longer than the model is given to read."
    stderr().print(said, soft_wrap=True)


def _sample(source: Path, total: int) -> Iterator[Document]:
    """Every so many documents up to the first that cannot be read, which indexing will complain of."""
    with suppress(SourceError):
        yield from islice(read_documents(source), 0, None, -(-total // SAMPLE))
