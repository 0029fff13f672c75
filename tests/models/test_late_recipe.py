from pathlib import Path
from typing import Any

import pytest

from models.late_recipe import HeadSpec, Recipe, read_recipe
from tests.models.late_folders import say

LINEAR = {"kind": "linear", "dim": 128}
DEEP = {"kind": "deep", "dim": 128, "inner": 768, "activation": "identity"}


def read(folder: Path, **keys: Any) -> Recipe:
    return read_recipe(say(folder, **keys))


def test_the_examples_of_the_module_are_recipes(tmp_path: Path) -> None:
    assert read(tmp_path, head=LINEAR).head == HeadSpec(kind="linear", dim=128)
    markers = {"query": "[unused0]", "document": "[unused1]"}
    recipe = read(tmp_path, head={**DEEP, "residual": True}, markers=markers, query_length=32)
    assert (recipe.markers, recipe.query_length) == (markers, 32)
    assert recipe.head == HeadSpec(kind="deep", dim=128, inner=768, activation="identity", residual=True)


def test_a_recipe_that_says_nothing_is_token_states(tmp_path: Path) -> None:
    recipe = read(tmp_path)
    assert (recipe.head, recipe.markers, recipe.query_length) == (None, {}, None)
    assert recipe.skip == "punctuation"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"head": {"kind": "linear"}}, "head.dim: Field required"),
        ({"head": {**LINEAR, "kind": "mlp"}}, "head.kind: Input should be 'linear', 'deep' or 'glu'"),
        ({"head": {**LINEAR, "inner": 8}}, "a linear head has neither an inner width nor an activation"),
        ({"head": {**DEEP, "inner": None}}, "a head of kind deep needs an inner width and an activation"),
        ({"head": {**DEEP, "activation": None}}, "a head of kind deep needs an inner width"),
        ({"head": {**DEEP, "activation": "tanh"}}, "head.activation: Input should be 'identity', 'relu'"),
        ({"head": {**LINEAR, "bias": True}}, "head.bias: Extra inputs are not permitted"),
        ({"markers": {"passage": "[D]"}}, "markers.passage"),
        ({"skip": "stopwords"}, "skip"),
        ({"query_length": 3}, "query_length: Input should be greater than or equal to 8"),
        ({"attend": True}, "fill and attend are for questions of a query_length"),
        ({"fill": "[MASK]"}, "fill and attend are for questions of a query_length"),
        ({"pooling": 2}, "pooling: Extra inputs are not permitted"),
    ],
)
def test_what_is_unknown_or_does_not_fit_is_refused(keys: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no recipe for token vectors") as error:
        read(tmp_path, **keys)
    assert said in str(error.value)


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "late.json").write_text("{")
    with pytest.raises(ValueError, match=r"late\.json is no recipe for token vectors: late\.json: Invalid"):
        read_recipe(tmp_path)
