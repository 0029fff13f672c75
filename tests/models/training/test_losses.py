import math

import pytest
from torch import tensor

from models.training.losses import distil, ensemble, flops, info_nce, l1, warmed

NONE = float("-inf")


def test_flops_of_two_texts():
    # means of the columns: 0.5, 0 and 2
    assert flops(tensor([[1.0, 0, 2], [0, 0, 2]])).item() == 0.25 + 0 + 4
    assert l1(tensor([[1.0, 0, 2], [0, 0, 2]])).item() == 2.5


def test_a_term_that_two_texts_share_costs_more_than_two_private_ones():
    assert flops(tensor([[2.0, 0], [2, 0]])).item() == 4.0
    assert flops(tensor([[2.0, 0], [0, 2]])).item() == 2.0
    assert l1(tensor([[2.0, 0], [2, 0]])).item() == l1(tensor([[2.0, 0], [0, 2]])).item() == 2.0


def test_documents_of_one_question_are_not_penalised_for_being_alike():
    # two questions, two documents each: those of a question share a term, those of a position do not
    alike = tensor([[[2.0, 0], [2, 0]], [[0, 2.0], [0, 2]]])
    assert flops(alike).item() == 2.0 + 2.0
    assert flops(alike.flatten(0, 1)).item() == 2.0  # as one group: all four texts' mean


def test_the_regulariser_rises_quadratically():
    assert [warmed(0.08, step, 100) for step in (1, 50, 100, 300)] == pytest.approx([8e-6, 0.02, 0.08, 0.08])
    assert warmed(0.08, 0, 0) == 0.08


def test_teachers_are_brought_to_one_scale():
    scores = {"dense": (0.9, 0.7, 0.5), "sparse": (30.0, 10.0, 20.0), "bm25": (1.0, 1.0, 1.0)}
    assert ensemble(scores, ("dense", "sparse")).tolist() == pytest.approx([30, 7.5, 7.5], abs=1e-3)
    assert ensemble(scores, ("dense",), scale=1.0).tolist() == pytest.approx([1, 0.5, 0], abs=1e-4)
    assert ensemble(scores, ("bm25",)).tolist() == [0, 0, 0]  # a teacher that tells nothing apart


def test_distillation_is_nothing_where_both_agree():
    told = tensor([[math.log(0.8), math.log(0.2)], [5.0, 5.0]])
    assert distil(told, told + 7).item() == pytest.approx(0, abs=1e-6)
    # 0.8 ln(0.8 / 0.5) + 0.2 ln(0.2 / 0.5)
    assert distil(told[:1], tensor([[1.0, 1.0]])).item() == pytest.approx(0.19274, abs=1e-5)


def test_documents_of_other_questions_can_be_left_out():
    told = tensor([[math.log(0.8), math.log(0.2), NONE]])
    student = tensor([[1.0, 1.0, NONE]], requires_grad=True)
    loss = distil(told, student)
    assert loss.item() == pytest.approx(0.19274, abs=1e-5)
    loss.backward()
    assert student.grad.isfinite().all()


def test_a_teacher_s_opinion_on_what_the_student_does_not_see_is_shared_out():
    told = tensor([[math.log(0.4), math.log(0.1), math.log(0.5)]])
    assert distil(told, tensor([[1.0, 1.0, NONE]])).item() == pytest.approx(0.19274, abs=1e-5)


def test_contrast_wants_the_target():
    assert info_nce(tensor([[0.0, 0, 0, 0]]), tensor([2])).item() == pytest.approx(math.log(4))
    assert info_nce(tensor([[0.0, 30]]), tensor([1])).item() == pytest.approx(0, abs=1e-6)
