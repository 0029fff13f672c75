"""Texts to the tokens of a prompt, within limits, and where its parts stand.

Each part is tokenised by itself, so that a document's tokens do not depend on what is beside it. What users
wrote is read as plain text: a document that says `<|im_end|>` says these characters and ends nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.in_context.items import Block, Cut, Mode, Prompt, Question
from models.in_context.read_out import Drop, ReadOut
from models.in_context.recipe import Recipe
from models.in_context.template import Template, template
from models.tokens import copied, spans

SENTINEL = "\x00"  # what a chat template is rendered around; no text of a request can hold it


class Layout:
    """The prompts of one net. Thread-safe."""

    def __init__(self, tokenizer: Any, recipe: Recipe) -> None:
        self._recipe = recipe
        self._own = copied(tokenizer.backend_tokenizer)  # for what templates say
        self._foreign = copied(tokenizer.backend_tokenizer)  # for what users say
        self._foreign.encode_special_tokens = True
        self._before, self._behind = _chat(tokenizer) if recipe.chat else _plain_text(tokenizer)

    def instruction(self, query: str | None = None) -> Cut:
        """The first part: without a question, or with it."""
        of = _template(query is None)
        return self._around(self._before + of.instruction, query)

    def documents(self, documents: Sequence[tuple[str, str]]) -> list[Cut]:
        """Titles and texts as documents of a prompt; never an empty one."""
        head, between, tail = _parts(template("query_free").document)
        titles = self._plain([f" {title}" if title else "" for title, _ in documents])
        texts = self._plain([text for _, text in documents])
        begin, middle, end = (self._ids(part) for part in (head, between, tail))
        found = []
        for title, text in zip(titles, texts, strict=True):
            kept = title[: self._recipe.title_tokens]
            opening = begin + kept + middle
            room = max(self._recipe.document_tokens - len(opening) - len(end), 0)
            lost = len(title) - len(kept) + max(len(text) - room, 0)
            found.append(Cut(opening + text[:room] + end, lost))
        return found

    def question(
        self, query: str, mode: Mode, read: ReadOut | None = None, drop: Drop | None = None
    ) -> Question:
        """The last part: the question, and one without content if the read-out wants it."""
        chosen = read or self._recipe.read
        of = _template(mode in ("cached", "keys"))
        block, lost = self._block(of, query)
        free = self._block(of, of.content_free)[0] if chosen.calibrate else None
        signal = range(len(block.ids) - of.signal, len(block.ids))
        return Question(block, signal, chosen, free, drop, lost)

    def prompt(
        self,
        query: str,
        documents: Sequence[Sequence[int]],
        mode: Mode,
        read: ReadOut | None = None,
        drop: Drop | None = None,
    ) -> Prompt:
        """A whole prompt over documents that are tokens already."""
        aware = mode in ("dense", "query_aware")
        instruction = self.instruction(query if aware else None).ids
        question = self.question(query, mode, read, drop)
        again = mode == "dense" and question.free is not None
        free = self.instruction(template("query_aware").content_free).ids if again else None
        return Prompt(mode, instruction, documents, question, free)

    def span(self) -> int:
        """Positions from the first token of an instruction to the last of a question, as long as can be."""
        aware = template("query_aware")
        without = len(self.instruction("").ids) + len(self._block(aware, "")[0].ids)
        return without + 2 * self._recipe.question_tokens + self._recipe.gap

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Tokens as a reader knows them, spaces included."""
        return [self._own.decode([number], skip_special_tokens=False) for number in ids]

    def offsets(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Character (start, end) of every token of each whole text: int64 [tokens, 2], nothing cut."""
        return spans(self._foreign, texts)

    def _block(self, of: Template, query: str) -> tuple[Block, int]:
        before, behind = of.question.split("{query}")
        asked, lost = self._query(query)
        first = self._ids(before.rstrip(" "))
        last = self._ids(behind + self._behind + of.answer)
        words = range(len(first), len(first) + len(asked))
        return Block(first + asked + last, words), lost

    def _around(self, text: str, query: str | None) -> Cut:
        """A text of a template with the question in its place."""
        if query is None:
            return Cut(self._ids(text), 0)
        before, behind = text.split("{query}")
        asked, lost = self._query(query)
        return Cut(self._ids(before.rstrip(" ")) + asked + self._ids(behind), lost)

    def _query(self, query: str) -> tuple[list[int], int]:
        (ids,) = self._plain([f" {query}"])
        most = self._recipe.question_tokens
        return ids[:most], max(len(ids) - most, 0)

    def _ids(self, text: str) -> list[int]:
        return self._own.encode(text, add_special_tokens=False).ids

    def _plain(self, texts: Sequence[str]) -> list[list[int]]:
        found = self._foreign.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in found]


def _template(query_free: bool) -> Template:
    return template("query_free" if query_free else "query_aware")


def _parts(document: str) -> tuple[str, str, str]:
    """What stands before the title, between title and text, and behind the text."""
    before, rest = document.split("{title}")
    between, behind = rest.split("{text}")
    return before.rstrip(" "), between, behind


def _chat(tokenizer: Any) -> tuple[str, str]:
    """What a chat template puts around a user's message."""
    if not tokenizer.chat_template:
        return _plain_text(tokenizer)
    messages = [{"role": "user", "content": SENTINEL}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    before, _, behind = text.partition(SENTINEL)
    return before, behind


def _plain_text(tokenizer: Any) -> tuple[str, str]:
    """Around a message without a template: the token that every text begins with, if any, and a new line."""
    begins = tokenizer.bos_token_id is not None and tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
    return tokenizer.bos_token if begins else "", "\n"
