"""How a text is laid out for a net that weighs terms, and which of its tokens have a vote.

A token that is read but does not vote stands as the complement of its number, `~id`, which is below zero:
so lists of tokens travel through batches and queues as lists of integers and still say what counts. Special
tokens and prompts do not vote. For a causal model the text stands twice (Springer et al. 2024, "echo
embeddings") and only the second copy votes; texts are cut so that this copy is always whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from models import Kind
from models.sparse_recipe import Recipe
from models.tokens import copied


@dataclass(frozen=True)
class Layout:
    """What stands before, between and after a text (all mute), and how many of its own tokens fit, `room`."""

    before: tuple[int, ...]
    between: tuple[int, ...] | None
    after: tuple[int, ...]
    room: int

    def lay(self, pieces: Sequence[int]) -> list[int]:
        """The tokens of a text that has these pieces; `between` given, the text comes twice."""
        text = pieces[: self.room]
        echo = () if self.between is None else (*mute(text), *self.between)
        return [*self.before, *echo, *text, *self.after]


def layout(backend: Tokenizer, recipe: Recipe, kind: Kind, most: int) -> Layout:
    """The layout of questions or passages in at most `most` tokens; raises ValueError if no text fits."""
    whole = copied(backend)
    before, after = _around(whole)
    before += _pieces(whole, recipe.prompts.get(kind, ""))
    between = None if recipe.separator is None else _pieces(whole, recipe.separator)
    left = most - len(before) - len(after)
    room = left if between is None else (left - len(between)) // 2
    if room < 1:
        raise ValueError(
            f"a prompt and a separator of {most - left} tokens leave no room for a text in {most}"
        )
    return Layout(mute(before), None if between is None else mute(between), mute(after), room)


def mute(ids: Sequence[int]) -> tuple[int, ...]:
    """These tokens without a vote."""
    return tuple(~number if number >= 0 else number for number in ids)


def _around(whole: Tokenizer) -> tuple[list[int], list[int]]:
    """The special tokens that the tokeniser puts before and after a text."""
    encoding = whole.encode("a")
    added = encoding.special_tokens_mask
    first = added.index(0)
    last = len(added) - added[::-1].index(0)
    return encoding.ids[:first], encoding.ids[last:]


def _pieces(whole: Tokenizer, text: str) -> list[int]:
    ids: list[int] = whole.encode(text, add_special_tokens=False).ids
    return ids
