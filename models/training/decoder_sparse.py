r"""A causal language model learns to weigh its own vocabulary: learned sparse retrieval without a masked one.

Two heads, both read by `models.sparse_folder`, over a decoder that LoRA adapts:

- "decoder" (Mistral-SPLADE: Doshi et al. 2024, arXiv 2408.11119): the text stands twice, and the second copy,
  which alone has seen all of it, votes: `w_j = max_i log1p(relu(H_ij))`.
- "prosper" (PROSPER: Song et al. 2025, arXiv 2510.18527): the last position alone says the base weights
  `w = log1p(relu(H_l))`, and a literal residual network lifts the text's own terms to where it wants them,
  `W = w + I * (max_j w'_j - w'_j)` with `w' = F log1p(relu(h_l)) + b`. F [vocabulary, hidden] is as large as
  the language model's head, so it begins as that and changes by a matrix of low rank.

Both learn by InfoNCE over the documents of all questions of a step, and are kept sparse by FLOPS of the base
weights:

    loss = InfoNCE(s / temperature) + lambda_q(t) FLOPS(w_q) + lambda_d(t) FLOPS(w_d)

They begin dense, and differ in what is done about it. "prosper" learns through the lexical focusing window:
of a text only its heaviest terms are matched, s = Q . D with Q of unit length, which is the harder limit at
first and none once FLOPS has done its work. Through a window "decoder" would see only what all texts have in
common, since an untrained model has commas and articles anywhere. So s = w_q . w_d, the window cuts what is
stored, and before it learns a term's row of the language model's head is scaled by how seldom the term is
above zero (`rarity`).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModelForCausalLM, AutoTokenizer

from models import Kind
from models.csr import Csr
from models.in_context.gguf import quiet
from models.in_context.opened import opened
from models.load import Weights
from models.packing import pack
from models.precision import prepared, pretrained
from models.sparse import SparseEncoder
from models.sparse_folder import Opened
from models.sparse_recipe import FILE, Recipe
from models.tokens import padded
from models.training.decoder_nets import DecoderNet, Echo, Prosper, cut, rarity, window
from models.training.fit import Options, Run, Student, fit
from models.training.groups import Group, sample
from models.training.losses import flops, info_nce, warmed
from models.training.measures import ndcg

log = logging.getLogger(__name__)

BUDGET = 1024
"""Padded tokens per forward."""


@dataclass(frozen=True, kw_only=True)
class DecoderSparseOptions(Options):
    """`kind` is the head. `layers` are the first ones of the decoder, to which it is cut; None for all.

    `rank`, `alpha` and `dropout` are LoRA's, on every linear layer. `documents` of each group are read in a
    step: a relevant one, others by chance. `max_tokens` are those of a text as it is read, both copies
    counted. Scores are divided by `temperature`; those of a "decoder" are large at first, and learn faster at
    5 or more. `query_weight` and `document_weight` are lambda, reached after the share `ramp` of the steps;
    `query_terms` and `document_terms` are the windows. `counted` are the texts by which the head of a
    "decoder" is scaled before it learns; none leaves it as it is.
    """

    batch: int = 4
    learning_rate: float = 1e-3
    kind: Literal["decoder", "prosper"] = "prosper"
    layers: int | None = None
    rank: int = 16
    alpha: int = 8
    dropout: float = 0.1
    documents: int = 2
    max_tokens: int = 256
    temperature: float = 1.0
    query_weight: float = 5e-3
    document_weight: float = 1e-3
    ramp: float = 0.33
    query_terms: int = 256
    document_terms: int = 512
    counted: int = 192

    @property
    def lora(self) -> LoraConfig:
        """The adapter while it is trained."""
        return LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules="all-linear"
        )

    @property
    def recipe(self) -> Recipe:
        """What `sparse.json` will say."""
        echo = self.kind == "decoder"
        return Recipe(
            kind=self.kind,
            pooling="max" if echo else "last",
            activation="log1p",
            separator="\n" if echo else None,
            query_terms=self.query_terms,
            document_terms=self.document_terms,
            max_tokens=self.max_tokens,
        )


class DecoderSparse(Student):
    """A decoder and its head. `encoder` is the production encoder over the net that is trained."""

    _special: Tensor

    def __init__(self, whole: Any, tokenizer: Any, options: DecoderSparseOptions) -> None:
        super().__init__(options.seed)
        self.options, self.recipe, self.tokenizer = options, options.recipe, tokenizer
        cut(whole, options.layers)
        self.net: DecoderNet = (Echo if options.kind == "decoder" else Prosper)(whole, options.lora)
        most = min(options.max_tokens, whole.config.max_position_embeddings, tokenizer.model_max_length)
        here = Weights("a decoder in training", Path(), "")
        self.encoder = SparseEncoder(here, Opened(self.net, self.recipe, tokenizer, int(most)))
        special = [each for each in tokenizer.all_special_ids if each < self.encoder.vocabulary]
        self.register_buffer("_special", torch.tensor(special), persistent=False)

    def forward(self, groups: list[Group]) -> Tensor:
        """The loss of a step, a scalar."""
        options, chance = self.options, self.generator()
        sampled = [sample(group, options.documents, chance) for group in groups]
        queries, base_queries = self.vectors([group.query for group in sampled], "query")
        documents, base = self.vectors([text for group in sampled for text in group.texts], "document")
        targets, banned = _targets(groups, sampled)
        scores = (queries @ documents.T / options.temperature).masked_fill(
            banned.to(queries.device), float("-inf")
        )
        over = round(options.ramp * options.steps)
        return (
            info_nce(scores, targets.to(scores.device))
            + warmed(options.query_weight, self.step, over) * flops(base_queries)
            + warmed(options.document_weight, self.step, over)
            * flops(base.view(len(sampled), -1, base.shape[1]))
        )

    def vectors(self, texts: Sequence[str], kind: Kind) -> tuple[Tensor, Tensor]:
        """Vectors as they are matched, and base weights w: both float32 [texts, vocabulary]."""
        tokens = self.encoder.tokenize(texts, kind)
        batches = pack([len(ids) for ids in tokens], BUDGET)
        parts = [self._forward([tokens[place] for place in batch]) for batch in batches]
        order = torch.argsort(torch.tensor([place for batch in batches for place in batch]))
        whole, base = (torch.cat(each)[order] for each in zip(*parts, strict=True))
        if self.recipe.kind == "decoder":
            return whole, base
        kept = window(whole, self.recipe.terms(kind))
        return normalize(kept) if kind == "query" else kept, base

    def _forward(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """W and w of a batch, as `SparseEncoder.forward` has W, with gradients."""
        signed, real = (torch.from_numpy(each).to(self._special.device) for each in padded(tokens, -1))
        voting = signed >= 0
        whole, base = self.net.both(torch.where(voting, signed, ~signed), real, voting)
        counted = voting.any(1, keepdim=True)
        whole = (whole.clamp(max=self.recipe.highest) * counted).index_fill(1, self._special, 0.0)
        return whole, (base * counted).index_fill(1, self._special, 0.0)


def train(
    training: Sequence[Group],
    validation: Sequence[Group],
    out: Path,
    options: DecoderSparseOptions,
    base: str,
    cache: Path | None,
) -> Run:
    """Train the causal model called `base`, and write `out` as a sparse encoder with all its weights.

    A base in GGUF is converted into `cache` first. Groups without a relevant document, or with too few
    others for a step, are left out. Validation is nDCG@10 of the validation groups' documents, and what is
    matched there: entries of a question and of a passage, and `products`, the mean number of entries that a
    question and a passage share.
    """
    found = opened(base, cache)
    if found.adapter is not None:
        raise ValueError(f"{base} is weights with an adapter for reranking: name the weights alone")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    path, dtype = prepared(replace(found.base, path=found.path), device, "auto", None)
    with quiet():
        whole = pretrained(AutoModelForCausalLM, path, device, dtype)
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    torch.manual_seed(options.seed)
    student = DecoderSparse(whole, tokenizer, options).to(device)
    usable = [
        group
        for group in training
        if any(group.relevant) and group.relevant.count(False) >= options.documents - 1
    ]
    judged = [group for group in validation if any(group.relevant)]
    log.info("%d of %d groups can be learned from", len(usable), len(training))
    if options.kind == "decoder" and options.counted:
        student.net.scale(rarity(begun(student, usable)))
    run = fit(
        student,
        usable,
        lambda: measured(student.encoder, judged),
        "ndcg@10",
        out / "checkpoints",
        options,
    )
    save(student, out)
    return run


@torch.no_grad()
def begun(student: DecoderSparse, groups: Sequence[Group]) -> Tensor:
    """Weights of some texts as they are before training, half of them questions: float32 [texts, vocabulary].

    At most `options.counted`, from all over the groups.
    """
    few = groups[:: max(1, 2 * len(groups) // student.options.counted)]
    student.eval()
    queries, _ = student.vectors([group.query for group in few], "query")
    documents, _ = student.vectors([group.texts[0] for group in few], "document")
    return torch.cat([queries, documents])


def measured(encoder: SparseEncoder, groups: Sequence[Group]) -> dict[str, float]:
    """What an encoder is worth on groups; see `train`."""
    places = {text: place for place, text in enumerate(dict.fromkeys(t for g in groups for t in g.texts))}
    documents = encoder.encode(list(places), "document")
    queries = encoder.encode([group.query for group in groups], "query")
    ranked = []
    for group, (terms, weights) in zip(groups, queries, strict=True):
        query = np.zeros(encoder.vocabulary, np.float32)
        query[terms] = weights
        rows = documents.take([places[text] for text in group.texts])
        scores = [float(query[terms] @ weights) for terms, weights in rows]
        ranked.append((scores, group.relevant))
    shares = [_shares(each, encoder.vocabulary) for each in (queries, documents)]
    return {
        "ndcg@10": ndcg(ranked),
        "query_terms": float(shares[0].sum()),
        "document_terms": float(shares[1].sum()),
        "products": float(shares[0] @ shares[1]),
    }


def save(student: DecoderSparse, out: Path) -> None:
    """Write what `models.sparse_folder` reads: the merged decoder, its tokeniser and `sparse.json`."""
    out.mkdir(parents=True, exist_ok=True)
    with quiet():
        student.net.body.save_pretrained(out, state_dict=student.net.merged())
    student.tokenizer.save_pretrained(out)
    if beside := student.net.beside():
        save_file(beside, out / student.recipe.weights)
    (out / FILE).write_text(student.recipe.model_dump_json(indent=2, exclude_none=True) + "\n", "utf-8")


def _shares(vectors: Csr, vocabulary: int) -> np.ndarray:
    """In which share of the rows each entry is above zero."""
    return np.bincount(vectors.terms, minlength=vocabulary) / max(1, len(vectors))


def _targets(groups: Sequence[Group], sampled: Sequence[Group]) -> tuple[Tensor, Tensor]:
    """Which of a step's documents is each question's own, int64 [questions], and with which it is not
    compared, bool [questions, documents]: its other relevant ones, and the same one again.
    """
    documents = [document for group in sampled for document in group.documents]
    begins = [row * len(documents) // len(sampled) for row in range(len(sampled))]
    targets = torch.tensor(begins)  # a sample's relevant document comes first
    relevant = [
        {document for document, good in zip(group.documents, group.relevant, strict=True) if good}
        for group in groups
    ]
    banned = torch.tensor([[document in good for document in documents] for good in relevant])
    return targets, banned.scatter(1, targets[:, None], False)
