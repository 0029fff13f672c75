"""From the log to a published generation: what becomes visible, in which order, and what never does."""

import errno
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.collection import CollectionSchema, create_collection
from indexer.document import Document
from indexer.encoders import Encoders, WrongEncoder
from indexer.feeder import Feeder
from indexer.lock import Locked
from indexer.queue.contract import Operation, Trial, delete, delete_where, upsert
from indexer.queue.logs import Logs
from indexer.segment.arrays import CorruptFile
from indexer.text_index import TextIndex
from indexer.trial import TRIES
from indexer.worker import drain
from tests.full_disk import files_at_most
from tests.indexer.reading import Reading, quick_directory
from tests.nets import WordOverlapEncoder, WordOverlapSparseEncoder, loading, word_overlap

SCHEMA = CollectionSchema(language="none", passage_tokens=16, overlap_sentences=0)
WORDS_ONLY = CollectionSchema(language="none", components=("bm25",))


class Choosy(WordOverlapEncoder):
    """Does what it is told to do to texts that hold a word."""

    def __init__(self, **reactions: BaseException) -> None:
        super().__init__()
        self.reactions = reactions
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[str], *args: Any, **options: Any) -> Any:
        for word, reaction in self.reactions.items():
            if any(word in text.split() for text in texts):
                raise reaction
        self.encoded += texts
        return super().encode(texts, *args, **options)


class Collection:
    """A collection with its log, and an indexer when a test asks for one."""

    def __init__(self, root: Path, schema: CollectionSchema = SCHEMA) -> None:
        self.root = root
        self.directory = create_collection(root, "c", schema)
        self.log = Logs().open(self.directory)

    def write(self, *operations: Operation) -> str:
        return self.log.append(operations)[0]

    def drain(self, encoder: WordOverlapEncoder | None = None) -> None:
        drain(self.root, "c", loading(dense=encoder))

    @contextmanager
    def feeder(self, encoder: WordOverlapEncoder | None = None) -> Iterator[Feeder]:
        with ThreadPoolExecutor(1) as merging:
            feeder = Feeder(self.directory, Logs(), Encoders(loading(dense=encoder)), merging)
            try:
                yield feeder
            finally:
                feeder.close()

    def read(self) -> Reading:
        reading = Reading(self.directory)
        reading.check()
        return reading


@pytest.fixture
def collection() -> Iterator[Collection]:
    with quick_directory() as root:
        yield Collection(root)


def put(name: str, text: str = "some words", **metadata: Any) -> Operation:
    return upsert(Document(id=name, text=text, metadata=metadata))


def test_what_is_written_can_be_found(collection: Collection):
    job = collection.write(put("a", "moon and tide"), put("b", "cats"))
    collection.drain()
    reading = collection.read()
    assert reading.texts() == {"a": "moon and tide", "b": "cats"}
    assert [name for name, _ in reading.bm25("tide")] == ["a"]
    assert reading.full_text("cats") == ["b"]
    assert reading.dense("moon and tide")[0] == ("a", pytest.approx(1.0, abs=0.01))
    assert collection.log.job(job).state == "done"
    assert reading.manifest.position == collection.log.last_position()
    assert reading.manifest.fingerprints == {
        "dense": WordOverlapEncoder.fingerprint,
        "sparse": WordOverlapSparseEncoder.fingerprint,
    }


def test_an_update_replaces_and_a_delete_removes_all_passages(collection: Collection):
    long = "old words here. " * 40
    collection.write(put("a", long), put("b", long), put("c", long))
    collection.drain()
    assert collection.read().manifest.statistics.passages > 10
    collection.write(put("a", "new"), delete("b"), delete("never there"))
    collection.drain()
    reading = collection.read()
    assert reading.ids() == ["c", "a"]
    assert reading.texts()["a"] == "new"
    assert {name for name, _ in reading.bm25("old")} == set(reading.full_text("old")) == {"c"}
    assert reading.full_text("new") == ["a"]


def test_the_last_operation_of_an_id_counts(collection: Collection):
    collection.write(put("a", "1"), put("b", "1"), delete("a"), put("b", "2"), put("c", "1"), put("a", "3"))
    collection.drain()
    assert collection.read().texts() == {"b": "2", "c": "1", "a": "3"}
    assert collection.read().ids() == ["b", "c", "a"]
    collection.write(put("d"), delete("d"), delete("a"))
    collection.drain()
    assert collection.read().ids() == ["b", "c"]


def test_a_delete_by_filter_takes_what_was_there_when_its_turn_came(collection: Collection):
    collection.write(put("a", year=1), put("b", year=2), delete_where({"year": 1}), put("c", year=1))
    collection.write(delete_where({"year": {"gte": 2}}), delete_where({"year": 3}))
    collection.drain()
    assert collection.read().ids() == ["c"]


def test_a_generation_without_live_passages_is_empty(collection: Collection):
    collection.write(put("a"))
    collection.drain()
    collection.write(delete("a"))
    collection.drain()
    reading = collection.read()
    assert reading.manifest.segments == ()
    assert reading.ids() == reading.full_text("some") == []


def test_words_alone_need_no_encoder():
    def load(role: str, name: str) -> WordOverlapEncoder:
        raise AssertionError("nobody should want an encoder")

    with quick_directory() as root:
        collection = Collection(root, WORDS_ONLY)
        collection.write(put("a", "tide"))
        drain(root, "c", load)
        assert [name for name, _ in collection.read().bm25("tide")] == ["a"]


def test_vectors_alone_need_no_postings():
    with quick_directory() as root:
        collection = Collection(root, CollectionSchema(components=("dense",)))
        collection.write(put("a", "tide"), put("b", "moon"), delete("b"))
        collection.drain()
        assert [name for name, _ in collection.read().dense("tide")] == ["a"]
        assert collection.read().manifest.lexical is None


def test_what_a_generation_covers_is_not_applied_again(collection: Collection):
    collection.write(put("a"))
    with collection.feeder() as feeder:
        feeder.log.prune = lambda applied: None  # as if it died after publishing
        feeder.step()
    generation = collection.read().manifest.generation
    encoder = Choosy()
    collection.drain(encoder)
    assert encoder.encoded == []
    assert collection.read().manifest.generation == generation
    assert collection.log.read(0, 10, 1000) == []
    assert collection.read().ids() == ["a"]


def test_progress_counts_operations(collection: Collection):
    collection.write(*(put(str(number)) for number in range(20)))
    heard: list[tuple[int, int]] = []
    drain(collection.root, "c", word_overlap, lambda *each: heard.append(each))
    assert heard[-1] == (20, 20)
    assert heard == sorted(heard)


def test_an_operation_that_fails_is_given_up_and_the_others_are_applied(collection: Collection):
    encoder = Choosy(poison=ValueError("this one will not do"))
    names = [str(number) for number in range(100)]
    job = collection.write(*(put(name, "poison" if name == "42" else "fine") for name in names))
    collection.drain(encoder)
    assert sorted(collection.read().ids()) == sorted(set(names) - {"42"})
    (letter,) = collection.log.dead_letters()
    assert Document.from_json(letter.operation.payload).id == "42"
    assert (letter.error, letter.tries) == ("ValueError: this one will not do", TRIES)
    state = collection.log.job(job)
    assert (state.state, state.published, state.failed) == ("failed", 99, 1)
    assert collection.read().manifest.position == collection.log.last_position()


def test_a_dead_letter_at_the_end_lets_the_position_pass(collection: Collection):
    collection.write(put("a", "poison"))
    collection.drain(Choosy(poison=ValueError("no")))
    assert collection.read().manifest.position == collection.log.last_position() == 1
    collection.log.retry([letter.position for letter in collection.log.dead_letters()])
    collection.drain()
    assert collection.read().ids() == ["a"]
    assert [job.state for job in collection.log.jobs()] == ["done"]


def test_several_bad_operations_are_all_found(collection: Collection):
    collection.write(*(put(str(number), "poison" if number % 10 == 3 else "fine") for number in range(50)))
    collection.drain(Choosy(poison=ValueError("no")))
    assert len(collection.log.dead_letters()) == 5
    assert len(collection.read().ids()) == 45


def test_payloads_that_cannot_be_read_are_given_up(collection: Collection):
    unreadable = Operation("upsert", b'{"id": 1}'), Operation("delete_where", b'{"$no": 1}')
    collection.write(put("a"), *unreadable, Operation("from the future", b"a"))
    collection.drain()
    assert collection.read().ids() == ["a"]
    assert len(collection.log.dead_letters()) == 3


def test_an_operation_that_kills_the_indexer_is_found_too(collection: Collection):
    class SuddenDeath(BaseException):
        pass

    collection.write(*(put(str(number), "deadly" if number == 5 else "fine") for number in range(20)))
    deaths = 0
    while collection.read().manifest.position < 20:
        try:
            collection.drain(Choosy(deadly=SuddenDeath()))
        except SuddenDeath:
            deaths += 1
    (letter,) = collection.log.dead_letters()
    assert Document.from_json(letter.operation.payload).id == "5"
    assert "died" in letter.error
    assert deaths == 1 + 1 + TRIES, "20 operations, then 2, then 1 three times"
    assert len(collection.read().ids()) == 19


def test_a_death_that_had_another_reason_accuses_nobody(collection: Collection):
    collection.write(put("a"))
    with collection.feeder() as feeder:
        feeder._trial = Trial(1, 1)
        feeder.log.begin(feeder._trial)
        feeder.excuse()
    assert collection.log.trial() is None


def test_an_interrupted_batch_accuses_nobody(collection: Collection):
    collection.write(put("a", "slow"))
    with pytest.raises(KeyboardInterrupt):
        collection.drain(Choosy(slow=KeyboardInterrupt()))
    assert collection.log.trial() is None


def test_a_missing_encoder_leaves_operations_queued(collection: Collection):
    def missing(role: str, name: str) -> WordOverlapEncoder:
        raise RuntimeError("install it with pip")

    job = collection.write(put("a"))
    with pytest.raises(RuntimeError, match="install it"):
        drain(collection.root, "c", missing)
    assert collection.log.job(job).queued == 1
    assert collection.log.trial() is None
    collection.drain()
    assert collection.read().ids() == ["a"]


def test_deletes_need_no_encoder(collection: Collection):
    collection.write(put("a"))
    collection.drain()
    collection.write(delete("a"))
    drain(collection.root, "c", lambda role, name: 1 / 0)
    assert collection.read().ids() == []


class Newer(WordOverlapEncoder):
    fingerprint = "another"


class NewerSparse(WordOverlapSparseEncoder):
    fingerprint = "another"


@pytest.mark.parametrize("newer", [{"dense": Newer()}, {"sparse": NewerSparse()}])
def test_vectors_of_two_encoders_are_never_mixed(collection: Collection, newer: dict[str, Any]):
    collection.write(put("a"))
    collection.drain()
    collection.write(put("b"))
    with pytest.raises(WrongEncoder, match=f"the {next(iter(newer))} part .* another is installed"):
        drain(collection.root, "c", loading(**newer))
    assert collection.log.job(collection.log.jobs()[0].id).queued == 1
    assert collection.read().ids() == ["a"]


@pytest.mark.parametrize("size", [100, 20_000, 60_000])
def test_a_full_disk_accuses_no_operation_and_heals(collection: Collection, size: int):
    collection.write(put("a"))
    collection.drain()
    collection.write(*(put(f"b{number}", f"word{number} " * 200) for number in range(50)))
    with files_at_most(size), pytest.raises(OSError) as caught:  # noqa: PT011
        collection.drain()
    assert caught.value.errno in (errno.EFBIG, errno.ENOSPC, errno.EIO)
    assert collection.read().ids() == ["a"]
    collection.drain()
    assert len(collection.read().ids()) == 51
    assert collection.log.dead_letters() == []


def test_a_full_disk_in_the_full_text_index_is_no_operations_fault(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
):
    collection.write(put("a"))
    collection.drain()
    collection.write(put("b", "some words"))
    with collection.feeder() as feeder:
        prepare = TextIndex.change

        def change(*arguments: Any) -> Any:
            with files_at_most(10):
                return prepare(*arguments)

        monkeypatch.setattr(TextIndex, "change", change)
        with pytest.raises(OSError, match="full-text index"):
            feeder.step()
        monkeypatch.undo()
        feeder.step()
    assert collection.log.dead_letters() == []
    assert collection.read().full_text("words") == ["a", "b"]


def test_an_error_inside_leaves_the_feeder_able_to_go_on(collection: Collection):
    encoder = Choosy(full=OSError(errno.ENOSPC, "the disk is full"))
    collection.write(put("a", "full"))
    with collection.feeder(encoder) as feeder:
        with pytest.raises(OSError, match="full"):
            feeder.step()
        encoder.reactions = {}
        assert feeder.step()
    assert collection.read().ids() == ["a"]


def test_a_second_writer_is_refused(collection: Collection):
    with collection.feeder(), pytest.raises(Locked, match="has a writer already, process"):
        collection.drain()
    collection.drain()


def test_a_log_that_is_not_the_indexs_own_is_refused(collection: Collection):
    collection.write(put("a"), put("b"))
    collection.drain()
    collection.log.close()
    for path in collection.directory.glob("log.sqlite*"):
        path.unlink()
    with pytest.raises(CorruptFile, match="ends at operation 0, but the index has applied 2"):
        collection.drain()


def test_superseded_files_stay_for_a_while_and_go(collection: Collection, monkeypatch: pytest.MonkeyPatch):
    collection.write(put("a"))
    with collection.feeder() as feeder:
        feeder.step()
        before = Reading(collection.directory)
        collection.write(put("a", "new"))
        feeder.step()
        assert before.named() - {"CURRENT"} < Reading(collection.directory).files()
        monkeypatch.setattr("indexer.writer.KEPT_SECONDS", 0.0)
        collection.write(put("b", "new"))
        feeder.step()
        feeder.writer._retired.clear()
        feeder.writer._sweep()
        after = Reading(collection.directory)
        assert after.files() == after.named()


def test_what_a_crash_left_behind_is_swept_at_the_start(collection: Collection):
    collection.write(put("a"))
    collection.drain()
    for name in ("segments/000099", "lexical-000099"):
        (collection.directory / name).mkdir()
        (collection.directory / name / "half.bin").write_bytes(b"half")
    for name in ("tombstones/000001-000099", "manifest-000099.json", "CURRENT.tmp"):
        (collection.directory / name).write_bytes(b"half")
    collection.drain()
    reading = collection.read()
    assert reading.files() == reading.named()
    assert reading.ids() == ["a"]


def test_many_batches_end_in_few_segments(collection: Collection):
    for number in range(25):
        collection.write(put(str(number), "word"), delete_where({"_id": str(number - 10)}))
    collection.drain()
    reading = collection.read()
    assert len(reading.manifest.segments) <= 10
    assert reading.ids() == [str(number) for number in range(15, 25)]
    assert sorted(reading.full_text("word")) == sorted(reading.ids())


def test_what_is_deleted_while_a_merge_runs_stays_deleted(collection: Collection):
    with collection.feeder() as feeder:
        for name in "abcdef":
            collection.write(put(name, name * 3))
            feeder._apply(None)
        merge = feeder.writer.plan_merge()
        assert len(merge.parts) == 6
        entry = merge.run(collection.directory)
        collection.write(delete("b"), put("c", "changed"))
        feeder._apply(None)
        feeder.writer.take_in(merge, entry)
        reading = collection.read()
        assert [part.entry.name for part in reading.parts] == [merge.name, "000007"]
        assert reading.ids() == ["a", "d", "e", "f", "c"]
        assert reading.texts()["c"] == "changed"
        assert reading.full_text("bbb ccc ddd") == ["d"]


def test_a_merge_whose_passages_have_all_died_comes_to_nothing(collection: Collection):
    with collection.feeder() as feeder:
        for name in "abcdef":
            collection.write(put(name))
            feeder._apply(None)
        merge = feeder.writer.plan_merge()
        entry = merge.run(collection.directory)
        collection.write(*(delete(name) for name in "abcdef"), put("g"))
        feeder._apply(None)
        feeder.writer.take_in(merge, entry)
        assert collection.read().ids() == ["g"]
        assert len(collection.read().parts) == 1


def test_a_merge_that_fails_is_left_for_later(collection: Collection, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "the disk is full")

    monkeypatch.setattr("indexer.merge.merge_store", fail)
    for name in "abcdefgh":
        collection.write(put(name), delete_where({"_id": "?"}))
    collection.drain()
    assert len(collection.read().parts) == 8
    monkeypatch.undo()
    collection.drain()
    assert len(collection.read().parts) < 8


def test_a_damaged_segment_is_left_as_it_is_and_the_others_are_merged(
    collection: Collection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("indexer.feeder.MERGE_PAUSE", 0.0)
    for name in "abcdefg":
        collection.write(put(name))
        if name < "f":
            collection.drain()
    damaged = collection.read().manifest.segments[0].name
    path = collection.directory / "segments" / damaged / "lexical.bin"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    collection.drain()
    collection.write(put("h"))
    collection.drain()
    reading = Reading(collection.directory)
    assert f"segment {damaged} is damaged and is left as it is" in caplog.text
    assert reading.manifest.segments[0].name == damaged
    assert len(reading.parts) == 2
    assert reading.ids() == list("abcdefgh")


TEXTS = st.lists(st.sampled_from(["tide", "moon", "sea", "rises.", "falls."]), max_size=30).map(" ".join)
CHANGES = st.one_of(
    st.builds(lambda name, text: put(name, text, of=name), st.sampled_from("abcdefgh"), TEXTS),
    st.builds(delete, st.sampled_from("abcdefgh")),
    st.builds(lambda name: delete_where({"of": name}), st.sampled_from("abcdefgh")),
)


def answers(root: Path, batches: Sequence[Sequence[Operation]]) -> list[Any]:
    """Index the batches one by one; give what searches find."""
    collection = Collection(root)
    with collection.feeder() as feeder:
        for batch in batches:
            collection.write(*batch)
            while feeder.step() or feeder.finish_merge():
                pass
    reading = collection.read()
    queries = ("tide", "moon sea sea", "falls")
    return [
        reading.texts(),
        reading.ids(),
        reading.manifest.statistics,
        *(reading.bm25(query) for query in queries),
        *(reading.dense(query) for query in queries),
    ]


@settings(max_examples=15, deadline=None)
@given(st.lists(CHANGES, min_size=1, max_size=24), st.data())
def test_rankings_do_not_depend_on_how_operations_were_cut_into_batches(
    changes: list[Operation], data: st.DataObject
):
    cuts = sorted(data.draw(st.sets(st.integers(1, len(changes)), max_size=len(changes))))
    batches = [changes[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(changes)], strict=True)]
    with quick_directory() as one, quick_directory() as many:
        assert answers(one, [changes]) == answers(many, [batch for batch in batches if batch])
