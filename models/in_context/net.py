"""An LLM that reranks: reads documents once, asks questions over them, and says where its attention went.

Instruction, documents and question pass through the net one after the other: the instruction once, documents
as batches of like length over its keys and values, questions over both, and none beyond the last layer that
is read. The result is that of one forward of the whole prompt under BlockRank's mask, without its cost.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.in_context import families
from models.in_context.attention import Alone, Asked, Asker, Flat, Pass, Plan
from models.in_context.batches import Backend
from models.in_context.decoder import Decoder
from models.in_context.flat import Attend, causal_attention
from models.in_context.growing import Growing
from models.in_context.items import (
    AloneItem,
    AskItem,
    Block,
    Cut,
    DocumentItem,
    Item,
    KeyQuestion,
    Mode,
    Prompt,
    PromptItem,
    Question,
)
from models.in_context.layout import Layout
from models.in_context.opened import Opened, load_model, opened
from models.in_context.policies import sparse_attention
from models.in_context.read_out import Drop, Icr, Reading, ReadOut, parts
from models.in_context.segments import Segments
from models.in_context.states import Joined, Source, States
from models.in_context.survey import AloneSurveyed, Surveyed, by_head
from models.packing import pack
from models.precision import DType

TOGETHER = 4096
"""Tokens of documents between two reports of progress."""


class InContextNet:
    """An LLM for reranking on one device. Forwards are for one thread at a time, the rest for any.

    `fingerprint` is of all that decides what is made of a document and no more: weights and adapter,
    query-free instruction, document text, limits, l*. `max_tokens` bounds a prompt of mode `dense`.
    """

    def __init__(
        self, found: Opened, model: Any, tokenizer: Any, device: str, backend: Backend | None = None
    ) -> None:
        families.check(model, found.name)
        config, recipe = model.config, found.recipe
        self.name, self.recipe, self.device = found.name, recipe, device
        self.dtype = cast(torch.dtype, model.dtype)
        self.layers = int(config.num_hidden_layers)
        self.layer = _layer(recipe.layer, self.layers, found.name)
        self.heads = int(config.num_attention_heads)
        self.kv_heads = int(getattr(config, "num_key_value_heads", None) or self.heads)
        self.head_dim = int(getattr(config, "head_dim", None) or config.hidden_size // self.heads)
        self.max_tokens = families.span(model)
        self.layout = Layout(tokenizer, recipe)
        families.check_span(model, found.name, self.layout.span())
        self.fingerprint = _fingerprint(found, self.layer, self.layout)
        self._resumes = config.model_type in families.RESUMED
        self._decoder = Decoder(model, self.layer, device, backend)
        self._free: dict[ReadOut, KeyQuestion] = {}
        self._plans: dict[ReadOut, Plan] = {}

    @classmethod
    def load(
        cls, name: str, *, cache: Path | None = None, device: str | None = None, dtype: DType = "auto"
    ) -> Self:
        """Load weights, or a folder with an in_context.json. WeightsMissing; ValueError if it cannot run."""
        where = device or ("cuda" if torch.cuda.is_available() else "cpu")
        found = opened(name, cache)
        return cls(found, *load_model(found, where, dtype), where)

    # Texts to tokens

    def document_tokens(self, documents: Sequence[tuple[str, str]]) -> list[Cut]:
        """Titles and texts as the net reads them."""
        return self.layout.documents(documents)

    def question(
        self, query: str, mode: Mode, read: ReadOut | None = None, drop: Drop | None = None
    ) -> Question:
        """A question as the net reads it. ValueError for a read-out or a drop that this net cannot do."""
        question = self.layout.question(query, mode, read, drop)
        self._check(question, mode)
        return question

    def prompt(
        self,
        query: str,
        documents: Sequence[Sequence[int]],
        mode: Mode,
        read: ReadOut | None = None,
        drop: Drop | None = None,
    ) -> Prompt:
        """A whole prompt over documents as tokens. ValueError as of `question`, and for one too long."""
        prompt = self.layout.prompt(query, documents, mode, read, drop)
        self._check(prompt.question, mode)
        most = len(prompt.instruction) + prompt.read + len(prompt.question.block.ids)
        if mode == "dense" and most > self.max_tokens:
            raise ValueError(
                f"a prompt of {most} tokens, and {self.name} sees {self.max_tokens}: rerank fewer documents"
            )
        return prompt

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Tokens as a reader knows them, spaces included."""
        return self.layout.pieces(ids)

    def offsets(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Character (start, end) of every token of each whole text: int64 [tokens, 2], nothing cut."""
        return self.layout.offsets(texts)

    # Reading

    def read_documents(self, tokens: Sequence[Sequence[int]]) -> list[States]:
        """Keys and values of every document, as they are for any question."""
        with torch.inference_mode():
            return [each.states() for each in self._decoder.read(tokens, self.instruction, self.layer)]

    def document_keys(self, tokens: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        """Keys of layer l* of every document: float32 [t, kv_heads, head_dim] each."""
        with torch.inference_mode():
            read = self._decoder.read(tokens, self.instruction, self.layer, wanted=[self.layer])
            return [each.keys[self.layer].transpose(0, 1).float().cpu().numpy() for each in read]

    def encode_keys(
        self, documents: Sequence[tuple[str, str]], *, progress: Callable[[int], None] | None = None
    ) -> list[NDArray[np.float32]]:
        """`document_keys` of titles and texts; `progress` hears of every few texts how many they are."""
        tokens = [cut.ids for cut in self.document_tokens(documents)]
        found = [np.empty(0, np.float32)] * len(tokens)
        for batch in pack([len(ids) for ids in tokens], TOGETHER):
            for number, keys in zip(batch, self.document_keys([tokens[n] for n in batch]), strict=True):
                found[number] = keys
            if progress is not None:
                progress(len(batch))
        return found

    # Asking

    def ask_alone(self, questions: Sequence[Question]) -> list[KeyQuestion]:
        """Questions that will meet documents' keys of layer l*. No token of a document passes through."""
        with torch.inference_mode():
            new = {each.read: each for each in questions if each.free and each.read not in self._free}
            blocks = [each.block for each in questions] + [each.free for each in new.values() if each.free]
            vectors = self._vectors(blocks, [*questions, *new.values()])
            self._free.update(zip(new, vectors[len(questions) :], strict=True))
        return [
            _less(own, self._free[each.read]) if each.free else own
            for own, each in zip(vectors, questions, strict=False)
        ]

    def ask(self, questions: Sequence[Question], documents: Sequence[Source]) -> list[Reading]:
        """Each question over its own documents, all in one forward."""
        with torch.inference_mode():
            return self._ask(questions, documents, self.instruction)

    def rank(self, prompts: Sequence[Prompt]) -> list[Reading]:
        """Whole prompts, one after the other."""
        with torch.inference_mode():
            return [self._dense(each) if each.mode == "dense" else self._in_blocks(each) for each in prompts]

    def flat(self, prompt: Prompt, attend: Attend, positions: Tensor) -> Reading:
        """A whole prompt as one sequence under any attention, its tokens at `positions` int64 [t].

        Without the content-free question, whatever the read-out says.
        """
        with torch.inference_mode():
            mass = self._flat(prompt.instruction, prompt, prompt.question.block, attend, positions)
            return self._reading(mass, prompt)

    def survey(self, query: str, documents: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """What each head gives to each document, calibrated: float32 [2, layers, heads, documents].

        First as in mode `cached`, then as in mode `keys`; of the layers up to l*. See
        `models.in_context.survey`.
        """
        question = self.layout.question(query, "cached", Icr())
        lengths = [len(block.ids) for block in question.blocks()]
        rows = [question.rows(block) for block in question.blocks()]
        with torch.inference_mode():
            states = [each.states() for each in self._decoder.read(documents, self.instruction, self.layer)]
            asked = Surveyed(lengths, rows, self._plan(Icr()), self.instruction, Joined(states))
            self._questions(question.blocks(), self.instruction, Asker([asked], self.layer))
            alone = AloneSurveyed(lengths, self.instruction, self.layer)
            self._questions(question.blocks(), self.instruction, alone)
            met = []
            for layer, queries in enumerate(alone.found):
                keys = torch.cat([each.keys[layer] for each in states], dim=1)
                own, free = (
                    by_head(each[:, places], keys, [len(ids) for ids in documents], 1.0)
                    for each, places in zip(queries, rows, strict=True)
                )
                met.append(own - free)
            found: NDArray[np.float32] = (
                torch.stack([torch.stack(asked.found), torch.stack(met)]).float().cpu().numpy()
            )
        return found

    def forward(self, items: Sequence[Item]) -> NDArray[np.object_]:
        """What a batcher runs: object [items], of each what its class says."""
        found = np.empty(len(items), np.object_)
        for kind, run in self._runs.items():
            numbers = [number for number, item in enumerate(items) if isinstance(item, kind)]
            if numbers:
                for number, made in zip(numbers, run([items[n] for n in numbers]), strict=True):
                    found[number] = made
        return found

    @cached_property
    def _runs(self) -> Mapping[type[Item], Callable[[Sequence[Any]], Sequence[Any]]]:
        return {
            DocumentItem: lambda items: self.read_documents([item.ids for item in items]),
            AloneItem: lambda items: self.ask_alone([item.question for item in items]),
            AskItem: lambda items: self.ask(
                [item.question for item in items], [item.documents for item in items]
            ),
            PromptItem: lambda items: self.rank([item.prompt for item in items]),
        }

    def _check(self, question: Question, mode: Mode) -> None:
        plan = self._plan(question.read.at(self.layer) if mode == "keys" else question.read)
        drop = question.drop
        if drop is None:
            return
        if mode not in ("cached", "query_aware"):
            raise ValueError(f"documents are dropped early in modes cached and query_aware, not in {mode}")
        if not 0 < drop.layer < plan.last:
            raise ValueError(f"documents are dropped at a layer from 1 to {plan.last - 1}, not {drop.layer}")
        if mode == "query_aware" and not self._resumes:
            raise ValueError(f"{self.name} cannot drop documents while reading: it cannot read on")

    def _plan(self, read: ReadOut) -> Plan:
        if read not in self._plans:
            self._plans[read] = Plan(read, self.layer, self.heads, self.device)
        return self._plans[read]

    @cached_property
    def instruction(self) -> States:
        """The query-free instruction, read; documents' states are like its own, more or less."""
        with torch.inference_mode():
            return self._instruct(self.layout.instruction().ids)

    def _instruct(self, ids: Sequence[int]) -> States:
        return self._decoder.read([ids], None, self.layer)[0].states()

    def _ask(
        self, questions: Sequence[Question], documents: Sequence[Source], before: States
    ) -> list[Reading]:
        asked = [
            Asked(
                [len(block.ids) for block in question.blocks()],
                [question.rows(block) for block in question.blocks()],
                self._plan(question.read),
                before,
                source,
                question.drop,
            )
            for question, source in zip(questions, documents, strict=True)
        ]
        last = max(self._plan(question.read).last for question in questions)
        blocks = [block for question in questions for block in question.blocks()]
        self._questions(blocks, before, Asker(asked, last))
        return [each.reading() for each in asked]

    def _questions(self, blocks: Sequence[Block], before: States, attention: Pass) -> None:
        """Blocks one behind the other through the net, each at the question's positions."""
        begin = before.tokens + self.recipe.gap
        positions = torch.cat([torch.arange(begin, begin + len(block.ids)) for block in blocks])
        self._decoder.flat(list(chain.from_iterable(block.ids for block in blocks)), positions, attention)

    def _vectors(self, blocks: Sequence[Block], questions: Sequence[Question]) -> list[KeyQuestion]:
        alone = Alone([len(block.ids) for block in blocks], self.instruction, self.layer)
        self._questions(blocks, self.instruction, alone)
        return [
            self._key_question(queries[:, question.rows(block)], question.read.at(self.layer))
            for queries, block, question in zip(alone.queries, blocks, questions, strict=True)
        ]

    def _key_question(self, queries: Tensor, read: ReadOut) -> KeyQuestion:
        """The rows of queries, float32 [heads, signal, head_dim], that have a weight."""
        weights = self._plan(read).weights[self.layer]
        used, signal = weights.nonzero()[:, 0], queries.shape[1]
        vectors = (queries[used] / read.temperature).reshape(-1, self.head_dim)
        shared = used // (self.heads // self.kv_heads)
        counted = torch.outer(weights[used], parts(signal, read.later).to(weights))
        return KeyQuestion(
            vectors.cpu().numpy(),
            shared.repeat_interleave(signal).cpu().numpy(),
            counted.flatten().cpu().numpy(),
        )

    def _in_blocks(self, prompt: Prompt) -> Reading:
        before = self._instruct(prompt.instruction)
        return self._ask([prompt.question], [self._source(prompt, before)], before)[0]

    def _source(self, prompt: Prompt, before: States) -> Source:
        """The documents read over an instruction; if some will be dropped, only as far as there."""
        drop = prompt.question.drop
        if drop is None:
            return Joined(
                [each.states() for each in self._decoder.read(prompt.documents, before, self.layer)]
            )
        read = self._decoder.read(prompt.documents, before, self.layer, behind=drop.layer)
        return Growing(read, drop.layer, self.layer, partial(self._read_on, before))

    def _read_on(self, before: States, states: Sequence[Tensor], first: int, last: int) -> Any:
        return self._decoder.read(states, before, last, first=first)

    def _dense(self, prompt: Prompt) -> Reading:
        """The prompt as any decoder reads it; once more for a question without content, if that is wanted."""
        question = prompt.question
        mass = self._causal(prompt.instruction, prompt, question.block)
        if prompt.free_instruction is not None and question.free is not None:
            mass = mass - self._causal(prompt.free_instruction, prompt, question.free)
        return self._reading(mass, prompt)

    def _causal(self, instruction: Sequence[int], prompt: Prompt, block: Block) -> Tensor:
        lengths = [len(ids) for ids in prompt.documents]
        segments = Segments.of(len(instruction), lengths, len(block.ids))
        policy = self.recipe.policy
        attend = causal_attention if policy is None else sparse_attention(policy, segments)
        return self._flat(instruction, prompt, block, attend, segments.positions(None))

    def _flat(
        self, instruction: Sequence[int], prompt: Prompt, block: Block, attend: Attend, positions: Tensor
    ) -> Tensor:
        """Attention to the tokens of all documents, float32 [t]."""
        plan, question = self._plan(prompt.question.read), prompt.question
        begin, end = len(instruction), len(instruction) + prompt.read
        rows = [end + row for row in question.rows(block)]
        flat = Flat(attend, rows, slice(begin, end), plan)
        ids = [*instruction, *chain.from_iterable(prompt.documents), *block.ids]
        self._decoder.flat(ids, positions[: len(ids)], flat)
        return flat.mass

    def _reading(self, mass: Tensor, prompt: Prompt) -> Reading:
        return Reading.of(mass, [len(ids) for ids in prompt.documents], prompt.question.read.robust)


def _less(asked: KeyQuestion, free: KeyQuestion) -> KeyQuestion:
    """A question whose scores are less those of the content-free one."""
    return KeyQuestion(
        np.concatenate([asked.vectors, free.vectors]),
        np.concatenate([asked.kv_heads, free.kv_heads]),
        np.concatenate([asked.weights, -free.weights]),
    )


def _layer(wanted: int | None, layers: int, name: str) -> int:
    """l*: by default at three fifths of the depth, where the paper found the signal strong."""
    layer = round(0.6 * layers) if wanted is None else wanted
    if not 0 < layer < layers:
        raise ValueError(f"the layer that is read is from 1 to {layers - 1} in {name}, not {layer}")
    return layer


def _fingerprint(found: Opened, layer: int, layout: Layout) -> str:
    """16 hex digits over what is made of a document; the number format of the machine is no part of it."""
    what = [found.fingerprint, layer, layout.instruction().ids, layout.documents([("a", "b"), ("", "")])]
    limits = [found.recipe.document_tokens, found.recipe.title_tokens]
    return hashlib.sha256(json.dumps([*what, limits]).encode()).hexdigest()[:16]
