"""What every log of operations promises, asked of every implementation."""

import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from indexer.document import Document
from indexer.queue.contract import Entry, Log, Operation, Trial, delete, delete_where, upsert
from indexer.queue.redis import RedisLog
from indexer.queue.server import Server
from indexer.queue.sqlite import SqliteLog
from tests.redis_server import redis_server

EVERYTHING = (10**6, 10**9)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        server = Server(running.url)
        yield server
        server.close()


@pytest.fixture(params=["sqlite", "redis"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    if request.param == "sqlite":
        log: Log = SqliteLog(tmp_path / "log")
    else:
        log = RedisLog(request.getfixturevalue("server"), uuid.uuid4().hex)
    yield log
    log.close()


def deletes(*ids: str) -> list[Operation]:
    return [delete(each) for each in ids]


def payloads(entries: list[Entry]) -> list[bytes]:
    return [entry.operation.payload for entry in entries]


def test_operations_are_read_in_order_of_their_positions(log: Log):
    written = [upsert(Document(id="a", text="b")), delete("c"), delete_where({"year": 2020})]
    job, last = log.append(written)
    entries = log.read(0, *EVERYTHING)
    assert [entry.operation for entry in entries] == written
    assert entries == log.read(0, *EVERYTHING), "reading takes nothing away"
    assert {entry.job for entry in entries} == {job}
    assert last == entries[-1].position == log.last_position()


def test_reading_goes_on_after_a_position(log: Log):
    log.append(deletes("a", "b", "c"))
    first = log.read(0, 1, 10**9)
    assert payloads(first) == [b"a"]
    assert payloads(log.read(first[0].position, *EVERYTHING)) == [b"b", b"c"]


def test_reading_is_limited_by_bytes_but_never_stuck(log: Log):
    log.append(deletes("aaaa", "bbbb", "cc"))
    assert payloads(log.read(0, 100, 8)) == [b"aaaa", b"bbbb"]
    assert payloads(log.read(0, 100, 1)) == [b"aaaa"]


def test_positions_are_never_given_twice(log: Log):
    _, first = log.append(deletes("a"))
    log.prune(first)
    assert log.read(0, *EVERYTHING) == []
    assert log.last_position() == first
    _, second = log.append(deletes("b"))
    assert second > first


def test_an_empty_log_ends_at_zero(log: Log):
    assert log.last_position() == 0
    assert log.read(0, *EVERYTHING) == []
    assert log.jobs() == []


def test_nothing_to_do_is_done(log: Log):
    _, end = log.append(deletes("a"))
    job, last = log.append([])
    assert last == end
    assert log.job(job).state == "done"


def test_a_job_counts_from_queued_to_done(log: Log):
    job, last = log.append(deletes("a", "b", "c"))
    queued = log.job(job)
    assert (queued.state, queued.total, queued.queued, queued.published) == ("queued", 3, 3, 0)
    log.report_encoded({job: 2})
    running = log.job(job)
    assert (running.state, running.queued, running.encoded) == ("running", 3, 2)
    log.prune(last - 1)
    assert (log.job(job).published, log.job(job).encoded, log.job(job).state) == (2, 2, "running")
    log.prune(last)
    done = log.job(job)
    assert (done.state, done.queued, done.published, done.encoded, done.failed) == ("done", 0, 3, 3, 0)
    assert done.rate > 0


def test_pruning_twice_counts_once(log: Log):
    job, last = log.append(deletes("a", "b"))
    log.prune(last)
    log.prune(last)
    assert log.job(job).published == 2


def test_a_job_can_be_filled_piece_by_piece(log: Log):
    job, first = log.append(deletes("a"))
    log.prune(first)
    again, second = log.append(deletes("b"), job)
    assert again == job
    assert (log.job(job).total, log.job(job).state) == (2, "running")
    log.prune(second)
    assert log.job(job).state == "done"


def test_jobs_are_listed_newest_first_and_by_state(log: Log):
    first, _ = log.append(deletes("a"))
    second, last = log.append(deletes("b"))
    assert [job.id for job in log.jobs()] == [second, first]
    log.bury(last, "no", 3)
    assert [job.id for job in log.jobs("failed")] == [second]
    assert log.jobs("done") == []
    assert log.job("unheard of") is None


def test_a_dead_letter_leaves_the_queue_and_can_be_read(log: Log):
    before = time.time()
    job, last = log.append(deletes("good", "bad", "fine"))
    log.bury(last - 1, "it will not do", 3)
    assert payloads(log.read(0, *EVERYTHING)) == [b"good", b"fine"]
    (letter,) = log.dead_letters()
    assert (letter.position, letter.job, letter.operation) == (last - 1, job, delete("bad"))
    assert (letter.error, letter.tries) == ("it will not do", 3)
    assert before <= letter.time <= time.time()
    log.prune(last)
    state = log.job(job)
    assert (state.state, state.published, state.failed, state.queued) == ("failed", 2, 1, 0)


def test_burying_twice_buries_once(log: Log):
    job, last = log.append(deletes("bad"))
    log.bury(last, "no", 3)
    log.bury(last, "no", 3)
    assert len(log.dead_letters()) == log.job(job).failed == 1


def test_a_dead_letter_is_tried_again_in_a_new_place(log: Log):
    job, last = log.append(deletes("bad", "worse"))
    log.bury(last - 1, "no", 3)
    log.bury(last, "no", 3)
    assert log.retry([last, 999]) == 1
    (entry,) = log.read(last, *EVERYTHING)
    assert (entry.job, entry.operation) == (job, delete("worse"))
    assert [letter.position for letter in log.dead_letters(job)] == [last - 1]
    assert (log.job(job).failed, log.job(job).queued, log.job(job).state) == (1, 1, "queued")


def test_a_dropped_dead_letter_is_gone_and_stays_counted(log: Log):
    job, last = log.append(deletes("bad"))
    log.bury(last, "no", 3)
    assert log.drop([last]) == 1
    assert log.drop([last]) == 0
    assert log.dead_letters() == []
    assert log.retry([last]) == 0
    assert (log.job(job).state, log.job(job).failed) == ("failed", 1)


def test_dead_letters_of_one_job(log: Log):
    one, position = log.append(deletes("a"))
    two, _ = log.append(deletes("b"))
    log.bury(position, "no", 3)
    assert len(log.dead_letters(one)) == 1
    assert log.dead_letters(two) == []


def test_a_trial_stands_until_a_prune_covers_it(log: Log):
    assert log.trial() is None
    trial = Trial(last=7, size=4, tries=1)
    log.begin(Trial(last=3, size=512))
    log.begin(trial)
    log.prune(6)
    assert log.trial() == trial
    log.prune(7)
    assert log.trial() is None
    log.begin(trial)
    log.begin(None)
    assert log.trial() is None


def test_a_problem_shows_on_jobs_that_wait_for_it(log: Log):
    done, last = log.append(deletes("a"))
    log.prune(last)
    waiting, _ = log.append(deletes("b"))
    log.report_problem("the model is missing")
    assert log.job(waiting).error == "the model is missing"
    assert log.job(done).error is None
    log.report_problem(None)
    assert log.job(waiting).error is None


def test_threads_append_at_once_and_nothing_is_lost_or_mixed(log: Log):
    begin = threading.Barrier(8)

    def client(name: int) -> list[tuple[str, int]]:
        begin.wait()
        return [log.append(deletes(f"{name}-{turn}-0", f"{name}-{turn}-1")) for turn in range(10)]

    with ThreadPoolExecutor(8) as threads:
        answers = [answer for client_answers in threads.map(client, range(8)) for answer in client_answers]
    entries = log.read(0, *EVERYTHING)
    assert len(entries) == 160
    assert len({job for job, _ in answers}) == 80
    by_position = {entry.position: entry for entry in entries}
    for job, last in answers:
        pair = by_position[last - 1], by_position[last]
        assert {entry.job for entry in pair} == {job}
        assert [entry.operation.payload[-1:] for entry in pair] == [b"0", b"1"]
