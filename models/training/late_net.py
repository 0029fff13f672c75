"""Token vectors as they are served, with gradients: an encoder, a head, and what becomes one vector.

Texts are cut up and laid out by the encoder that serves (`models.late`), so tokens, their limits and which of
them get a vector are the same. Nothing is dropped out: a net is trained as it will run.
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from models import Kind
from models.late import BUDGET, LateEncoder
from models.late_folder import Opened
from models.late_gate import Gate
from models.late_heads import Head
from models.late_layout import Pieces, batched
from models.packing import pack
from models.training.merging import Merging, labels, merged


class TokenNet(nn.Module):
    """What `opened` holds, with `head` on it; `reader` is an encoder of the same folder, and reads texts.

    The body is trained as far as its weights require gradients. Vectors of passages become one as `merging`
    and `pool` say (see `models.training.merging`), and `gate` weighs them. Head and gate are in float32
    whatever the body computes in.
    """

    def __init__(
        self,
        opened: Opened,
        reader: LateEncoder,
        head: Head,
        gate: Gate | None,
        merging: Merging | None,
        pool: int,
    ) -> None:
        super().__init__()
        self.body, self.head, self.gate = opened.body, head, gate
        self.opened, self.reader = opened, reader
        self.learns = any(weight.requires_grad for weight in opened.body.parameters())
        self._merging, self._pool = merging, pool
        self._pad: int = opened.tokenizer.pad_token_id or 0

    def train(self, mode: bool = True) -> Self:
        """See `torch.nn.Module.train`."""
        super().train(mode)
        self.opened.body.eval()
        return self

    def passages(self, texts: Sequence[str]) -> tuple[list[Tensor], Tensor | None]:
        """What an index keeps of each text, float32 [rows, dim], and the gates of all rows, float32 [all].

        A row that a gate leaves out is 0 here.
        """
        found = self.vectors(texts, "document")
        if self._merging is not None:
            pieces = self.reader.pieces(texts)
            found = [self._merged(self._merging, *each) for each in zip(texts, found, pieces, strict=True)]
        if self.gate is None:
            return found, None
        gates: Tensor = self.gate(torch.cat(found))
        parts = torch.split(gates, [len(each) for each in found])
        return [one * each[:, None] for one, each in zip(found, parts, strict=True)], gates

    def vectors(self, texts: Sequence[str], kind: Kind) -> list[Tensor]:
        """Unit vectors float32 [rows, dim] of each text, a row for each token that gets a vector."""
        tokens = self.reader.tokenize(texts, kind)
        found: dict[int, Tensor] = {}
        for places in pack([len(each) for each in tokens], BUDGET):
            found.update(zip(places, self._read([tokens[place] for place in places]), strict=True))
        return [found[place] for place in range(len(texts))]

    def _read(self, tokens: Sequence[Sequence[int]]) -> list[Tensor]:
        body = self.opened.body
        ids, seen, counted = (torch.from_numpy(each).to(body.device) for each in batched(tokens, self._pad))
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.learns):
            states = body(input_ids=ids, attention_mask=seen.long()).last_hidden_state
        vectors: Tensor = self.head(states[counted].float())
        return list(torch.split(vectors, counted.sum(1).tolist()))

    def _merged(self, merging: Merging, text: str, vectors: Tensor, pieces: Pieces) -> Tensor:
        groups = labels(merging, self._pool, text, pieces.spans, vectors)
        return merged(vectors, torch.from_numpy(groups).long().to(vectors.device))
