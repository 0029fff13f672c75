import subprocess
import sys

FILL = """
import os, sys
from pathlib import Path

import orjson

from service.cache import MemoryCache


def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024


cache = MemoryCache(16 * 2**20)
before = resident()
number = 0
while cache.tally.evictions < 20_000:
    cache.put(os.urandom(32), orjson.dumps({"hits": [number / 7] * (60 + number % 200)}))
    number += 1
print((resident() - before) / cache.tally.bytes)
"""


def test_a_full_cache_takes_about_what_it_counts():
    """In a process of its own, of values as `orjson` makes them, which hold on to more than they say."""
    done = subprocess.run([sys.executable, "-c", FILL], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.5
