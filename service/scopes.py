"""Which scope a request needs, by its method and path alone: that is decided before a body is read.

What changes something and is not named here needs `admin`, so a new route is open to nobody by accident.
"""

import re
from typing import Literal, get_args

from service.error_shapes import WIRES

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

OPEN = frozenset({"/livez", "/readyz", "/health"})
"""Probes: whoever asks may know."""

LOOKING = frozenset({"GET", "HEAD", "OPTIONS"})

_COLLECTION = "/v1/collections/[^/]+"
_SCOPES: tuple[tuple[Scope, str], ...] = (
    ("read", rf"POST {_COLLECTION}/(search|search:batch|evaluate)"),
    ("write", rf"POST {_COLLECTION}/documents(:delete)?"),
    ("write", rf"DELETE {_COLLECTION}/documents/.+"),
    ("write", r"POST /v1/jobs/[^/]+:retry"),
    ("write", r"DELETE /v1/jobs/[^/]+/failures"),
)


def needed(method: str, path: str) -> Scope | None:
    """The scope that a key must have for a request; None for what needs no key."""
    if path in OPEN:
        return None
    if method in LOOKING or path in WIRES:
        return "read"
    for scope, pattern in _SCOPES:
        if re.fullmatch(pattern, f"{method} {path}", re.DOTALL):
            return scope
    return "admin"
