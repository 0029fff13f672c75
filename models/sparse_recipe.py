r"""What a folder says of how its net makes sparse vectors: `sparse.json`, our own small manifest.

Nothing in the weights of a transformer tells a doubled logarithm from a single one, or term weights from an
expansion, and a wrong guess still gives plausible scores. So folders in the layout of sentence-transformers
and plain masked-language models are read as what they are, and for everything else this file has to say it:

    {"kind": "mlp", "pooling": "max", "activation": "relu", "weights": "head.safetensors"}
    {"kind": "decoder", "pooling": "max", "activation": "log1p", "separator": "\n"}
    {"kind": "prosper", "pooling": "last", "activation": "log1p", "query_terms": 256, "document_terms": 512}

A `sparse.json` beside anything else decides. Every key is explained at `Recipe`; unknown ones are refused.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models import Kind
from models.sparse_heads import Activation, Pooling

FILE = "sparse.json"

Shape = Literal["mlm", "mlp", "decoder", "prosper"]

POOLINGS: dict[Shape, tuple[Pooling, ...]] = {
    "mlm": ("max", "sum"),
    "mlp": ("max",),
    "decoder": ("max", "last"),
    "prosper": ("last",),
}
CEILINGS: dict[Activation, float] = {"log1p": 8.0, "log1p_log1p": 4.0}
"""Weights that logarithms do not pass: log1p of a logit of 2,980."""

OPEN = 256.0
"""Ceiling of weights that can grow: of a plain relu, of sums, of PROSPER's residual."""


class Recipe(BaseModel):
    """How a net's output becomes weights.

    `kind`: "mlm" is SPLADE (a masked-language-model head), "mlp" are term weights `f(a·h + b)` of the
    text's own pieces (uniCOIL; tensors `a` [hidden] and `b` [1] in `weights`), "decoder" is the head of a
    causal model, "prosper" such a head at the last position with a literal residual network (tensors
    `fc.weight` [vocabulary, hidden] and `fc.bias` [vocabulary]) and questions of unit length. `separator`:
    the text is read twice with this between, and only the second copy votes, because only there a causal
    model has seen what follows. `prompts` go before the text and do not vote. Prompts and separator are
    tokenised by themselves. `query_terms`, `document_terms`: the lexical focusing window, the heaviest
    terms that are kept.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Shape
    pooling: Pooling
    activation: Activation
    prompts: dict[Kind, str] = {}
    separator: str | None = None
    query_terms: Annotated[int, Field(ge=1)] | None = None
    document_terms: Annotated[int, Field(ge=1)] | None = None
    ceiling: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    max_tokens: Annotated[int, Field(ge=8)] | None = None
    weights: Annotated[str, Field(pattern=r"^[\w-]+\.safetensors$")] = "head.safetensors"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.pooling not in POOLINGS[self.kind]:
            allowed = " or ".join(POOLINGS[self.kind])
            raise ValueError(f"a net of kind {self.kind} pools by {allowed}, not by {self.pooling}")
        if self.separator is not None and self.kind not in ("decoder", "prosper"):
            raise ValueError(f"only a causal model reads a text twice, so kind {self.kind} has no separator")
        return self

    @property
    def highest(self) -> float:
        """No weight is above this: `ceiling`, or what the activation cannot pass."""
        grows = self.pooling == "sum" or self.kind == "prosper"
        return self.ceiling or (OPEN if grows else CEILINGS.get(self.activation, OPEN))

    def terms(self, kind: Kind) -> int | None:
        """How many terms a question or a passage keeps, or None for all."""
        return self.query_terms if kind == "query" else self.document_terms


def read_recipe(folder: Path) -> Recipe:
    """Read `sparse.json` of a folder; raises ValueError with what is wrong in it."""
    try:
        return Recipe.model_validate_json((folder / FILE).read_bytes())
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, each['loc'])) or FILE}: {each['msg']}" for each in error.errors()
        )
        raise ValueError(f"{folder / FILE} is no recipe for sparse vectors: {wrong}") from None
