"""One door to every net: what it is for and its name in, the loaded net out.

A net's class is imported when the first of its kind is asked for: what stands behind it (torch) takes
seconds, and a process whose collections hold words only never needs it.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from models.dense import DenseEncoder
    from models.sparse import SparseEncoder

Role = Literal["dense", "sparse", "quality"]
"""What a net is for; under this word its fingerprint stands in a manifest."""


def load(role: Role, name: str, *, cache: Path) -> "DenseEncoder | SparseEncoder":
    """Load the net called `name` (see `models.load`); converted weights are kept in `cache`.

    Raises WeightsMissing, or ValueError for weights that are not of this role.
    """
    if role == "sparse":
        from models.sparse import SparseEncoder

        return SparseEncoder.load(name, cache=cache)
    from models.dense import DenseEncoder

    return DenseEncoder.load(name, cache=cache)
