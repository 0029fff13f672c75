"""What the image installs is pinned, by hash, and is what the project asks for. `make lock` makes it anew."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "requirements.lock").read_text()
PINS = {name: Version(version) for name, version in re.findall(r"^([a-z0-9.-]+)==(\S+)", LOCK, re.MULTILINE)}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
(WEIGHTS,) = re.findall(r"^WEIGHTS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    "wanted", [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"], *WEIGHTS.split()]
)
def test_everything_that_is_asked_for_is_locked(wanted: str):
    requirement = Requirement(wanted)
    assert PINS[canonicalize_name(requirement.name)] in requirement.specifier


def test_every_line_is_a_pin_or_a_hash():
    """So no address of a registry, no path and no option that would weaken the hashes."""
    for entry in re.split(r"(?<!\\)\n", LOCK.strip()):
        assert re.fullmatch(r"[a-z0-9.-]+==\S+( \\\n    --hash=sha256:[0-9a-f]{64})+", entry), entry[:80]


def test_the_image_installs_nothing_else():
    dockerfile = (ROOT / "Dockerfile").read_text()
    installs = re.findall(r"pip install ([^&\n]*[^&\s])", dockerfile)
    assert installs
    for arguments in installs:
        assert "--no-deps" in arguments
        assert "--require-hashes" in arguments or arguments.endswith("--no-build-isolation .")
