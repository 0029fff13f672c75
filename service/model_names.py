"""What a request to a model endpoint may give as `model`: a role of this service's nets, or a name for one.

A role stands for the net that the settings choose for it, and in context also for the mode it reads in. A
client whose code names another service's model is served by a name of the settings that stands for a role,
and for weights if it says so: `{"text-embedding-3-small": "dense", "bge": "dense:hf:organisation/bge"}`.
Weights are named by the settings only, never by a request.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

from models.roles import Role

Served = Literal[
    "dense",
    "sparse",
    "late",
    "cross",
    "in_context_keys",
    "in_context_cached",
    "in_context_query_aware",
    "in_context_dense",
]
"""What a net is asked to do; those in context are one net in several modes."""

SERVED: tuple[Served, ...] = get_args(Served)

_ROLES: Mapping[Served, Role] = {"dense": "dense", "sparse": "sparse", "late": "late", "cross": "cross"}


class Target(NamedTuple):
    """What a name stands for: a role and, unless the settings choose them by role, the weights."""

    served: Served
    weights: str | None

    @property
    def role(self) -> Role:
        """What the net is loaded for."""
        return _ROLES.get(self.served, "in_context")


def target(text: str) -> Target:
    """Read "role" or "role:weights". ValueError for anything else."""
    role, _, weights = text.partition(":")
    for served in SERVED:
        if served == role:
            return Target(served, weights or None)
    raise ValueError(f"{text[:100]!r} is neither ROLE nor ROLE:WEIGHTS; roles are {', '.join(SERVED)}")
