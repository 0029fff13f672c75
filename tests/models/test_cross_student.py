from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models.cross_passages import choose
from models.cross_student import BLOCK, DEVIATION, FILE, MEANS, Counting, Student, load_student

TIDE, MOON, SEA, CAT = 0, 1, 2, 3
ALL = np.array([[0, 3], [2, 5], [4, 6]])
DOCUMENT = [CAT, TIDE, CAT, MOON, TIDE, CAT]
"""Its windows: cat tide cat, cat moon tide, tide cat."""

EMBEDDINGS = torch.eye(4)


def write(folder: Path, changed: dict[str, torch.Tensor] | None = None) -> Path:
    """A student whose convolution passes pieces on, and which looks at the kernel of equal ones only."""
    identity = torch.zeros(4, 4, 3)
    identity[:, :, 1] = torch.eye(4)
    weights = torch.zeros(11)
    weights[0] = 1.0
    tensors = {
        "convolution.weight": identity,
        "convolution.bias": torch.zeros(4),
        "kernel_scales": torch.ones(11),
        "kernel_weights": weights,
        "bias": torch.zeros(1),
    }
    save_file(tensors | (changed or {}), folder / FILE)
    return folder


def estimate(student: Student, question: list[int]) -> list[float]:
    return [round(each, 4) for each in student.estimates(question, DOCUMENT, ALL).tolist()]


def test_without_training_it_counts_how_many_pieces_of_the_question_a_window_has():
    student = load_student(Path("nowhere"), EMBEDDINGS)
    assert isinstance(student, Counting)
    missing = round(float(np.log(1e-4)), 4)
    assert estimate(student, [TIDE, MOON]) == [missing, 0.0, missing]
    assert estimate(student, [CAT, CAT]) == [round(2 * np.log(2), 4), 0.0, 0.0]
    assert estimate(student, []) == [0.0, 0.0, 0.0]
    assert choose(student.estimates([TIDE, MOON], DOCUMENT, ALL), 1).tolist() == [1]


def test_a_trained_one_that_passes_pieces_on_estimates_as_the_untrained(tmp_path: Path):
    trained = load_student(write(tmp_path), EMBEDDINGS)
    for question in ([TIDE, MOON], [CAT, CAT], [SEA], [SEA, TIDE]):
        assert estimate(trained, question) == pytest.approx(estimate(Counting(), question), abs=1e-3)


def test_every_kernel_scale_weight_and_the_bias_have_their_part(tmp_path: Path):
    """By the formula, in float64, over windows that are computed by themselves."""
    generator = torch.Generator().manual_seed(5)
    tensors = {
        "convolution.weight": torch.randn(3, 4, 3, generator=generator),
        "convolution.bias": torch.randn(3, generator=generator),
        "kernel_scales": torch.rand(11, generator=generator) + 0.5,
        "kernel_weights": torch.randn(11, generator=generator),
        "bias": torch.tensor([0.25]),
    }
    save_file(tensors, tmp_path / FILE)
    found = load_student(tmp_path, EMBEDDINGS).estimates([TIDE, SEA], DOCUMENT, ALL)
    question, document = (_convolved(ids, tensors) for ids in ([TIDE, SEA], DOCUMENT))
    for place, (begin, end) in enumerate(ALL.tolist()):
        wanted = 0.25
        for mean, scale, weight in zip(
            MEANS, tensors["kernel_scales"], tensors["kernel_weights"], strict=True
        ):
            near = np.exp(-((question @ document[begin:end].T - mean) ** 2) / (2 * DEVIATION**2))
            sums = np.maximum(float(scale) * near.sum(axis=1), 1e-4)
            wanted += float(weight) * np.log(sums).sum()
        assert found[place] == pytest.approx(wanted, abs=1e-3)


def _convolved(ids: list[int], tensors: dict[str, torch.Tensor]) -> np.ndarray:
    padded = np.concatenate([np.zeros((1, 4)), EMBEDDINGS[ids].numpy(), np.zeros((1, 4))])
    weight, bias = (tensors[f"convolution.{name}"].double().numpy() for name in ("weight", "bias"))
    rows = [
        np.maximum(np.einsum("edk,kd->e", weight, padded[at : at + 3]) + bias, 0) for at in range(len(ids))
    ]
    return np.array([row / max(float(np.linalg.norm(row)), 1e-12) for row in rows])


def test_a_long_document_is_estimated_in_blocks_that_do_not_show(tmp_path: Path):
    document = ([TIDE] * 5 + [CAT] * 4 + [SEA]) * (2 * BLOCK)
    begins = np.arange(0, len(document), 8)
    windows = np.stack([np.maximum(begins - 2, 0), np.minimum(begins + 10, len(document))], axis=1)
    mixing = torch.randn(4, 4, 3, generator=torch.Generator().manual_seed(3))
    trained = load_student(write(tmp_path, {"convolution.weight": mixing}), EMBEDDINGS)
    for student in (Counting(), trained):
        together = student.estimates([TIDE, CAT], document, windows)
        alone = [student.estimates([TIDE, CAT], document, each[None])[0] for each in windows]
        np.testing.assert_allclose(together, alone, atol=1e-4)


def test_embeddings_may_be_in_bfloat16(tmp_path: Path):
    student = load_student(write(tmp_path), EMBEDDINGS.to(torch.bfloat16))
    assert estimate(student, [TIDE, MOON])[1] == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"kernel_scales": torch.zeros(11)}, "above 0"),
        ({"kernel_weights": torch.ones(10)}, "kernel_weights"),
        ({"convolution.weight": torch.ones(4, 5, 3)}, "convolution.weight"),
        ({"more": torch.ones(1)}, "more"),
    ],
)
def test_other_tensors_are_refused(tmp_path: Path, changed: dict[str, torch.Tensor], named: str):
    write(tmp_path, changed)
    with pytest.raises(ValueError, match=named):
        load_student(tmp_path, EMBEDDINGS)
