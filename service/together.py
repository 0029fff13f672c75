"""Tasks of one request: the first that fails ends the others, which nobody waits for any more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def together() -> AsyncIterator[asyncio.TaskGroup]:
    """A group of tasks, all of which have ended well afterwards; raises what the first to fail raised."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except ExceptionGroup as errors:  # a group always wraps, even a single error
        raise errors.exceptions[0] from None
