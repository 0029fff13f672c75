"""Finding the operation that cannot be applied, even if it kills the process that tries.

Every batch is noted in the log before it is begun. One that fails, or that a new process finds begun and not
finished, is tried again in eighths, and the eighth that fails in eighths again, until one operation is left;
after three tries alone it is a dead letter. So a deadly operation among 512 costs six deaths.
"""

from dataclasses import dataclass

from indexer.queue.contract import Trial

TRIES = 3
PARTS = 8


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Up to position `until` batches hold at most `most` operations; one alone has failed `tries` times."""

    until: int
    most: int
    tries: int = 0

    @property
    def proven(self) -> bool:
        """Whether the operation at the head has been tried alone often enough."""
        return self.tries >= TRIES


def begin(last: int, operations: int, suspicion: Suspicion | None) -> Trial:
    """Note a batch of so many operations that ends at position `last`."""
    return Trial(last, operations, suspicion.tries if suspicion else 0)


def failed(trial: Trial | None) -> Suspicion | None:
    """Return what a trial that was not finished makes us suspect."""
    if trial is None:
        return None
    if trial.size == 1:
        return Suspicion(trial.last, 1, trial.tries + 1)
    return Suspicion(trial.last, max(1, trial.size // PARTS))


def succeeded(position: int, suspicion: Suspicion | None) -> Suspicion | None:
    """Return what is left of a suspicion once everything up to `position` is applied."""
    if suspicion is None or position >= suspicion.until:
        return None
    return Suspicion(suspicion.until, suspicion.most)
