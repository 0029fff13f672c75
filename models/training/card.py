"""The model card of a training, written from the run itself: what went in, by which licence, what came."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from models.training.fit import Run

CARD = "README.md"
SUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Source:
    """Data that a net was trained on: its name, where it is from, its licence, and how many groups."""

    name: str
    origin: str
    licence: str
    groups: int


def write_card(
    folder: Path, title: str, what: str, base: str, sources: Sequence[Source], run: Run, licence: str
) -> None:
    """Write `README.md` of a folder of weights, and `SHA256SUMS` of the files that weights are read from.

    `what` says in a sentence or two what the net is and how it was trained; `base` names the weights it began
    with; `licence` is that of the weights.
    """
    lines = [
        f"# {title}",
        "",
        what,
        "",
        f"Licence: {licence}. Begun with `{base}`.",
        "",
        "## Data",
        "",
        "| name | from | licence | groups |",
        "|---|---|---|---|",
        *(f"| {each.name} | {each.origin} | {each.licence} | {each.groups} |" for each in sources),
        "",
        "## Run",
        "",
        f"{run.steps} steps, {run.seconds / 60:.0f} min; the weights are those of step {run.best_step}, "
        f"the best by {run.measure} on held-out questions ({run.best:.4f}).",
        "",
        "| step | " + " | ".join(_measures(run)) + " |",
        "|---|" + "---|" * len(_measures(run)),
        *_rows(run),
        "",
        "```json",
        json.dumps(asdict(run.options), indent=2),
        "```",
        "",
    ]
    (folder / CARD).write_text("\n".join(lines), "utf-8")
    write_sums(folder)


def write_sums(folder: Path) -> None:
    """Write the checksums of a folder's files, in the form that `sha256sum --check` reads."""
    files = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    sums = [
        f"{sha256(path.read_bytes()).hexdigest()}  {name.as_posix()}"
        for name, path in files.items()
        if _belongs(name)
    ]
    (folder / SUMS).write_text("\n".join(sums) + "\n", "utf-8")


def _belongs(path: Path) -> bool:
    return path.name not in (CARD, SUMS) and path.parts[0] not in ("checkpoints", "groups")


def _measures(run: Run) -> list[str]:
    skipped = {"step", "epoch", "loss", "grad_norm", "learning_rate"}
    names = {name: None for entry in run.history if run.measure in entry for name in entry}
    return [name for name in names if name not in skipped]


def _rows(run: Run) -> list[str]:
    entries = [entry for entry in run.history if run.measure in entry]
    names = _measures(run)
    return [
        f"| {entry['step']:.0f} | {' | '.join(_cell(entry, name) for name in names)} |" for entry in entries
    ]


def _cell(entry: Mapping[str, float], name: str) -> str:
    return f"{entry[name]:.4f}" if name in entry else ""
