"""How the servers whose model endpoints are measured are started, and when they are ready."""

import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.endpoint_loads import MODEL
from models.load import DEFAULT_DENSE, folder
from service.commands.common import kernel_version
from service.commands.encoding_cache import cache_home


class Server(NamedTuple):
    """How a server is started, when it is ready, and where it embeds."""

    name: str
    command: list[str]
    probe: str
    embeddings: str


def winnow(data_dir: str, module: str = "service.cli") -> Server:
    """The service, without indexer. Compiled kernels are kept, or every start would take a minute."""
    kernels = cache_home() / "numba" / kernel_version()
    command = [
        *("env", f"NUMBA_CACHE_DIR={kernels}", sys.executable, "-m", module, "serve"),
        *("--no-worker", "--data-dir", data_dir),
    ]
    return Server("Winnow", command, "/readyz", "/v1/embeddings")


def infinity(program: Path, dtype: str) -> Server:
    """Infinity with the same folder of weights, which it calls MODEL; it keeps its figures to itself."""
    command = [
        *("env", "DO_NOT_TRACK=1", "HF_HUB_OFFLINE=1", str(program), "v2"),
        *("--model-id", str(folder(DEFAULT_DENSE)), "--served-model-name", MODEL),
        *("--engine", "torch", "--device", "cpu", "--dtype", dtype, "--no-bettertransformer", "--no-compile"),
        *("--host", "127.0.0.1", "--log-level", "error"),
    ]
    return Server("Infinity", command, "/health", "/embeddings")


def cores(text: str) -> set[int]:
    """The numbers of some cores, `0` or `0,1`."""
    return {int(part) for part in text.split(",")}
