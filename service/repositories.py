"""The repositories that settings name, and the threads that copy to and from them.

Copying takes minutes and waits for disks and networks, so it has threads of its own: searches and the watch
on new generations never queue behind it. A client that hangs up does not stop what has begun.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar, TypeVarTuple

from indexer.repository import Repository, open_repository
from service.errors import InvalidError
from service.workers import Workers

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

THREADS = 4  # backups and restores at a time; others wait for their turn


class Repositories:
    """Repositories by name."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = places
        self._threads = Workers(THREADS)

    async def run(
        self, name: str, work: Callable[[Repository, *Arguments], Result], *arguments: *Arguments
    ) -> Result:
        """`work(repository, *arguments)` in a thread. InvalidError if no repository has this name."""
        return await self._threads.run(lambda: work(self.open(name), *arguments))

    def open(self, name: str) -> Repository:
        """Open a repository, for one thread. InvalidError if there is none of this name, RepositoryError."""
        if name not in self._places:
            known = ", ".join(sorted(self._places)) or "none"
            raise InvalidError(
                f"there is no repository {name[:100]!r}; known are {known}: whoever runs the service names "
                "them in WINNOW_REPOSITORIES"
            )
        return open_repository(name, self._places[name])

    def close(self) -> None:
        """Drop what has not begun and wait for what has."""
        self._threads.close()
