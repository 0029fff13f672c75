"""Who gets in: those with a key that has the scope of what they ask for, as often as its rate allows."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import KeyMissingError, ScopeError, ServiceError
from service.guards import refuse
from service.keys import Key, Keys
from service.log_lines import note
from service.rates import Rates
from service.scopes import needed

NOBODY = ""
"""Under which name those are counted, together, who need no key as there is none."""


class Admission:
    """ASGI middleware: decides by the head of a request, before its body is read."""

    def __init__(self, app: ASGIApp, keys: Keys, rates: Rates) -> None:
        self.app = app
        self.keys = keys
        self.rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http":
            try:
                await self._admit(scope)
            except ServiceError as error:
                return await refuse(error, scope, receive, send)
        return await self.app(scope, receive, send)

    async def _admit(self, scope: Scope) -> None:
        wanted = needed(scope["method"], scope["path"])
        if wanted is None:
            return
        if self.keys.asked():
            key = self._key(scope, wanted)
            note("key", key.name)
            await self.rates.count(key.name, key.rate)
        else:
            await self.rates.count(NOBODY)

    def _key(self, scope: Scope, wanted: str) -> Key:
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        key = self.keys.find(given.strip()) if scheme.lower() == "bearer" else None
        if key is None:
            raise KeyMissingError(
                "send the header 'Authorization: Bearer KEY' with one of the service's API keys",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if wanted not in key.scopes:
            raise ScopeError(
                f"this needs the scope {wanted!r}, and the key {key.name!r} has {', '.join(key.scopes)}"
            )
        return key
