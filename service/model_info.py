"""What a model endpoint says of a net, in the fields of Text Embeddings Inference."""

from importlib.metadata import version
from typing import Any, Protocol, cast

from typing_extensions import TypedDict

from service.model_names import Target
from service.nets import Running
from service.settings import Settings

POOLINGS = {"lasttoken": "last_token"}
"""What the vendor calls ways of pooling for which sentence-transformers has another word."""


class Pooling(TypedDict):
    """How token states become a vector: `mean`, `cls`, `last_token`, `splade` and others."""

    pooling: str


class EmbeddingType(TypedDict):
    """A net that makes vectors."""

    embedding: Pooling


class Labels(TypedDict):
    """The classes of a net; there is one, whose score is that of a text."""

    id2label: dict[str, str]
    label2id: dict[str, int]


class RerankerType(TypedDict):
    """A net that scores texts for a question."""

    reranker: Labels


class ModelInfo(TypedDict):
    """What a net is and what it takes.

    `model_sha` is its fingerprint. `max_concurrent_requests` is of the service, whatever it is asked for.
    `max_batch_tokens` may have been measured.
    """

    model_id: str
    model_sha: str
    model_dtype: str
    served_model_name: str
    model_type: EmbeddingType | RerankerType
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    sha: None
    docker_label: None


class Net(Protocol):
    """What is asked of a net. `dtype` is a word, or one of torch's formats."""

    max_tokens: int
    dtype: Any


def model_info(wanted: Target, weights: str, running: Running, settings: Settings) -> ModelInfo:
    """What is served for a target, by the weights of this name."""
    net = cast(Net, getattr(running.net, "net", running.net))  # those that score pairs come with a queue
    embeds = wanted.served in ("dense", "sparse")
    return ModelInfo(
        model_id=weights,
        model_sha=running.net.fingerprint,
        model_dtype=str(net.dtype).removeprefix("torch."),
        served_model_name=wanted.served,
        model_type=_type(wanted, net),
        max_concurrent_requests=settings.most_requests(),
        max_input_length=net.max_tokens,
        max_batch_tokens=running.batcher.budget,
        max_batch_requests=settings.batch_texts,
        max_client_batch_size=settings.limits.inputs if embeds else settings.limits.rerank,
        auto_truncate=False,
        tokenization_workers=settings.cpu_threads(),
        version=version("winnow-search"),
        sha=None,
        docker_label=None,
    )


def _type(wanted: Target, net: Any) -> EmbeddingType | RerankerType:
    match wanted.served:
        case "dense":
            return EmbeddingType(embedding=Pooling(pooling=POOLINGS.get(net.pooling, net.pooling)))
        case "sparse":
            return EmbeddingType(embedding=Pooling(pooling="splade"))
    return RerankerType(reranker=Labels(id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0}))
