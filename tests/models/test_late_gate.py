from pathlib import Path

import pytest
import torch

from models.late_gate import Gate, load_gate, save_gate
from models.training.late_scores import maxsim

VECTORS = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])


def gate(a: list[float], b: float) -> Gate:
    found = Gate(len(a))
    with torch.no_grad():
        found.weight.copy_(torch.tensor(a))
        found.bias.fill_(b)
    return found


def test_all_words_count_at_first() -> None:
    assert Gate(2)(VECTORS).tolist() == [1, 1, 1]


def test_a_word_counts_by_its_vector_and_never_less_than_nothing() -> None:
    assert gate([-1.0, 1.0], 0.5)(VECTORS).tolist() == pytest.approx([0, 0.7, 1.5])


def test_a_passage_scores_as_if_it_had_not_a_word_of_nothing_that_others_answer_better() -> None:
    question, gates = VECTORS[2:], gate([-1.0, 0.0], 1.0)(VECTORS)
    assert gates[0] == 0
    gated = VECTORS * gates[:, None]
    assert maxsim([question], [gated]).item() == maxsim([question], [gated[1:]]).item() == 1


def test_a_gate_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = gate([-1.0, 1.0], 0.5)
    save_gate(tmp_path, written)
    read = load_gate(tmp_path, 2)
    torch.testing.assert_close(read(VECTORS), written(VECTORS))
    assert not any(each.requires_grad for each in read.parameters())


def test_a_gate_is_for_vectors_of_its_length(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"should hold weight \[3\] and bias \[1\], but holds {}"):
        load_gate(tmp_path, 3)
    save_gate(tmp_path, Gate(2))
    with pytest.raises(ValueError, match=r"weight \[3\]"):
        load_gate(tmp_path, 3)
