"""The log of operations in Redis, for several processes and machines: a stream for each collection.

Every change of more than one key is a script, which Redis runs alone and whole, so that a client that dies in
the middle leaves nothing half-done. What makes an answer durable is Redis' own setting: with `appendonly yes`
and `appendfsync always` it answers when its file is on the disk. Nothing is sent twice by itself: an append
whose answer is lost may have happened, and another client's may have come after it.
"""

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from indexer.queue.contract import DeadLetter, Entry, Job, Operation, State, Trial
from indexer.queue.lua import APPEND, BURY, DROP, ENCODED, PRUNE, RETRY
from indexer.queue.progress import KEPT_JOBS, KEPT_SECONDS, Progress
from indexer.queue.server import Server

READ_AT_ONCE = 256
PRUNED_AT_ONCE = 512


class RedisLog:
    """The `Log` called `name` on a Redis server; keys begin with `winnow:{name}:`.

    `applied` is what a manifest covers already: a log that ends before it has lost what was acknowledged,
    and refuses to be appended to. Nothing is asked of the server before the first call.
    """

    def __init__(self, server: Server, name: str, applied: int = 0) -> None:
        self.place = f"{server.place}, keys winnow:{{{name}}}:*"
        self._server = server
        self._prefix = f"winnow:{{{name}}}:"
        self._end = applied

    def append(self, operations: Sequence[Operation], job: str | None = None) -> tuple[str, int]:
        """See `Log.append`."""
        job = job or uuid.uuid4().hex
        fields = [field for each in operations for field in (each.kind, each.payload)]
        last = int(self._run(APPEND, self._end, job, time.time(), *fields))
        self._end = max(self._end, last)
        return job, last

    def read(self, after: int, most_operations: int, most_bytes: int) -> list[Entry]:
        """See `Log.read`."""
        entries: list[Entry] = []
        while len(entries) < most_operations:
            count = min(READ_AT_ONCE, most_operations - len(entries))
            found = self._read(entries[-1].position if entries else after, count)
            for entry in found:
                most_bytes -= len(entry.operation.payload)
                if entries and most_bytes < 0:
                    return entries
                entries.append(entry)
            if len(found) < count:
                break
        return entries

    def last_position(self) -> int:
        """See `Log.last_position`."""
        with self._server.client() as client:
            return int(client.hget(self._key("meta"), "last") or 0)

    def prune(self, applied: int) -> None:
        """See `Log.prune`. Also forgets jobs finished long ago."""
        now = time.time()
        arguments = (applied, now, PRUNED_AT_ONCE, now - KEPT_SECONDS, KEPT_JOBS)
        while int(self._run(PRUNE, *arguments)):
            pass

    def job(self, job: str) -> Job | None:
        """See `Log.job`."""
        return next(iter(self._jobs([job.encode()])), None)

    def jobs(self, state: State | None = None) -> list[Job]:
        """See `Log.jobs`."""
        with self._server.client() as client:
            names = client.zrevrange(self._key("jobs"), 0, -1)
        return [job for job in self._jobs(names) if state in (None, job.state)]

    def report_encoded(self, encoded: Mapping[str, int]) -> None:
        """See `Log.report_encoded`."""
        self._run(ENCODED, time.time(), *(field for pair in encoded.items() for field in pair))

    def report_problem(self, problem: str | None) -> None:
        """See `Log.report_problem`."""
        self._set("problem", problem)

    def trial(self) -> Trial | None:
        """See `Log.trial`."""
        with self._server.client() as client:
            found = client.hget(self._key("meta"), "trial")
        return None if found is None else Trial(*map(int, found.split()))

    def begin(self, trial: Trial | None) -> None:
        """See `Log.begin`."""
        self._set("trial", None if trial is None else f"{trial.last} {trial.size} {trial.tries}")

    def bury(self, position: int, error: str, tries: int) -> None:
        """See `Log.bury`."""
        self._run(BURY, position, error, tries, time.time())

    def dead_letters(self, job: str | None = None) -> list[DeadLetter]:
        """See `Log.dead_letters`."""
        with self._server.client() as client, client.pipeline(transaction=False) as pipeline:
            for position in client.zrange(self._key("dead"), 0, -1):
                pipeline.hgetall(self._key(f"dead:{int(position)}"))
            found = [_dead_letter(fields) for fields in pipeline.execute() if fields]
        return [letter for letter in found if job in (None, letter.job)]

    def retry(self, positions: Sequence[int]) -> int:
        """See `Log.retry`."""
        return int(self._run(RETRY, *positions))

    def drop(self, positions: Sequence[int]) -> int:
        """See `Log.drop`."""
        return int(self._run(DROP, *positions))

    def close(self) -> None:
        """See `Log.close`. The connections are the server's."""

    def destroy(self) -> None:
        """See `Log.destroy`."""
        with self._server.client() as client:
            names = client.scan_iter(match=_escaped(self._prefix) + "*", count=1000)
            for name in names:
                client.unlink(name)

    def _read(self, after: int, count: int) -> list[Entry]:
        with self._server.client() as client:
            streams = client.xread({self._key("stream"): f"{after}-0"}, count=count)
        return [_entry(place, fields) for _, found in streams for place, fields in found]

    def _jobs(self, names: Sequence[bytes]) -> list[Job]:
        with self._server.client() as client, client.pipeline(transaction=False) as pipeline:
            pipeline.hget(self._key("meta"), "problem")
            for name in names:
                pipeline.hgetall(self._key(f"job:{name.decode()}"))
            problem, *found = pipeline.execute()
        said = None if problem is None else problem.decode()
        return [_job(name.decode(), row, said) for name, row in zip(names, found, strict=True) if row]

    def _set(self, field: str, value: str | None) -> None:
        with self._server.client() as client:
            if value is None:
                client.hdel(self._key("meta"), field)
            else:
                client.hset(self._key("meta"), field, value)

    def _run(self, script: str, *arguments: Any) -> Any:
        return self._server.run(script, self._prefix, arguments)

    def _key(self, name: str) -> str:
        return self._prefix + name


def _escaped(prefix: str) -> str:
    return prefix.replace("{", "[{]").replace("}", "[}]")


def _entry(place: bytes, fields: Mapping[bytes, bytes]) -> Entry:
    kind: Any = fields[b"kind"].decode()
    operation = Operation(kind, fields[b"payload"])
    return Entry(int(place.split(b"-")[0]), fields[b"job"].decode(), operation)


def _dead_letter(fields: Mapping[bytes, bytes]) -> DeadLetter:
    kind: Any = fields[b"kind"].decode()
    return DeadLetter(
        position=int(fields[b"position"]),
        job=fields[b"job"].decode(),
        operation=Operation(kind, fields[b"payload"]),
        error=fields[b"error"].decode(),
        tries=int(fields[b"tries"]),
        time=float(fields[b"time"]),
    )


def _job(name: str, fields: Mapping[bytes, bytes], problem: str | None) -> Job:
    def seconds(field: bytes) -> float | None:
        return float(fields[field]) if field in fields else None

    def count(field: bytes) -> int:
        return int(fields.get(field, 0))

    progress = Progress(
        total=count(b"total"),
        published=count(b"published"),
        failed=count(b"failed"),
        underway=count(b"underway"),
        created=float(fields[b"created"]),
        started=seconds(b"started"),
        finished=seconds(b"finished"),
    )
    return progress.job(name, problem)
