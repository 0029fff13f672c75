"""The stages and what a pipeline of them is on the wire. A new stage is a file here and a name in
`AnyStage`.
"""

from typing import Annotated

from pydantic import Field, Strict

from service.stages.bm25 import Bm25
from service.stages.cross import Cross
from service.stages.dense import Dense
from service.stages.fast_forward import FastForward
from service.stages.feedback import Feedback
from service.stages.fuse import Fuse
from service.stages.group import Group
from service.stages.in_context import InContext
from service.stages.late import Late
from service.stages.sparse import Sparse

__all__ = [
    "AnyStage",
    "Bm25",
    "Cross",
    "Dense",
    "FastForward",
    "Feedback",
    "Fuse",
    "Group",
    "InContext",
    "Late",
    "Pipeline",
    "Sparse",
]

AnyStage = Annotated[
    Bm25 | Dense | Sparse | FastForward | Late | Cross | InContext | Fuse | Feedback | Group,
    Field(discriminator="stage"),
]
Pipeline = Annotated[tuple[AnyStage, ...], Strict(False), Field(min_length=1)]

Fuse.model_rebuild(_types_namespace={"Pipeline": Pipeline})
