"""How fast a net works through what waits for it, in tokens a second.

A lone question wastes most of a forward, so it says little of how long a full queue takes: what counts is
forwards that left others waiting. Until there was one, every forward counts, unless the speed was measured
before the first call.
"""

FADE = 0.9
"""How much what was known counts after another forward."""


class Speed:
    """`assumed` is the speed before anything is known."""

    def __init__(self, assumed: float) -> None:
        self._assumed = assumed
        self._tokens = self._seconds = 0.0
        self._sure = False

    @property
    def per_second(self) -> float:
        """Tokens a second, above 0."""
        return self._tokens / self._seconds if self._seconds else self._assumed

    def set(self, tokens: int, seconds: float) -> None:
        """Begin with what full batches took."""
        self._tokens, self._seconds, self._sure = float(tokens), seconds, True

    def note(self, tokens: int, seconds: float, *, others_wait: bool) -> None:
        """A forward of so many tokens took so long, while others waited or not."""
        if others_wait and not self._sure:
            self.set(tokens, seconds)
        elif others_wait or not self._sure:
            self._tokens = FADE * self._tokens + tokens
            self._seconds = FADE * self._seconds + seconds
