import threading
import time
from pathlib import Path
from typing import Any

import pytest

from models import dense, roles, sparse


def test_nets_are_loaded_one_at_a_time(monkeypatch: pytest.MonkeyPatch):
    loading: list[str] = []
    most = 0

    def slowly(name: str, **_: Any) -> str:
        nonlocal most
        loading.append(name)
        most = max(most, len(loading))
        time.sleep(0.02)
        loading.remove(name)
        return name

    monkeypatch.setattr(dense.DenseEncoder, "load", slowly)
    monkeypatch.setattr(sparse.SparseEncoder, "load", slowly)
    wanted: list[tuple[roles.Role, str]] = [("dense", "a"), ("sparse", "b"), ("dense", "c")]
    found: list[Any] = []
    threads = [
        threading.Thread(
            target=lambda role=role, name=name: found.append(roles.load(Path("cache"), role, name))
        )
        for role, name in wanted
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == ["a", "b", "c"]
    assert most == 1
