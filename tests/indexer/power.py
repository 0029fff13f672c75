"""What a power cut would leave: only what was synchronised, in directories that were synchronised.

`Disk` hears of every `os.fsync` and `os.replace` of this process and keeps, beside the real files, what is
sure to survive: a file's bytes as of its last synchronisation, a directory's names as of its own. That is the
worst a file system may do, but for bringing a rename to the disk before what it points to: `surviving` makes
that too.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Inode = int


class Disk:
    """What survives below `root`, where everything that is there at the beginning does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[Inode, bytes] = {}
        self.names: dict[Inode, dict[str, Inode]] = {}
        for path in (root, *root.rglob("*")):
            self._synchronise(path)

    def watch(self, monkeypatch: pytest.MonkeyPatch, before_rename: Callable[[Path, Path], None]) -> None:
        """Follow what this process does; `before_rename` hears of old and new name."""
        fsync, rename = os.fsync, os.replace

        def synchronised(descriptor: int) -> None:
            fsync(descriptor)
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            if path.is_relative_to(self.root):
                self._synchronise(path)

        def renamed(old: Any, new: Any) -> None:
            before_rename(Path(old), Path(new))
            rename(old, new)

        monkeypatch.setattr(os, "fsync", synchronised)
        monkeypatch.setattr(os, "replace", renamed)

    def surviving(self, target: Path, renamed: tuple[Path, Path] | None = None) -> Path:
        """Write to `target` what a cut would leave; `renamed` is a rename that came through early."""
        shutil.rmtree(target, ignore_errors=True)
        self._restore(self.root.stat().st_ino, target)
        if renamed is not None:
            old, new = (target / path.relative_to(self.root) for path in renamed)
            old.unlink(missing_ok=True)
            new.write_bytes(self.files.get(renamed[0].stat().st_ino, b""))
        return target

    def _synchronise(self, path: Path) -> None:
        inode = path.stat().st_ino
        self.files.pop(inode, None)  # numbers are given again
        self.names.pop(inode, None)
        if path.is_dir():
            self.names[inode] = {each.name: each.stat().st_ino for each in path.iterdir()}
        else:
            self.files[inode] = path.read_bytes()

    def _restore(self, inode: Inode, target: Path) -> None:
        if inode in self.files or inode not in self.names:
            target.write_bytes(self.files.get(inode, b""))
            return
        target.mkdir(parents=True)
        for name, inner in self.names[inode].items():
            self._restore(inner, target / name)
