"""Headers that every answer has, whoever gave it: outermost, so that not even a 500 is without them."""

from asyncio import Event
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Header = tuple[bytes, bytes]

SAFE: tuple[Header, ...] = (
    # An answer is what its Content-Type says: text that somebody indexed must not be taken for a page.
    (b"x-content-type-options", b"nosniff"),
    # And if a browser does show one, it runs and loads nothing. A page says itself what it needs.
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    # Queries and names of collections stand in addresses.
    (b"referrer-policy", b"no-referrer"),
    # Answers belong to a key and to the index of that moment.
    (b"cache-control", b"no-store"),
)


class AnswerHeaders:
    """ASGI middleware: adds what is not said yet and, from `draining` on, that this answer was the last."""

    def __init__(self, app: ASGIApp, draining: Event) -> None:
        self.app = app
        self.draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = self._complete(message.get("headers", ()))
            await send(message)

        return await self.app(scope, receive, send_with_headers)

    def _complete(self, headers: Iterable[Header]) -> list[Header]:
        said = {name for name, _ in headers}
        added = [header for header in SAFE if header[0] not in said]
        if self.draining.is_set() and b"connection" not in said:
            added.append((b"connection", b"close"))
        return [*headers, *added]
