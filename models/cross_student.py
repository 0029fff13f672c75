"""The cheap model that says which windows of a document a cross-encoder should read.

The efficient student of IDCM (Hofstätter et al., SIGIR 2021), a CK model (Dai et al., WSDM 2018): word pieces
of question and document as the cross-encoder's own input embeddings, a convolution over three neighbours,
ReLU, unit length; then of every piece of the question how many pieces of a window are how similar to it, by
Gaussian kernels:

    K_k(i) = a_k * sum over j of exp(-(cos(i, j) - mu_k)^2 / (2 * 0.1^2))
    estimate = sum over k of w_k * (sum over i of log max(K_k(i), 1e-4)) + b

The convolution runs over the document as a whole, zeros beyond its ends, and a window sums over its part of
it; so a piece that lies in two windows is computed once. Only the order of a document's estimates is used.

`student.safetensors` beside the net's weights holds what was trained, in float32; d is the width of the net's
embeddings, e any:

    convolution.weight [e, d, 3]   convolution.bias [e]
    kernel_scales [11] (a, above 0)   kernel_weights [11] (w)   bias [1] (b)

Without it the student is untrained: it passes embeddings on as they are and looks at equal pieces only, so it
counts how many of the question's pieces a window has, and how often.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from models.cross_passages import Ints, Scores

FILE = "student.safetensors"

MEANS = (1.0, 0.9, 0.7, 0.5, 0.3, 0.1, -0.1, -0.3, -0.5, -0.7, -0.9)
DEVIATION = 0.1
LEAST = 1e-4
"""What a kernel gives at least, so that it has a logarithm."""

BLOCK = 64
"""Windows that are estimated together: a document may be a megabyte."""

QUESTION = 64
"""Pieces of a question that are looked at."""


class Student(Protocol):
    """Estimates windows; from any thread."""

    def estimates(self, question: Sequence[int], document: Sequence[int], windows: Ints) -> Scores:
        """One per window, float32 [n]; higher is more promising.

        `question` and `document` are the ids of pieces without special tokens; `windows` int64 [n, 2] are
        (begin, end) in the document, none empty.
        """
        ...


def load_student(folder: Path, embeddings: Tensor) -> Student:
    """The student of a folder whose net has these input embeddings [vocabulary, d]: trained, or `Counting`.

    Raises ValueError for a `student.safetensors` that holds anything but the tensors named above.
    """
    file = folder / FILE
    return Kernels(file, embeddings) if file.is_file() else Counting()


class Counting:
    """Sum over the question's pieces of the logarithm of how often a window has each, at least `LEAST`."""

    def estimates(self, question: Sequence[int], document: Sequence[int], windows: Ints) -> Scores:
        """See `Student`."""
        asked = np.asarray(question[:QUESTION], np.int64)[:, None]
        found = []
        for begin, end, inside in _blocks(windows):
            equal = asked == np.asarray(document[begin:end], np.int64)
            found.append(_logarithms(_window_sums(equal, inside)))
        return np.concatenate(found).astype(np.float32)


class Kernels:
    """The trained student."""

    def __init__(self, file: Path, embeddings: Tensor) -> None:
        tensors = _read(file, embeddings.shape[1])
        self._embeddings = embeddings.detach().cpu()
        self._convolution = tensors["convolution.weight"], tensors["convolution.bias"]
        self._scales = tensors["kernel_scales"].double().numpy()
        self._weights = tensors["kernel_weights"].double().numpy()
        self._bias = float(tensors["bias"])

    def estimates(self, question: Sequence[int], document: Sequence[int], windows: Ints) -> Scores:
        """See `Student`."""
        asked = self._vectors(question, 0, min(len(question), QUESTION))
        found = [
            self._kernels(asked @ self._vectors(document, begin, end).T, inside)
            for begin, end, inside in _blocks(windows)
        ]
        return np.concatenate(found).astype(np.float32)

    def _kernels(self, cosines: NDArray[np.float32], windows: Ints) -> NDArray[np.float64]:
        found = np.full(len(windows), self._bias)
        for mean, scale, weight in zip(MEANS, self._scales, self._weights, strict=True):
            near = np.exp(-((cosines - np.float32(mean)) ** 2) / np.float32(2 * DEVIATION**2))
            found += weight * _logarithms(scale * _window_sums(near, windows))
        return found

    def _vectors(self, pieces: Sequence[int], begin: int, end: int) -> NDArray[np.float32]:
        """What the convolution makes of some of the pieces: float32 [end - begin, e], unit length or zero."""
        if begin == end:
            return np.empty((0, len(self._convolution[1])), np.float32)
        first, last = max(begin - 1, 0), min(end + 1, len(pieces))
        with torch.inference_mode():
            rows = self._embeddings[torch.tensor(pieces[first:last])].float()
            made = torch.nn.functional.conv1d(rows.T[None], *self._convolution, padding=1)[0].T
            inside = made[begin - first : end - first].relu()
            unit: NDArray[np.float32] = torch.nn.functional.normalize(inside, dim=-1).numpy()
        return unit


def _blocks(windows: Ints) -> Iterator[tuple[int, int, Ints]]:
    """The tokens (begin, end) of some neighbouring windows, and where in these each window is."""
    for place in range(0, len(windows), BLOCK):
        block = windows[place : place + BLOCK]
        begin, end = int(block.min()), int(block.max())
        yield begin, end, block - begin


def _logarithms(kernels: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum over the question's pieces, the first axis, of logarithms."""
    sums: NDArray[np.float64] = np.log(np.maximum(kernels, LEAST)).sum(axis=0)
    return sums


def _window_sums(values: NDArray[np.generic], windows: Ints) -> NDArray[np.float64]:
    """Sums of `values` [pieces of the question, pieces of the document] over each window: float64 [., n]."""
    sums = np.zeros((values.shape[0], values.shape[1] + 1))
    np.cumsum(values, axis=1, dtype=np.float64, out=sums[:, 1:])
    difference: NDArray[np.float64] = sums[:, windows[:, 1]] - sums[:, windows[:, 0]]
    return difference


def _read(file: Path, width: int) -> dict[str, Tensor]:
    tensors = load_file(file)
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    inner = found.get("convolution.bias", (1,))[0]
    kernels = (len(MEANS),)
    wanted = {
        "convolution.weight": (inner, width, 3),
        "convolution.bias": (inner,),
        "kernel_scales": kernels,
        "kernel_weights": kernels,
        "bias": (1,),
    }
    if found != wanted:
        raise ValueError(f"{file} should hold tensors of shapes {wanted}, but holds {found}")
    if not bool((tensors["kernel_scales"] > 0).all()):
        raise ValueError(f"{file}: kernel_scales should all be above 0")
    return {name: tensor.float() for name, tensor in tensors.items()}
