import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import gelu, relu, silu

from models.late_heads import WEIGHTS, Head, load_head, save_head, unit
from models.late_recipe import HeadSpec, read_recipe
from tests.models.late_folders import random, say

HIDDEN, INNER, DIM = 6, 10, 4
STATES = random(5, HIDDEN, seed=1)
FUNCTIONS = {"identity": lambda each: each, "relu": relu, "gelu": gelu, "silu": silu}


def made(kind: str, dim: int = DIM, **spec: Any) -> Head:
    """A random head; every one of its tensors is another."""
    wide = {} if kind == "linear" else {"inner": INNER, "activation": spec.pop("activation", "identity")}
    head = Head(HeadSpec(kind=kind, dim=dim, **wide, **spec), HIDDEN)
    tensors = {
        name: random(*each.shape, seed=seed) for seed, (name, each) in enumerate(head.state_dict().items())
    }
    head.load_state_dict(tensors)
    return head.requires_grad_(False)


def tensors(head: Head) -> dict[str, Tensor]:
    return {name.removesuffix(".weight"): each for name, each in head.state_dict().items()}


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_identity_without_residual_equals_the_single_matrix() -> None:
    head = made("deep")
    w1, w2 = (tensors(head)[each] for each in ("into", "out"))
    close(head.project(STATES), STATES @ (w2 @ w1).T)
    folded = head.folded()
    assert folded.spec == HeadSpec(kind="linear", dim=DIM)
    close(tensors(folded)["out"], w2 @ w1)
    close(folded(STATES), head(STATES))


def test_a_sum_in_the_head() -> None:
    head = Head(HeadSpec(kind="deep", dim=1, inner=2, activation="relu", residual=True), 1)
    weights = {"into.weight": [[1.0], [-1.0]], "out.weight": [[2.0, 3.0]]}
    head.load_state_dict({name: torch.tensor(each) for name, each in weights.items()})
    # of 4: 2·relu(4) + 3·relu(-4) + 4, and of -4: 2·relu(-4) + 3·relu(4) - 4
    assert head.project(torch.tensor([[4.0], [-4.0]])).tolist() == [[12.0], [8.0]]


@pytest.mark.parametrize("activation", FUNCTIONS)
def test_deep_heads_and_gated_ones_are_their_formulas(activation: str) -> None:
    f = FUNCTIONS[activation]
    deep, glu = made("deep", activation=activation), made("glu", activation=activation)
    d, g = tensors(deep), tensors(glu)
    close(deep.project(STATES), f(STATES @ d["into"].T) @ d["out"].T)
    close(glu.project(STATES), (f(STATES @ g["gate"].T) * (STATES @ g["into"].T)) @ g["out"].T)


@pytest.mark.parametrize("kind", ["linear", "deep", "glu"])
def test_a_residual_adds_the_state_through_a_matrix_where_widths_differ(kind: str) -> None:
    same, other = made(kind, dim=HIDDEN, residual=True), made(kind, residual=True)
    for head, added in ((same, STATES), (other, STATES @ tensors(other)["skip"].T)):
        bare = made(kind, dim=head.spec.dim)
        bare.load_state_dict({name: each for name, each in head.state_dict().items() if "skip" not in name})
        close(head.project(STATES), bare.project(STATES) + added)
    assert "skip" not in tensors(same)


@given(
    st.sampled_from(["linear", "deep", "glu"]),
    st.sampled_from(sorted(FUNCTIONS)),
    st.booleans(),
    st.sampled_from([DIM, HIDDEN]),
)
def test_what_serves_equals_what_was_trained_and_has_unit_length(
    kind: str, activation: str, residual: bool, dim: int
) -> None:
    head = made(kind, dim, activation=activation, residual=residual) if kind != "linear" else made(kind, dim)
    served = head.folded()
    linear = kind == "linear" or (kind == "deep" and activation == "identity")
    assert (served.spec.kind == "linear") == linear
    assert len(tensors(served)) == 1 or not linear
    close(served(STATES), head(STATES))
    close(served(STATES).norm(dim=-1), torch.ones(len(STATES)))


def test_vectors_are_float32_whatever_the_states_are() -> None:
    found = made("deep").to(torch.bfloat16)(STATES.to(torch.bfloat16))
    assert found.dtype == torch.float32
    assert unit(STATES.to(torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize("kind", ["linear", "deep", "glu"])
def test_a_head_that_was_saved_is_loaded_as_it_was(kind: str, tmp_path: Path) -> None:
    head = made(kind, residual=True)
    save_head(tmp_path, head)
    loaded = load_head(tmp_path)
    assert (loaded.spec, loaded.hidden) == (head.spec, HIDDEN)
    assert torch.equal(loaded(STATES), head(STATES))


def test_saving_a_head_keeps_what_else_the_folder_says(tmp_path: Path) -> None:
    say(tmp_path, query_length=12, skip=["."], head={"kind": "linear", "dim": 99})
    save_head(tmp_path, made("linear"))
    recipe = read_recipe(tmp_path)
    assert (recipe.query_length, recipe.skip) == (12, (".",))
    assert recipe.head == HeadSpec(kind="linear", dim=DIM)


@pytest.mark.parametrize("key", ["dim", "inner", "kind", "residual"])
def test_tensors_of_another_form_than_told_are_refused(key: str, tmp_path: Path) -> None:
    save_head(tmp_path, made("deep"))
    recipe = json.loads((tmp_path / "late.json").read_text())
    other = {"dim": DIM + 1, "inner": INNER + 1, "kind": "glu", "residual": True}
    say(tmp_path, head={**recipe["head"], key: other[key]})
    with pytest.raises(ValueError, match="should hold tensors of shapes"):
        load_head(tmp_path)


def test_missing_weights_are_said(tmp_path: Path) -> None:
    say(tmp_path)
    with pytest.raises(ValueError, match="says nothing of a head"):
        load_head(tmp_path)
    say(tmp_path, head={"kind": "linear", "dim": DIM})
    with pytest.raises(ValueError, match="holds no weights of a linear head"):
        load_head(tmp_path)
    save_file({"into.weight": load_file_of(made("deep"), tmp_path)["into.weight"]}, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match="should hold tensors of shapes"):
        load_head(tmp_path)


def load_file_of(head: Head, folder: Path) -> dict[str, Tensor]:
    save_head(folder, head)
    return load_file(folder / WEIGHTS)
