"""What must be done before the first search: read the index once, compile the kernels, load the encoders.

Until it is done `/readyz` says what is pending; requests are answered meanwhile, only slower. Weights that
are missing do not keep the service from being ready, since everything else works without them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from indexer.kernels import warm
from models.roles import Role
from service.catalog import Catalog
from service.errors import EncoderError
from service.nets import Nets

log = logging.getLogger(__name__)

CHECKSUMS = "comparing the index with its checksums"
KERNELS = "compiling kernels"
ENCODERS = "loading encoders"


class Warmup:
    """Runs once, beside the requests; `warmed` is called at its end, before the service says it is ready."""

    def __init__(
        self,
        catalog: Catalog,
        verify: Callable[[], Awaitable[None]],
        nets: Nets,
        defaults: Mapping[Role, str],
        warmed: Callable[[], None],
    ) -> None:
        self.pending = [CHECKSUMS, KERNELS, ENCODERS]
        self._catalog = catalog
        self._verify = verify
        self._nets = nets
        self._defaults = defaults
        self._warmed = warmed
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop, if it still runs."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        await self._verify()
        self.pending.remove(CHECKSUMS)
        await asyncio.to_thread(warm)
        self.pending.remove(KERNELS)
        schemas = [collection.current.schema for collection in self._catalog]
        used = {each for schema in schemas for each in schema.encoders().items()}
        for role, name in sorted(used | set(self._defaults.items())):
            try:
                await self._nets.get(role, name, None)
            except EncoderError:
                log.info("starting without the encoder %s", name)
        self._warmed()
        self.pending.remove(ENCODERS)
