"""Where logs are, and what happens when they are not there."""

import uuid
from pathlib import Path

import pytest

from indexer.collection import CollectionSchema, create_collection, drop_collection
from indexer.queue.contract import LogUnavailable, delete
from indexer.queue.logs import Logs, WrongLog, log_name
from indexer.queue.redis import RedisLog
from indexer.queue.server import Server
from tests.redis_server import RedisServer

ALL = (10**6, 10**9)


def make(root: Path) -> Path:
    return create_collection(root, "c", CollectionSchema(components=("bm25",)))


def test_a_log_in_redis_has_a_name_that_the_directory_keeps(tmp_path: Path, redis: RedisServer):
    directory = make(tmp_path)
    Logs(redis.url).open(directory).append([delete("a")])
    assert [entry.operation for entry in Logs(redis.url).open(directory).read(0, *ALL)] == [delete("a")]
    assert len(log_name(directory)) == 32


def test_a_collection_made_anew_has_a_log_of_its_own(tmp_path: Path, redis: RedisServer):
    logs = Logs(redis.url)
    logs.open(make(tmp_path)).append([delete("a")])
    drop_collection(tmp_path, "c")
    assert logs.open(make(tmp_path)).read(0, *ALL) == []


def test_a_log_is_not_looked_for_where_it_is_not(tmp_path: Path, redis: RedisServer):
    here, there = make(tmp_path / "here"), make(tmp_path / "there")
    Logs().open(here).close()
    Logs(redis.url).open(there)
    with pytest.raises(WrongLog, match="is a SQLite file: unset WINNOW_REDIS_URL"):
        Logs(redis.url).open(here)
    with pytest.raises(WrongLog, match="is in Redis: set WINNOW_REDIS_URL"):
        Logs().open(there)


def test_a_dropped_log_leaves_no_keys(redis: RedisServer):
    server = Server(redis.url)
    gone, other = RedisLog(server, uuid.uuid4().hex), RedisLog(server, uuid.uuid4().hex)
    for log in (gone, other):
        log.append([delete("a"), delete("b")])
        log.bury(1, "no", 3)
    gone.destroy()
    assert (gone.last_position(), gone.jobs(), gone.dead_letters()) == (0, [], [])
    assert (other.last_position(), len(other.jobs()), len(other.dead_letters())) == (2, 1, 1)


def test_what_was_acknowledged_is_there_after_the_server_was_killed(redis: RedisServer):
    server = Server(redis.url)
    log = RedisLog(server, "x")
    job, last = log.append([delete("a"), delete("b")])
    redis.kill()
    with pytest.raises(LogUnavailable, match="Redis cannot be reached"):
        log.append([delete("c")])
    assert "cannot be reached" in str(server.problem())
    redis.start()
    assert [entry.operation for entry in log.read(0, *ALL)] == [delete("a"), delete("b")]
    assert log.job(job).queued == last == 2
    assert server.problem() is None


@pytest.mark.parametrize("reopened", [False, True])
def test_a_server_that_lost_its_data_is_not_written_to(redis: RedisServer, reopened: bool):
    """Or else new operations would get positions that are applied already, and never come to be."""
    server = Server(redis.url)
    log = RedisLog(server, "x")
    log.append([delete("a"), delete("b")])
    with server.client() as client:
        client.flushall()
    if reopened:
        log = RedisLog(server, "x", applied=2)
    with pytest.raises(LogUnavailable, match="ends at operation 0, but operation 2 was there before"):
        log.append([delete("c")])


@pytest.mark.parametrize(
    ("setting", "value"),
    [("appendonly", "no"), ("appendfsync", "everysec"), ("maxmemory-policy", "allkeys-lru")],
)
def test_a_server_that_may_forget_is_named(redis: RedisServer, setting: str, value: str):
    server = Server(redis.url)
    with server.client() as client:
        client.config_set(setting, value)
    assert f"may lose what it acknowledged: it has {setting} {value}; it needs" in str(server.problem())


def test_a_full_server_says_that_it_is_full(redis: RedisServer):
    server = Server(redis.url)
    log = RedisLog(server, "x")
    with server.client() as client:
        client.config_set("maxmemory", 1)
    with pytest.raises(LogUnavailable, match="no space left") as caught:
        log.append([delete("a")])
    assert caught.value.errno == 28


def test_no_message_holds_the_password(redis: RedisServer):
    server = Server(redis.url.replace("//", "//winnow:secret@"))
    assert server.place == redis.url
    assert "secret" not in str(server.problem())


def test_thousands_of_operations_are_read_and_pruned_in_pieces(redis: RedisServer):
    log = RedisLog(Server(redis.url), "x")
    job, last = log.append([delete(str(number)) for number in range(2000)])
    entries = log.read(0, 1500, 10**9)
    assert [entry.operation.payload for entry in entries] == [b"%d" % number for number in range(1500)]
    log.prune(1999)
    assert [entry.position for entry in log.read(0, *ALL)] == [2000]
    assert (log.job(job).published, log.job(job).state) == (1999, "running")
    log.prune(last)
    assert log.job(job).state == "done"


def test_jobs_finished_long_ago_are_forgotten_but_not_their_dead_letters(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    log = RedisLog(Server(redis.url), "x")
    forgotten, _ = log.append([delete("a")])
    kept, last = log.append([delete("bad")])
    log.bury(last, "no", 3)
    log.prune(last)
    monkeypatch.setattr("indexer.queue.redis.KEPT_SECONDS", -1)
    log.prune(last)
    assert [job.id for job in log.jobs()] == [kept]
    assert log.job(forgotten) is None
    log.drop([last])
    log.prune(last)
    assert log.jobs() == []
