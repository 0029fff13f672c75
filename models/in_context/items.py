"""What passes through a net together: documents to read, questions to ask. Each is as long as it
costs tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.in_context.read_out import Drop, ReadOut
from models.in_context.states import Source

Mode = Literal["dense", "query_aware", "cached", "keys"]


class Cut(NamedTuple):
    """A text as tokens, and how many of them the limits left out."""

    ids: list[int]
    lost: int


@dataclass(frozen=True)
class Block:
    """The last part of a prompt: its tokens, and where in them are the words of what is asked."""

    ids: list[int]
    words: range


@dataclass(frozen=True)
class Question:
    """A question as a net reads it. `free` is the same without content, where the read-out is calibrated by
    it.

    `lost` tokens of the question were left out by the limit; `signal` are the positions of the tokens that
    the answer begins with.
    """

    block: Block
    signal: range
    read: ReadOut
    free: Block | None = None
    drop: Drop | None = None
    lost: int = 0

    def blocks(self) -> list[Block]:
        """What is asked, and the content-free question behind it."""
        return [self.block] if self.free is None else [self.block, self.free]

    def rows(self, block: Block) -> list[int]:
        """Positions in a block from which attention is read."""
        if self.read.signal == "words":
            return list(block.words)
        behind = len(block.ids)
        return list(range(behind - len(self.signal), behind))

    def __len__(self) -> int:
        return sum(len(block.ids) for block in self.blocks())


@dataclass(frozen=True)
class Prompt:
    """A whole prompt of mode `query_aware` or `dense`.

    Where all is read anew for the content-free question, `free_instruction` is what it is read after; in mode
    `query_aware` that question looks at the documents as they were read for the other.
    """

    mode: Mode
    instruction: list[int]
    documents: Sequence[Sequence[int]]
    question: Question
    free_instruction: list[int] | None = None

    def __len__(self) -> int:
        twice = 0 if self.free_instruction is None else len(self.free_instruction) + self.read
        return len(self.instruction) + self.read + len(self.question) + twice

    @property
    def read(self) -> int:
        """Tokens of all documents."""
        return sum(map(len, self.documents))


@dataclass(frozen=True, eq=False)
class KeyQuestion:
    """A question that meets documents' keys of layer l*: a row for each token and head that is read.

    vectors float32 [rows, head_dim], with the softmax's scale in them; kv_heads int64 [rows] says whose keys
    a row meets, weights float32 [rows] what it counts. Rows of a content-free question count less than
    nothing.
    """

    vectors: NDArray[np.float32]
    kv_heads: NDArray[np.int64]
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class DocumentItem:
    """Read a document: `States`."""

    ids: list[int]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class AloneItem:
    """Ask without documents: `KeyQuestion`."""

    question: Question

    def __len__(self) -> int:
        return len(self.question)


@dataclass(frozen=True, eq=False)
class AskItem:
    """Ask over documents that were read: `Reading`."""

    question: Question
    documents: Source = field(repr=False)

    def __len__(self) -> int:
        return len(self.question)


@dataclass(frozen=True, eq=False)
class PromptItem:
    """Read and ask at once: `Reading`."""

    prompt: Prompt

    def __len__(self) -> int:
        return len(self.prompt)


Item = DocumentItem | AloneItem | AskItem | PromptItem
