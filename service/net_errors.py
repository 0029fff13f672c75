"""What goes wrong before a net, as what it means for a search: a stage that cannot do its work."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.batcher import Closed, NetFailed, Overloaded
from service.errors import BusyError, DeadlineError, EncoderError, NetFailedError


@contextmanager
def as_stage_errors(name: str) -> Iterator[None]:
    """Turn what a batcher raises into StageErrors that name the net."""
    try:
        yield
    except Overloaded as error:
        raise BusyError(str(error), retry_after=error.retry_after) from error
    except NetFailed as error:
        raise NetFailedError(f"encoder {name} failed: {error}") from error
    except Closed as error:
        raise EncoderError(f"encoder {name} failed: {error}") from error
    except TimeoutError as error:
        raise DeadlineError(str(error)) from error
