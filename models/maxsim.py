"""Products of int8 token vectors, the one part of rescoring that wants a tensor library.

On a CPU `products` is an int8 product of matrices, a third to a tenth of float32's time; `best_matches` does
everything on one device, for those that are not a CPU. Both are exact, so scores have the same bits on all of
them. Formats and scores are those of the token store; a net's vectors come from elsewhere.
"""

import logging
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

LARGEST_DIM = 1040
"""Dimensions up to which float32 adds products of int8 codes exactly: 1040 * 127 * 127 < 2**24."""


def products(codes: NDArray[np.int8], asked: NDArray[np.int8]) -> NDArray[np.int32]:
    """Exact dot products of int8 codes [t, dim] and [q, dim], all from -127 to 127: int32 [t, q]."""
    ours, theirs = torch.from_numpy(codes), torch.from_numpy(asked)
    # torch 2.13 gives what lay in memory for vectors of one dimension
    fit = codes.shape[1] > 1 and int8_is_exact()
    found = torch._int_mm(ours, theirs.T) if fit else _through_floats(ours, theirs)
    return found.numpy()


def reference_products(codes: NDArray[np.int8], asked: NDArray[np.int8]) -> NDArray[np.int32]:
    """What `products` gives, by definition and slowly."""
    found: NDArray[np.int32] = codes.astype(np.int32) @ asked.astype(np.int32).T
    return found


def best_matches(
    codes: NDArray[np.int8],
    scales: NDArray[np.float32],
    offsets: NDArray[np.int64],
    asked: NDArray[np.int8],
    device: str,
) -> NDArray[np.float32]:
    """For every ragged row its best scaled product with each of the question's vectors, float32 [n, q].

    Row i has the vectors `offsets[i]:offsets[i + 1]` of `codes`, int8 [t, dim], with `scales`, float32 [t].
    One product for all vectors, then a maximum over each row's: nothing is padded. Minus infinity for a row
    without vectors.
    """
    lengths = torch.from_numpy(np.diff(offsets)).to(device)
    similar = _products_on(torch.from_numpy(codes).to(device), torch.from_numpy(asked).to(device))
    scaled = similar.float() * torch.from_numpy(scales).to(device)[:, None]
    best = torch.full((len(lengths), scaled.shape[1]), -torch.inf, device=scaled.device)
    rows = torch.repeat_interleave(lengths)[:, None].expand_as(scaled)
    found: NDArray[np.float32] = best.scatter_reduce(0, rows, scaled, "amax").cpu().numpy()
    return found


@cache
def int8_is_exact() -> bool:
    """Whether this CPU multiplies int8 matrices without saturating on the way; tried once.

    Instructions before VNNI add pairs of products in 16 bits, which the largest codes overflow.
    """
    random = np.random.default_rng(0)
    extremes = random.choice(np.array([-127, 127], np.int8), (64, 384))
    equal = np.full((64, 384), 127, np.int8)
    exact = all(
        np.array_equal(
            torch._int_mm(torch.from_numpy(codes), torch.from_numpy(asked).T).numpy(),
            reference_products(codes, asked),
        )
        for codes, asked in ((extremes, extremes[:32]), (equal, equal[:32]), (-equal, equal[:32]))
    )
    logger.info("token vectors are multiplied as %s", "int8" if exact else "float32: int8 is not exact here")
    return exact


def mean_best(vectors: NDArray[np.float32], asked: NDArray[np.float32]) -> float:
    """MaxSim of a text's unit vectors [t, dim]: the mean over the question's, [q, dim], of the best cosine.

    By torch and not numpy, whose threads would be others than those of the forward that made the vectors.
    """
    cosines = torch.from_numpy(vectors) @ torch.from_numpy(asked).T
    return float(cosines.amax(0).mean(dtype=torch.float64))


def _products_on(codes: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    """Exact products on a tensor's device; cuBLAS multiplies int8 in eights of rows, 17 at the least."""
    if codes.device.type != "cuda" or asked.shape[1] % 8:
        return _through_floats(codes, asked)
    t, q = len(codes), len(asked)
    codes = torch.nn.functional.pad(codes, (0, 0, 0, max(0, 17 - t)))
    asked = torch.nn.functional.pad(asked, (0, 0, 0, -q % 8))
    return torch._int_mm(codes, asked.T)[:t, :q]


def _through_floats(codes: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    """Products by float32 where no sum passes 2**24, up to which it has every integer; by float64 otherwise.

    So also on other devices, which may multiply float32 with fewer bits than it has.
    """
    exact = codes.shape[1] <= LARGEST_DIM and codes.device.type == "cpu"
    kind = torch.float32 if exact else torch.float64
    return (codes.to(kind) @ asked.to(kind).T).to(torch.int32)
