"""Who may write a collection that machines share."""

import time
from pathlib import Path

import pytest

from indexer.collection import CollectionSchema, create_collection
from indexer.lock import Lock, Locked
from indexer.queue.lease import Lease, Leased
from indexer.queue.server import Server
from tests.redis_server import RedisServer


@pytest.fixture
def server(redis: RedisServer) -> Server:
    return Server(redis.url)


def test_a_worker_of_another_machine_waits_until_the_lease_is_let_go(server: Server):
    here = Lease(server, "x", machine="here")
    with pytest.raises(Leased, match="a worker of another machine has it for at least"):
        Lease(server, "x", machine="there")
    here.release()
    assert Lease(server, "x", machine="there").stands()
    assert not here.renew(), "it is another's now"
    assert not here.stands()


def test_a_lease_outlives_its_time_while_it_is_renewed(server: Server):
    lease = Lease(server, "x", seconds=0.3, machine="here")
    time.sleep(1.0)
    assert lease.stands()
    with pytest.raises(Leased):
        Lease(server, "x", machine="there")


def test_a_lease_that_is_not_renewed_runs_out(server: Server, redis: RedisServer):
    lease = Lease(server, "x", seconds=0.5, machine="here")
    redis.kill()
    time.sleep(1.0)
    assert not lease.stands(), "its holder knows by its own clock, without Redis"
    redis.start()
    assert Lease(server, "x", machine="there").stands()


def test_a_dead_holder_of_this_machine_is_not_waited_for(server: Server):
    """Whoever asks has the lock on the file, so whoever had it is dead."""
    dead = Lease(server, "x", machine="here")
    assert Lease(server, "x", machine="here").stands()
    assert not dead.renew()


def test_whoever_lost_the_lease_may_not_publish(server: Server, tmp_path: Path):
    directory = create_collection(tmp_path, "c", CollectionSchema(components=("bm25",)))
    lock = Lock(directory, lambda: Lease(server, "x", machine="here"))
    lock.require()
    with server.client() as client:
        client.set("winnow:{x}:lease", "there 1")
    with pytest.raises(Locked, match="another machine has taken over collection 'c'"):
        lock.require()
    assert not lock.stands()


def test_a_lock_whose_lease_is_taken_lets_go_of_the_file(server: Server, tmp_path: Path):
    directory = create_collection(tmp_path, "c", CollectionSchema(components=("bm25",)))
    there = Lease(server, "x", machine="there")
    with pytest.raises(Locked, match="'c' has a writer already: a worker of another machine"):
        Lock(directory, lambda: Lease(server, "x", machine="here"))
    there.release()
    Lock(directory, lambda: Lease(server, "x", machine="here")).release()
