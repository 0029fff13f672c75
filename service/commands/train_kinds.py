"""The kinds of nets that `winnow train` makes: each a recipe, what it begins with, and how it is tried."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from models.load import DEFAULT_DENSE, DEFAULT_IN_CONTEXT, DEFAULT_SPARSE

if TYPE_CHECKING:
    from service.stages import Pipeline


@dataclass(frozen=True)
class Trial:
    """How a net is tried: a pipeline, and the schema and the settings of a collection that it is run over."""

    label: str
    stages: "Pipeline"
    schema: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)


Trials = Callable[[str, str], tuple[Trial, Trial]]
"""Of the names of the base and of what was trained: the trials before and after."""


@dataclass(frozen=True)
class Kind:
    """One kind. `recipe` is a module of `models.training` with a `train`, `options` the class of its options.

    `what` says in its card what was made, and `use` to its owner how it is used.
    """

    recipe: str
    options: str
    base: str
    help: str
    what: str
    use: str
    trials: Trials


def _sparse(base: str, made: str) -> tuple[Trial, Trial]:
    from service.stages import Group, Sparse

    stages: Pipeline = (Sparse(strategy="exact"), Group())
    idf = {"sparse_query": "idf"}
    return (
        Trial("idf of the collection, base", stages, {"sparse_encoder": base, **idf}),
        Trial("trained", stages, {"sparse_encoder": made, "sparse_idf": "model", **idf}),
    )


def _decoder_sparse(base: str, made: str) -> tuple[Trial, Trial]:
    from service.stages import Bm25, Group, Sparse

    return (
        Trial("bm25", (Bm25(), Group()), {}),
        Trial("trained", (Sparse(strategy="exact"), Group()), {"sparse_encoder": made}),
    )


def _late(base: str, made: str) -> tuple[Trial, Trial]:
    from service.stages import Bm25, Group, Late

    stages: Pipeline = (Bm25(k=100), Late(k=100), Group())
    before, after = ({"late_encoder": name} for name in (base, made))
    return Trial("base over bm25", stages, before), Trial("trained over bm25", stages, after)


def _cross(base: str, made: str) -> tuple[Trial, Trial]:
    from service.stages import Bm25, Cross, Group

    stages: Pipeline = (Bm25(k=50), Cross(k=50), Group())
    return (
        Trial("bm25", (Bm25(), Group()), {}),
        Trial("trained over bm25", stages, {}, {"cross_encoder": made}),
    )


def _in_context(base: str, made: str) -> tuple[Trial, Trial]:
    from service.stages import Bm25, Group, InContext

    stages: Pipeline = (Bm25(k=20), InContext(mode="keys", k=20, weight=1.0), Group())
    before, after = ({"in_context_model": name} for name in (base, made))
    return Trial("base over bm25's 20", stages, before), Trial("trained over bm25's 20", stages, after)


KINDS = {
    "sparse": Kind(
        "sparse",
        "SparseOptions",
        DEFAULT_SPARSE,
        "Sparse retrieval whose questions no net reads: passages are encoded, questions weighed by a table.",
        "A sparse encoder of passages for questions that no net reads: each of their word pieces counts by a "
        "trained table. Distilled from several retrievers at once.",
        'a collection with {{"components": ["bm25", "dense", "sparse"], "sparse_encoder": "{out}", '
        '"sparse_query": "idf", "sparse_idf": "model"}}',
        _sparse,
    ),
    "late": Kind(
        "late",
        "LateOptions",
        DEFAULT_DENSE,
        "Late interaction: a projection of an encoder's token vectors, and LoRA below it.",
        "A head on token vectors for late interaction (MaxSim), distilled from several retrievers at once.",
        'a collection with {{"components": ["bm25", "dense", "sparse", "late"], "late_encoder": "{out}"}}',
        _late,
    ),
    "cross": Kind(
        "cross",
        "CrossOptions",
        DEFAULT_DENSE,
        "A cross-encoder, which reads question and passage together.",
        "A cross-encoder, distilled from several retrievers at once and trained on what is relevant.",
        "a service with WINNOW_CROSS_ENCODER={out}",
        _cross,
    ),
    "in-context": Kind(
        "in_context",
        "InContextOptions",
        DEFAULT_IN_CONTEXT,
        "An adapter for a language model, whose attention then falls on the passages that answer.",
        "A LoRA adapter for a language model, trained such that its attention falls on what answers.",
        "a service with WINNOW_IN_CONTEXT_MODEL={out}",
        _in_context,
    ),
    "decoder-sparse": Kind(
        "decoder_sparse",
        "DecoderSparseOptions",
        DEFAULT_IN_CONTEXT,
        "Sparse retrieval by a language model: its own head, or a literal one (PROSPER).",
        "A sparse encoder made of a language model.",
        'a collection with {{"components": ["bm25", "dense", "sparse"], "sparse_encoder": "{out}"}}',
        _decoder_sparse,
    ),
}
