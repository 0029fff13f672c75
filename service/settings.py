"""Every number and name an operator may change, each also an environment variable `WINNOW_…`.

Nothing is read at import: `create_app(settings)` gets a value, and a test makes its own. Limits are a value
of their own because they are shown (`/v1/limits`), documented (OpenAPI) and named in every error they cause.
This module stays light: the command line reads it before numba and torch are imported.
"""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from indexer.repository import check_place
from indexer.segment.manifest import (
    DEFAULT_CROSS_ENCODER,
    DEFAULT_ENCODER,
    DEFAULT_IN_CONTEXT,
    DEFAULT_LATE_ENCODER,
    DEFAULT_SPARSE_ENCODER,
    OWN_IDF,
    OWN_SCORER,
)
from models.roles import Role
from service.model_names import Served, target
from service.workers import cores

REQUESTS_A_THREAD = 32
"""Requests worked on at a time, for each thread."""

RATE = r"^[1-9][0-9]{0,8}/(second|minute|hour|day)$"
"""So many requests in a time."""

Address = Annotated[str, Field(pattern=r"^[^\s:]+:\d{1,5}$")]


class Limits(BaseModel):
    """What a request may ask for at most. Bytes are UTF-8 bytes, `_ms` milliseconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    body_bytes: int = Field(32 * 2**20, ge=1, description="Whole body of any request.")
    document_bytes: int = Field(2**20, ge=1, description="One document as JSON, or one text for a net.")
    documents: int = Field(10_000, ge=1, description="Documents or ids in one request.")
    query_bytes: int = Field(8 * 2**10, ge=1, description="One query.")
    top_k: int = Field(1_000, ge=1, description="Hits on one page.")
    candidates: int = Field(10_000, ge=1, description="Depth of one retriever, and the last hit of any page.")
    rerank: int = Field(
        1_000, ge=1, description="Hits that a stage rescores by a net, or documents of a request to rerank."
    )
    inputs: int = Field(2_048, ge=1, description="Texts to encode, or pairs to score, in one request.")
    searches: int = Field(100, ge=1, description="Searches in one batch.")
    queries: int = Field(1_000, ge=1, description="Queries of one evaluation.")
    pipelines: int = Field(8, ge=1, description="Pipelines of one evaluation.")
    stages: int = Field(32, ge=1, description="Stages of one pipeline, inputs of fusion included.")
    pipeline_depth: int = Field(4, ge=1, description="Pipelines within pipelines.")
    filter_nodes: int = Field(256, ge=1, description="Conditions and operators of one filter.")
    filter_depth: int = Field(8, ge=1, description="Nesting of one filter.")
    timeout_ms: int = Field(60_000, ge=1, description="Time a search or a wait may take.")


class Settings(BaseSettings):
    """How one service runs. Limits are set as `WINNOW_LIMITS__TOP_K=500`, lists and objects as JSON."""

    model_config = SettingsConfigDict(
        env_prefix="WINNOW_", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on.")
    data_dir: Path = Field(Path("data"), description="Where collections and caches live.")
    redis_url: SecretStr | None = Field(
        None,
        description="Redis that holds the logs of operations and the caches; none: SQLite files and memory.",
    )
    api_key: SecretStr | None = Field(None, description="Asked of every request but probes.")
    keys_file: Path | None = Field(
        None, description="Keys with scopes, made by `winnow keys`; keys.json in the data directory."
    )
    rate: str | None = Field(
        None,
        pattern=RATE,
        description="Requests that a key may make in a time, if it has no rate of its own.",
    )
    worker: Literal["embedded", "external"] = Field("embedded", description="Who runs the indexer.")
    encoder: str = Field(DEFAULT_ENCODER, description="Dense encoder of collections that name none.")
    sparse_encoder: str = Field(
        DEFAULT_SPARSE_ENCODER, description="Sparse encoder of collections that name none."
    )
    late_encoder: str = Field(
        DEFAULT_LATE_ENCODER, description="Encoder of late interaction of collections that name none."
    )
    cross_encoder: str | None = Field(
        DEFAULT_CROSS_ENCODER,
        description="Cross-encoder of the service, loaded at the start unless it is the default one.",
    )
    in_context_model: str = Field(
        DEFAULT_IN_CONTEXT, description="Language model that reads in context, of collections that name none."
    )
    in_context_cache_bytes: int = Field(
        2**30, ge=0, description="What documents that such a model has read may take in memory, a model."
    )
    encoders: tuple[str, ...] = Field((), description="Further nets that a collection may name.")
    idf_tables: dict[str, Path] = Field({}, description="Tables of idf weights that a collection may name.")
    repositories: dict[str, str] = Field(
        {}, description="Where backups are kept, by name: directories, or URLs that fsspec opens."
    )
    models: dict[str, str] = Field(
        {}, description="Names that clients may give as `model`, each for ROLE or ROLE:WEIGHTS."
    )
    reranker: Served = Field("late", description="Role that reranks where a request names no model.")
    pipelines: dict[str, list[dict[str, Any]]] = Field(
        {}, description="Named pipelines, beside or in place of those that are built in."
    )
    threads: int | None = Field(None, ge=1, description="Threads of CPU work; as many as cores by default.")
    requests: int | None = Field(
        None,
        ge=1,
        description="Searches and requests to models worked on at a time, then 429; 32 a thread by default.",
    )
    queue_ms: int = Field(
        500, ge=1, description="Within what time a search should be done that has others before it; or 429."
    )
    batch_tokens: int | None = Field(
        None, ge=1, description="Padded tokens of one forward of a net; measured for each by default."
    )
    batch_texts: int = Field(64, ge=1, description="Texts of one forward of a net.")
    queued_tokens: int = Field(65_536, ge=1, description="Tokens that may wait for a net before 429.")
    result_cache_bytes: int = Field(
        64 * 2**20, ge=0, description="What answers to searches may take in a cache, in memory or in Redis."
    )
    encoding_cache_bytes: int = Field(
        32 * 2**20, ge=0, description="What encodings of questions may take there."
    )
    timeout_ms: int = Field(5_000, ge=1, description="Deadline of a search that names none.")
    model_timeout_ms: int = Field(30_000, ge=1, description="Deadline of a request to a model endpoint.")
    body_seconds: float = Field(
        30.0, gt=0, description="Time for a head, for a body, and for a client to take more of its answer."
    )
    drain_seconds: float = Field(
        10.0,
        ge=0,
        description="Time in which new requests are still answered after SIGTERM; and then to end.",
    )
    slow_search_ms: int = Field(1_000, ge=0, description="Searches that took longer are logged; 0: none.")
    log_format: Literal["text", "json"] = Field("text", description="How log lines are written.")
    log_level: Literal["debug", "info", "warning", "error"] | None = Field(
        None, description="The least that is logged; info, or warning where another process speaks too."
    )
    worker_metrics: Address | None = Field(None, description="HOST:PORT where the indexer shows metrics.")
    watch_seconds: float = Field(0.025, gt=0, description="How often a new generation is looked for.")
    scrub_bytes_per_second: int = Field(
        8 * 2**20, ge=0, description="How fast served files are compared with their checksums; 0: never."
    )
    keep_seconds: float = Field(60.0, ge=0, description="How long a superseded generation may be named.")
    limits: Limits = Limits()

    def keys_path(self) -> Path:
        """The file of keys, whether it is there or not."""
        return self.keys_file or self.data_dir / "keys.json"

    def cpu_threads(self) -> int:
        """How many threads do CPU work."""
        return self.threads or cores()

    def most_requests(self) -> int:
        """How many searches and requests to models are worked on at a time."""
        return self.requests or REQUESTS_A_THREAD * self.cpu_threads()

    def default_encoders(self) -> dict[str, str]:
        """What collections that name none get, by field of their schema."""
        return {
            "encoder": self.encoder,
            "sparse_encoder": self.sparse_encoder,
            "late_encoder": self.late_encoder,
            "in_context_model": self.in_context_model,
        }

    def weights(self) -> dict[Role, str | None]:
        """The names of the weights that a role of the model endpoints stands for."""
        return {
            "dense": self.encoder,
            "sparse": self.sparse_encoder,
            "late": self.late_encoder,
            "in_context": self.in_context_model,
            "cross": self.cross_encoder,
        }

    def redis(self) -> str | None:
        """The URL of the Redis server, with the password that it may hold."""
        return None if self.redis_url is None else self.redis_url.get_secret_value()

    def names(self) -> dict[str, list[str]]:
        """What the fields of a collection's schema may name."""
        encoders = self.default_encoders().items()
        return {
            **{field: sorted({default, *self.encoders}) for field, default in encoders},
            "sparse_idf": sorted({OWN_IDF, *self.idf_tables}),
            "sparse_quality": sorted({OWN_SCORER, *self.encoders}),
        }

    @field_validator("models")
    @classmethod
    def _each_for_a_role(cls, value: dict[str, str]) -> dict[str, str]:
        for text in value.values():
            target(text)
        return value

    @field_validator("repositories")
    @classmethod
    def _can_be_opened(cls, value: dict[str, str]) -> dict[str, str]:
        for place in value.values():
            check_place(place)
        return value

    @field_validator("worker_metrics")
    @classmethod
    def _a_port(cls, value: str | None) -> str | None:
        if value is not None and int(value.rpartition(":")[2]) > 65_535:
            raise ValueError(f"{value!r} names a port above 65535")
        return value

    @field_validator("idf_tables")
    @classmethod
    def _not_the_models_own(cls, value: dict[str, Path]) -> dict[str, Path]:
        if OWN_IDF in value:
            raise ValueError(
                f"{OWN_IDF!r} stands for the weights that come with a model: choose another name"
            )
        return value

    @model_validator(mode="after")
    def _key_beyond_loopback(self) -> Self:
        if self.api_key is not None and not self.api_key.get_secret_value().strip():
            raise ValueError("WINNOW_API_KEY is empty: give it a value or leave it unset")
        if self.api_key is None and not is_loopback(self.host) and not self.keys_path().exists():
            raise ValueError(
                f"refusing to listen on {self.host!r} without an API key, since anyone who reaches it could "
                "read and delete everything: set WINNOW_API_KEY, make keys by `winnow keys add`, or listen "
                "on 127.0.0.1"
            )
        return self


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address. Names other than localhost are not looked up."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
