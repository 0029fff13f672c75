"""A power cut at any rename leaves a whole generation: bytes, then names, then the pointer to them."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from indexer.collection import CollectionSchema, create_collection
from indexer.document import Document
from indexer.queue.contract import Operation, delete, upsert
from indexer.queue.logs import Logs
from indexer.segment.arrays import CorruptFile
from indexer.segment.manifest import CURRENT
from indexer.worker import drain
from tests.indexer.power import Disk
from tests.indexer.reading import Reading, quick_directory
from tests.nets import word_overlap

SCHEMA = CollectionSchema(language="none", passage_tokens=16, overlap_sentences=0)
STEPS: list[list[Operation]] = [
    *([upsert(Document(id=f"d{n}", text="moon tide"))] for n in range(7)),  # the last brings about a merge
    [delete("d0"), upsert(Document(id="d1", text="sea"))],
]


def index(root: Path, steps: Sequence[Sequence[Operation]]) -> None:
    log = Logs().open(root / "collections" / "c")
    for step in steps:
        log.append(step)
        drain(root, "c", word_overlap)
    log.close()


def cut_at_every_rename(monkeypatch: pytest.MonkeyPatch) -> int:
    """Index, and at each rename of `CURRENT`, and at the end, read what a power cut leaves."""
    cuts = 0
    with quick_directory() as root, quick_directory() as left:
        directory = create_collection(root, "c", SCHEMA)
        disk = Disk(directory)

        def cut(old: Path, new: Path) -> None:
            nonlocal cuts
            if new.name == CURRENT:
                cuts += 1
                before = Reading(directory).manifest.generation
                for renamed in (None, (old, new)):
                    survivor = Reading(disk.surviving(left / "c", renamed))
                    survivor.check()
                    assert survivor.manifest.generation == before + (renamed is not None)

        with monkeypatch.context() as patch:
            disk.watch(patch, cut)
            index(root, STEPS)
        survivor, there = Reading(disk.surviving(left / "c")), Reading(directory)
        survivor.check()
        assert survivor.manifest == there.manifest
        assert survivor.texts() == {f"d{n}": "sea" if n == 1 else "moon tide" for n in range(1, 7)}
        assert survivor.full_text("moon") == [f"d{n}" for n in range(2, 7)]
    return cuts


def test_a_power_cut_leaves_the_generation_before_or_the_one_published(monkeypatch: pytest.MonkeyPatch):
    assert cut_at_every_rename(monkeypatch) > len(STEPS), "each step publishes, and a merge"


@pytest.mark.parametrize(
    "forgotten",
    [
        "indexer.build.fsync_tree",
        "indexer.build.fsync_directory",
        "indexer.text_index.fsync_file",
        "indexer.text_index.fsync_directory",
        "indexer.writer.fsync_file",
        "indexer.writer.fsync_directory",
        "indexer.segment.manifest.fsync_directory",
        "indexer.segment.durable.fsync_directory",
        "indexer.segment.durable.write_file",
    ],
)
def test_whatever_is_not_synchronised_is_missed(forgotten: str, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(forgotten, lambda path, *data: path.write_bytes(data[0]) if data else None)
        with pytest.raises((AssertionError, CorruptFile, FileNotFoundError)):
            cut_at_every_rename(monkeypatch)
