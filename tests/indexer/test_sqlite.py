"""What only the SQLite log promises: several processes, full disks, sudden deaths."""

import errno
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from indexer.queue.contract import LogUnavailable, Operation, delete
from indexer.queue.progress import KEPT_SECONDS
from indexer.queue.sqlite import SqliteLog
from tests.full_disk import files_at_most

APPENDING = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from indexer.queue.contract import delete
    from indexer.queue.sqlite import SqliteLog
    log = SqliteLog(Path(sys.argv[1]))
    for turn in range(int(sys.argv[3])):
        log.append([delete(f"{sys.argv[2]}-{turn}")])
        print(f"{sys.argv[2]}-{turn}", flush=True)
    """
)


def appending(path: Path, name: str, turns: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", APPENDING, str(path), name, str(turns)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def logged(path: Path) -> list[str]:
    return [entry.operation.payload.decode() for entry in SqliteLog(path).read(0, 10**6, 10**9)]


def test_processes_open_and_append_at_once(tmp_path: Path):
    processes = [appending(tmp_path / "log", name, 5) for name in "ab"]
    assert [process.wait() for process in processes] == [0, 0]
    for process in processes:
        process.stdout.close()
    assert sorted(logged(tmp_path / "log")) == [f"{name}-{turn}" for name in "ab" for turn in range(5)]


def test_opening_waits_for_another_who_is_making_the_log(tmp_path: Path):
    other = sqlite3.connect(tmp_path / "log", isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE another (x)")
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(0.2, other.execute, ["COMMIT"]).start()
    log = SqliteLog(tmp_path / "log")
    assert log.append([delete("a")])[1] == 1
    log.close()
    other.close()


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path):
    process = appending(tmp_path / "log", "a", 10**6)
    acknowledged = [process.stdout.readline().strip() for _ in range(20)]
    os.kill(process.pid, signal.SIGKILL)
    acknowledged += process.stdout.read().split()
    process.stdout.close()
    process.wait()
    assert logged(tmp_path / "log")[: len(acknowledged)] == acknowledged


def test_a_full_disk_is_said_and_heals(tmp_path: Path):
    log = SqliteLog(tmp_path / "log")
    job, last = log.append([delete("a")])
    with files_at_most(1 << 20), pytest.raises(LogUnavailable) as caught:
        log.append([Operation("upsert", b"x" * (2 << 20))])
    assert caught.value.errno in (errno.ENOSPC, errno.EIO)
    assert log.last_position() == last
    assert len(log.jobs()) == 1
    log.append([delete("b")], job)
    assert logged(tmp_path / "log") == ["a", "b"]


def test_a_directory_that_is_gone_is_said(tmp_path: Path):
    with pytest.raises(LogUnavailable) as caught:
        SqliteLog(tmp_path / "gone" / "log")
    assert caught.value.errno == errno.ENOENT


def test_a_file_of_another_kind_is_said(tmp_path: Path):
    (tmp_path / "log").write_bytes(b"not a database, certainly not" * 100)
    with pytest.raises(LogUnavailable, match="not a SQLite file"):
        SqliteLog(tmp_path / "log")


def test_old_jobs_are_forgotten_unless_they_have_dead_letters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    log = SqliteLog(tmp_path / "log")
    done, first = log.append([delete("a")])
    failed, second = log.append([delete("b")])
    log.bury(second, "no", 3)
    log.prune(first)
    assert log.job(done).state == "done"
    monkeypatch.setattr("indexer.queue.sqlite.KEPT_SECONDS", -1)
    log.prune(second)
    assert log.job(done) is None
    assert log.job(failed).state == "failed"
    assert KEPT_SECONDS == 7 * 24 * 3600


def test_an_emptied_log_gives_its_space_back(tmp_path: Path):
    log = SqliteLog(tmp_path / "log")
    _, last = log.append([Operation("upsert", b"x" * (1 << 20)) for _ in range(8)])
    log.prune(last)
    log.close()
    assert (tmp_path / "log").stat().st_size < 1 << 20
