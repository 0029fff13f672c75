"""Work that is killed, as by the system, at a step that a test chooses."""

import os
import signal
from collections.abc import Callable

from tests.end_to_end.dying_worker import before_each


def killed_before(step: int, work: Callable[[], object]) -> bool:
    """Do `work` in a process of its own; whether it was killed, before the call that so makes things durable.

    The process is a fork, which spares imports, so the work may start no threads. It must not fail otherwise.
    """
    child = os.fork()
    if child == 0:
        _die_at(step, work)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def _die_at(step: int, work: Callable[[], object]) -> None:
    def die(number: int) -> None:
        if number == step:
            os.kill(os.getpid(), signal.SIGKILL)

    before_each(die)
    failed = 1
    try:
        work()
        failed = 0
    finally:
        os._exit(failed)
