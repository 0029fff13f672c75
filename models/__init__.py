"""Nets: texts in, arrays out. Nothing here knows documents, HTTP or files other than weights.

`load` finds weights, `packing` cuts batches by tokens, `dense` turns texts into vectors. Everything is plain
synchronous Python; the service reaches it through `service/batcher.py`, the indexer calls it directly.
"""

from typing import Literal

Kind = Literal["document", "query"]
"""What a text is to the net: some nets put another prompt before a question than before a passage."""
