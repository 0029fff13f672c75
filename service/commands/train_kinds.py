"""The kinds of nets that `winnow train` makes: each a recipe, what it begins with, and how it is tried."""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from models.load import MINILM, SMOLLM2, SPLADE

if TYPE_CHECKING:
    from service.stages import Pipeline


@dataclass(frozen=True)
class Trial:
    """How a net is tried: a pipeline, and the schema and the settings of a collection that it is run over."""

    label: str
    stages: "Pipeline"
    schema: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)


Trials = Callable[[str, str, Sequence[str]], tuple[Trial, Trial]]
"""Of the names of the base and of what was trained, and of passages that it saw: trials before and after."""

PRUNED = 0.3
"""The share of passages that is left out when a scorer of passages is tried."""


@dataclass(frozen=True)
class Kind:
    """One kind. `recipe` is a module of `models.training` with a `train`, `options` the class of its options.

    `what` says in its card what was made.
    """

    recipe: str
    options: str
    base: str
    help: str
    what: str
    trials: Trials


def _sparse(base: str, made: str, passages: Sequence[str]) -> tuple[Trial, Trial]:
    from service.stages import Group, Sparse

    stages: Pipeline = (Sparse(strategy="exact"), Group())
    idf = {"sparse_query": "idf"}
    return (
        Trial("idf of the collection, base", stages, {"sparse_encoder": base, **idf}),
        Trial("trained", stages, {"sparse_encoder": made, "sparse_idf": "model", **idf}),
    )


def _decoder_sparse(base: str, made: str, passages: Sequence[str]) -> tuple[Trial, Trial]:
    from service.stages import Bm25, Group, Sparse

    return (
        Trial("bm25", (Bm25(), Group()), {}),
        Trial("trained", (Sparse(strategy="exact"), Group()), {"sparse_encoder": made}),
    )


def _late(base: str, made: str, passages: Sequence[str]) -> tuple[Trial, Trial]:
    from service.stages import Bm25, Group, Late

    stages: Pipeline = (Bm25(k=100), Late(k=100), Group())
    before, after = ({"late_encoder": name} for name in (base, made))
    return Trial("base over bm25", stages, before), Trial("trained over bm25", stages, after)


def _cross(base: str, made: str, passages: Sequence[str]) -> tuple[Trial, Trial]:
    from service.stages import Bm25, Cross, Group

    stages: Pipeline = (Bm25(k=50), Cross(k=50), Group())
    return (
        Trial("bm25", (Bm25(), Group()), {}),
        Trial("trained over bm25", stages, {}, {"cross_encoder": made}),
    )


def _in_context(base: str, made: str, passages: Sequence[str]) -> tuple[Trial, Trial]:
    from service.stages import Bm25, Group, InContext

    stages: Pipeline = (Bm25(k=20), InContext(mode="keys", k=20, weight=1.0), Group())
    before, after = ({"in_context_model": name} for name in (base, made))
    return Trial("base over bm25's 20", stages, before), Trial("trained over bm25's 20", stages, after)


def _quality(base: str, made: str, passages: Sequence[str]) -> tuple[Trial, Trial]:
    import numpy as np

    from models.quality import load_quality
    from service.stages import Group, Sparse

    stages: Pipeline = (Sparse(strategy="exact"), Group())
    least = float(np.quantile(load_quality(made).scores(passages), PRUNED))
    pruned = {"sparse_quality": made, "least_quality": round(least, 4)}
    return Trial("all passages", stages, {}), Trial("the better passages", stages, pruned)


def how_to_use(trial: Trial) -> str:
    """A line for a shell that makes a collection or a service as it was tried."""
    from indexer.segment.manifest import COMPONENTS
    from service.engine import needs

    if trial.settings:
        given = (f"WINNOW_{key.upper()}={shlex.quote(str(value))}" for key, value in trial.settings.items())
        return f"{' '.join(given)} winnow serve"
    extra = sorted(needs(trial.stages) - set(COMPONENTS))
    components = {"components": [*COMPONENTS, *extra]} if extra else {}
    return f"winnow index FOLDER --schema {shlex.quote(json.dumps({**components, **trial.schema}))}"


KINDS = {
    "sparse": Kind(
        "sparse",
        "SparseOptions",
        SPLADE,
        "Sparse retrieval whose questions no net reads: passages are encoded, questions weighed by a table.",
        "A sparse encoder of passages for questions that no net reads: each of their word pieces counts by a "
        "trained table. Distilled from several retrievers at once.",
        _sparse,
    ),
    "late": Kind(
        "late",
        "LateOptions",
        MINILM,
        "Late interaction: a projection of an encoder's token vectors, and LoRA below it.",
        "A head on token vectors for late interaction (MaxSim), distilled from several retrievers at once.",
        _late,
    ),
    "cross": Kind(
        "cross",
        "CrossOptions",
        MINILM,
        "A cross-encoder, which reads question and passage together.",
        "A cross-encoder, distilled from several retrievers at once and trained on what is relevant.",
        _cross,
    ),
    "in-context": Kind(
        "in_context",
        "InContextOptions",
        SMOLLM2,
        "An adapter for a language model, whose attention then falls on the passages that answer.",
        "A LoRA adapter for a language model, trained such that its attention falls on what answers.",
        _in_context,
    ),
    "decoder-sparse": Kind(
        "decoder_sparse",
        "DecoderSparseOptions",
        SMOLLM2,
        "Sparse retrieval by a language model: its own head, or a literal one (PROSPER).",
        "A sparse encoder made of a language model.",
        _decoder_sparse,
    ),
    "quality": Kind(
        "quality",
        "QualityOptions",
        SPLADE,
        "A scorer of passages, so that those which answer no question can be left out of an index.",
        "A scorer of passages: how likely one is to answer any question.",
        _quality,
    ),
}
