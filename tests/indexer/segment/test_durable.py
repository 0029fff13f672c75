import os
from pathlib import Path

import pytest

from indexer.segment.durable import fsync_tree, replace_file, write_file


@pytest.fixture
def calls(monkeypatch):
    """Names of the calls that make things durable, in order, with what they were about."""
    made = []
    fsync, replace = os.fsync, os.replace

    def recorded(descriptor):
        made.append(("fsync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    monkeypatch.setattr(os, "replace", lambda a, b: (made.append(("replace", str(b))), replace(a, b)))
    return made


def test_a_file_is_on_the_disk_when_it_is_written(tmp_path, calls):
    write_file(tmp_path / "a", b"text")
    assert (tmp_path / "a").read_bytes() == b"text"
    assert calls == [("fsync", str(tmp_path / "a"))]


def test_bytes_are_on_the_disk_before_the_name_points_to_them(tmp_path, calls):
    (tmp_path / "a").write_bytes(b"old")
    replace_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert calls == [
        ("fsync", str(tmp_path / "a.tmp")),
        ("replace", str(tmp_path / "a")),
        ("fsync", str(tmp_path)),
    ]


def test_a_tree_is_synchronised_from_its_leaves(tmp_path, calls):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a").write_bytes(b"")
    fsync_tree(tmp_path)
    assert calls == [
        ("fsync", str(tmp_path / "inner" / "a")),
        ("fsync", str(tmp_path / "inner")),
        ("fsync", str(tmp_path)),
    ]
