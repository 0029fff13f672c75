"""Who may import whom: the arrows of ARCHITECTURE.md, read from the sources by `ast`.

The most specific rule that matches a file applies. A name stands for itself and all below it.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("models", "indexer", "service")

SERVICE = (
    "service",
    "models",
    "indexer.document",
    "indexer.collection",
    "indexer.backup",
    "indexer.restore",
    "indexer.repository",
    "indexer.workplace",
    "indexer.queue",
    "indexer.segment",
    "indexer.kernels",
    "indexer.filters",
)
ALLOWED = {
    "models": ("models",),
    "indexer": ("indexer", "models"),
    "indexer.filters": ("indexer.filters",),
    "indexer.kernels": ("indexer.kernels",),
    "indexer.segment": ("indexer.segment", "indexer.kernels", "indexer.filters"),
    "service": SERVICE,
    "service.cli": OURS,  # the composition root: the command line may put anything together
    "service.commands": OURS,
}


def modules() -> Iterator[tuple[str, Path]]:
    for package in OURS:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def within(name: str, tree: str) -> bool:
    return name == tree or name.startswith(f"{tree}.")


def exists(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or path.is_dir()


def imports(path: Path) -> Iterator[str]:
    """Every module of ours a file imports, wherever the import stands; relative imports are not used here."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if exists(name) else str(node.module) for name in names)


def rule_for(module: str) -> tuple[str, ...]:
    return ALLOWED[max((tree for tree in ALLOWED if within(module, tree)), key=len)]


@pytest.mark.parametrize(
    ("module", "path"), list(modules()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_imports_follow_the_arrows(module: str, path: Path):
    ours = {name for name in imports(path) if name.split(".")[0] in OURS}
    wrong = sorted(name for name in ours if not any(within(name, tree) for tree in rule_for(module)))
    assert not wrong, f"{module} may not import {wrong}: see ARCHITECTURE.md, or ask what the import is for"


def test_nothing_of_ours_imports_torch_into_the_bytes_on_disk():
    """`indexer.segment` and `indexer.kernels` are arrays and files: a reader of an index needs no net."""
    nets = {"torch", "transformers", "sentence_transformers"}
    for module, path in modules():
        if within(module, "indexer.segment") or within(module, "indexer.kernels"):
            assert not {name.split(".")[0] for name in imports(path)} & nets, module


def test_the_rules_name_what_exists():
    named = {tree for allowed in ALLOWED.values() for tree in allowed} | set(ALLOWED)
    assert [name for name in sorted(named) if not exists(name)] == []


def test_a_forbidden_import_would_be_found():
    assert "indexer.worker" not in rule_for("service.app")
    assert not any(within("indexer.build", tree) for tree in rule_for("service.routes.documents"))
    assert any(within("indexer.worker", tree) for tree in rule_for("service.commands.worker"))
    assert not any(within("service", tree) for tree in rule_for("indexer.worker"))
    assert not any(within("models", tree) for tree in rule_for("indexer.segment.dense"))
