"""The log of operations in one SQLite file, for one machine: the service appends, the worker prunes.

Write-ahead logging lets both work at once. An append costs one fsync, and threads that append at the same
time share it (one commits for all who wait), since a commit takes milliseconds and a row microseconds.
What only counts progress is written without waiting for the disk.
"""

import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection as Database
from threading import Lock
from typing import Any

from indexer.queue.connection import Connection
from indexer.queue.contract import DeadLetter, Entry, Job, Operation, State, Trial
from indexer.queue.progress import KEPT_JOBS, KEPT_SECONDS, Progress

FREED_PAGES = 1 << 16

_TABLES = (
    """CREATE TABLE IF NOT EXISTS operations (
        position INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT NOT NULL,
        kind TEXT NOT NULL, payload BLOB NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS jobs (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, created REAL NOT NULL, total INTEGER NOT NULL,
        published INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0,
        underway INTEGER NOT NULL DEFAULT 0, started REAL, finished REAL)""",
    "CREATE INDEX IF NOT EXISTS jobs_by_finish ON jobs (finished)",
    """CREATE TABLE IF NOT EXISTS dead_letters (
        position INTEGER PRIMARY KEY, job TEXT NOT NULL, kind TEXT NOT NULL, payload BLOB NOT NULL,
        error TEXT NOT NULL, tries INTEGER NOT NULL, time REAL NOT NULL)""",
    "CREATE TABLE IF NOT EXISTS trial (last INTEGER NOT NULL, size INTEGER NOT NULL, tries INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS problem (sentence TEXT NOT NULL)",
)

_JOBS = """
    SELECT id, created, total, published, failed, underway, started, finished, (SELECT sentence FROM problem)
    FROM jobs """
_PUBLISHED = """
    UPDATE jobs
    SET published = published + covered.number, underway = 0, started = coalesce(started, :now)
    FROM (SELECT job, count(*) AS number FROM operations WHERE position <= :applied GROUP BY job) AS covered
    WHERE jobs.id = covered.job"""
_FINISHED = "UPDATE jobs SET finished = :now WHERE finished IS NULL AND published + failed >= total"
_FORGOTTEN = """
    DELETE FROM jobs WHERE id NOT IN (SELECT job FROM dead_letters) AND finished IS NOT NULL
    AND (finished < :oldest OR number <= (SELECT max(number) FROM jobs) - :kept)"""
_BURIED = """
    INSERT INTO dead_letters SELECT position, job, kind, payload, :error, :tries, :now
    FROM operations WHERE position = :position"""
_FAILED = """
    UPDATE jobs SET failed = failed + 1, underway = 0
    WHERE id = (SELECT job FROM operations WHERE position = :position)"""
_COUNTED = """
    INSERT INTO jobs (id, created, total) VALUES (:job, :now, :operations)
    ON CONFLICT (id) DO UPDATE SET total = total + :operations, finished = NULL"""
_INSERT = "INSERT INTO operations (job, kind, payload) VALUES (?, ?, ?)"


@dataclass(slots=True)
class _Append:
    """An append waiting for its group; whoever commits fills in the position or the error."""

    operations: Sequence[Operation]
    job: str
    last: int | None = None
    error: BaseException | None = None


class SqliteLog:
    """The `Log` of one collection in the file `path`, which is made if it is not there."""

    def __init__(self, path: Path) -> None:
        self.place = str(path)
        self._durable = Connection(path, synchronous="FULL")
        self._quick = Connection(path, synchronous="NORMAL")
        self._reader = Connection(path, synchronous="NORMAL")
        self._turn = Lock()
        self._waiting: deque[_Append] = deque()
        with self._durable.transaction() as database:
            for table in _TABLES:
                database.execute(table)

    def append(self, operations: Sequence[Operation], job: str | None = None) -> tuple[str, int]:
        """See `Log.append`. Whoever gets the turn commits for all who wait."""
        request = _Append(operations, job or uuid.uuid4().hex)
        self._waiting.append(request)
        with self._turn:
            if request.last is None and request.error is None:
                self._commit_waiting()
        if request.error is not None:
            raise request.error
        assert request.last is not None
        return request.job, request.last

    def _commit_waiting(self) -> None:
        group = []
        while self._waiting:
            group.append(self._waiting.popleft())
        try:
            with self._durable.transaction() as database:
                positions = [_insert(database, each.operations, each.job) for each in group]
        except BaseException as error:
            for each in group:
                each.error = error
            raise
        for each, position in zip(group, positions, strict=True):
            each.last = position

    def read(self, after: int, most_operations: int, most_bytes: int) -> list[Entry]:
        """See `Log.read`."""
        query = (
            "SELECT position, job, kind, payload FROM operations WHERE position > ? ORDER BY position LIMIT ?"
        )
        entries: list[Entry] = []
        with self._reader.rows(query, (after, most_operations)) as rows:
            for position, job, kind, payload in rows:
                most_bytes -= len(payload)
                if entries and most_bytes < 0:
                    break
                entries.append(Entry(position, job, Operation(kind, payload)))
        return entries

    def last_position(self) -> int:
        """See `Log.last_position`."""
        with self._reader.rows("SELECT seq FROM sqlite_sequence WHERE name = 'operations'") as rows:
            return next((int(position) for (position,) in rows), 0)

    def prune(self, applied: int) -> None:
        """See `Log.prune`. Also forgets jobs finished long ago and gives freed space back."""
        now = time.time()
        with self._quick.transaction() as database:
            database.execute(_PUBLISHED, {"applied": applied, "now": now})
            database.execute("DELETE FROM operations WHERE position <= ?", (applied,))
            database.execute("DELETE FROM trial WHERE last <= ?", (applied,))
            database.execute(_FINISHED, {"now": now})
            oldest = {"oldest": now - KEPT_SECONDS, "kept": KEPT_JOBS}
            database.execute(_FORGOTTEN, oldest)
        if applied >= self.last_position():
            self._quick.shrink(FREED_PAGES)

    def job(self, job: str) -> Job | None:
        """See `Log.job`."""
        with self._reader.rows(_JOBS + "WHERE id = ?", (job,)) as rows:
            return next(map(_job, rows), None)

    def jobs(self, state: State | None = None) -> list[Job]:
        """See `Log.jobs`."""
        with self._reader.rows(_JOBS + "ORDER BY number DESC") as rows:
            return [job for job in map(_job, rows) if state in (None, job.state)]

    def report_encoded(self, encoded: Mapping[str, int]) -> None:
        """See `Log.report_encoded`."""
        now = time.time()
        with self._quick.transaction() as database:
            database.executemany(
                "UPDATE jobs SET underway = ?, started = coalesce(started, ?) WHERE id = ?",
                [(count, now, job) for job, count in encoded.items()],
            )

    def report_problem(self, problem: str | None) -> None:
        """See `Log.report_problem`."""
        with self._quick.transaction() as database:
            database.execute("DELETE FROM problem")
            if problem is not None:
                database.execute("INSERT INTO problem VALUES (?)", (problem,))

    def trial(self) -> Trial | None:
        """See `Log.trial`."""
        with self._reader.rows("SELECT last, size, tries FROM trial") as rows:
            return next((Trial(*row) for row in rows), None)

    def begin(self, trial: Trial | None) -> None:
        """See `Log.begin`."""
        with self._quick.transaction() as database:
            database.execute("DELETE FROM trial")
            if trial is not None:
                values = (trial.last, trial.size, trial.tries)
                database.execute("INSERT INTO trial VALUES (?, ?, ?)", values)

    def bury(self, position: int, error: str, tries: int) -> None:
        """See `Log.bury`."""
        now = time.time()
        with self._durable.transaction() as database:
            values = {"position": position, "error": error, "tries": tries, "now": now}
            if database.execute(_BURIED, values).rowcount:
                database.execute(_FAILED, values)
                database.execute("DELETE FROM operations WHERE position = :position", values)
                database.execute(_FINISHED, {"now": now})

    def dead_letters(self, job: str | None = None) -> list[DeadLetter]:
        """See `Log.dead_letters`."""
        query = "SELECT * FROM dead_letters WHERE ?1 IS NULL OR job = ?1 ORDER BY position"
        with self._reader.rows(query, (job,)) as rows:
            return [_dead_letter(row) for row in rows]

    def retry(self, positions: Sequence[int]) -> int:
        """See `Log.retry`."""
        with self._durable.transaction() as database:
            again = [letter for position in positions for letter in _exhume(database, position)]
            rows = [(letter.job, letter.operation.kind, letter.operation.payload) for letter in again]
            database.executemany(_INSERT, rows)
            reopened = "UPDATE jobs SET failed = failed - 1, finished = NULL WHERE id = ?"
            database.executemany(reopened, [(letter.job,) for letter in again])
        return len(again)

    def drop(self, positions: Sequence[int]) -> int:
        """See `Log.drop`."""
        with self._durable.transaction() as database:
            return sum(len(_exhume(database, position)) for position in positions)

    def destroy(self) -> None:
        """See `Log.destroy`. The file is in the collection's directory and goes with it."""

    def close(self) -> None:
        """See `Log.close`."""
        for connection in (self._reader, self._quick, self._durable):
            connection.close()


def _insert(database: Database, operations: Sequence[Operation], job: str) -> int:
    """Insert in order inside a transaction, which makes the positions follow each other; give the last."""
    now = time.time()
    database.executemany(_INSERT, [(job, each.kind, each.payload) for each in operations])
    database.execute(_COUNTED, {"job": job, "now": now, "operations": len(operations)})
    if not operations:
        database.execute(_FINISHED, {"now": now})
    row = database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'operations'").fetchone()
    return int(row[0]) if row else 0


def _exhume(database: Database, position: int) -> list[DeadLetter]:
    """Take a dead letter out: a list of it, or an empty one if another was faster."""
    rows = database.execute("DELETE FROM dead_letters WHERE position = ? RETURNING *", (position,)).fetchall()
    return [_dead_letter(row) for row in rows]


def _dead_letter(row: tuple[Any, ...]) -> DeadLetter:
    position, job, kind, payload, error, tries, when = row
    return DeadLetter(position, job, Operation(kind, payload), error, tries, when)


def _job(row: tuple[Any, ...]) -> Job:
    name, created, total, published, failed, underway, started, finished, problem = row
    return Progress(total, published, failed, underway, created, started, finished).job(name, problem)
