"""Which token of a prompt belongs to what, and who may look at whom.

A prompt is an instruction, documents and a question, one behind the other. BlockRank's rule
(arXiv 2510.05396, section 3): the instruction is causal, a document sees the instruction and itself,
causally; the question sees all that is before it. Documents share their positions, so their order says
nothing; the question begins far behind them. With one document the rule is the ordinary causal one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True)
class Segments:
    """Tokens of each part of a prompt. The instruction is segment 0, documents 1 to n, the question n + 1.

    An instruction or a question of 0 tokens is none; every document has at least one token.
    """

    instruction: int
    documents: tuple[int, ...]
    question: int

    def __post_init__(self) -> None:
        """ValueError: a length that cannot be."""
        if self.instruction < 0 or self.question < 0:
            raise ValueError(
                f"an instruction of {self.instruction}, a question of {self.question} tokens: no such"
            )
        for number, length in enumerate(self.documents):
            if length < 1:
                raise ValueError(f"document {number} has {length} tokens, at least 1 is needed")

    @classmethod
    def of(cls, instruction: int, documents: Sequence[int], question: int) -> "Segments":
        """Segments from any sequence of lengths."""
        return cls(instruction, tuple(documents), question)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of every segment, in order."""
        return (self.instruction, *self.documents, self.question)

    @property
    def starts(self) -> tuple[int, ...]:
        """Where every segment begins in the flat prompt, and at last where the prompt ends."""
        return (0, *accumulate(self.lengths))

    @property
    def tokens(self) -> int:
        """Tokens of the prompt."""
        return sum(self.lengths)

    def causal(self) -> "Segments":
        """The same tokens as one document: ordinary causal attention."""
        return Segments(0, (self.tokens,), 0) if self.tokens else Segments(0, (), 0)

    def windows(self, tokens: int) -> "Segments":
        """The tokens of the documents cut anew, into parallel windows of `tokens`; the last may be shorter.

        Parallel context windows (Ratner et al., arXiv 2212.10947). ValueError: windows of no tokens.
        """
        if tokens < 1:
            raise ValueError(f"windows of {tokens} tokens, at least 1 is needed")
        whole, rest = divmod(sum(self.documents), tokens)
        return Segments(self.instruction, (tokens,) * whole + (rest,) * (rest > 0), self.question)

    def ids(self, device: torch.device | str | None = None) -> Tensor:
        """The segment of each token, int64 [tokens], never falling."""
        lengths = torch.tensor(self.lengths, device=device)
        return torch.arange(len(lengths), device=device).repeat_interleave(lengths)

    def positions(self, gap: int | None, device: torch.device | str | None = None) -> Tensor:
        """The position of each token, int64 [tokens].

        Every document begins behind the instruction, the question `gap` behind it; without a gap, positions
        are the ordinary ones. ValueError: a document that would reach into the question.
        """
        if gap is None:
            return torch.arange(self.tokens, device=device)
        longest = max(self.documents, default=0)
        if longest > gap:
            raise ValueError(
                f"a document of {longest} tokens reaches into the question, which begins {gap} behind"
            )
        begins = (0, *(self.instruction for _ in self.documents), self.instruction + gap)
        moved = [begin - start for begin, start in zip(begins, self.starts, strict=False)]
        shift = torch.tensor(moved, device=device).repeat_interleave(
            torch.tensor(self.lengths, device=device)
        )
        return torch.arange(self.tokens, device=device) + shift


def mask(segments: Segments, device: torch.device | str | None = None) -> Tensor:
    """Whether a token (row) may look at another (column), by BlockRank's rule: bool [tokens, tokens].

    The size is quadratic: for long prompts see `models.in_context.flex`.
    """
    ids = segments.ids(device)
    places = torch.arange(len(ids), device=device)
    question = len(segments.documents) + 1
    row, column = ids[:, None], ids[None]
    return (places[:, None] >= places) & ((row == column) | (column == 0) | (row == question))
