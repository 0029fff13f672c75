"""What a figure was measured on: without it and the load, only the ratios say anything."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


def describe(*packages: str) -> str:
    """One line: processor, cores, load, Python and the versions of some packages."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    processor = names[0].partition(":")[2].strip() if names else platform.machine()
    installed = ", ".join(f"{package} {version(package)}" for package in packages)
    return (
        f"{processor}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}, {installed}"
    )
