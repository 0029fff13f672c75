"""What the indexer tells of its work, for metrics; here nobody listens."""


class Observer:
    """Told in the worker's thread of a collection, by its name; times are in seconds."""

    def applied(self, name: str, operations: int, documents: int, passages: int, seconds: float) -> None:
        """A batch of so many operations is published, with so many new documents and passages."""

    def failed(self, name: str) -> None:
        """A batch raised; its operations are tried again in smaller ones."""

    def buried(self, name: str) -> None:
        """An operation was given up."""

    def merged(self, name: str, seconds: float) -> None:
        """Segments were joined, and the result is published."""

    def merge_failed(self, name: str) -> None:
        """A merge raised; searches go on without it."""

    def hindered(self, name: str) -> None:
        """The collection cannot be worked on, and is left alone for a while."""
