import json
from pathlib import Path
from typing import Any

import pytest

from models.sparse_recipe import Recipe, read_recipe

SPLADE = {"kind": "mlm", "pooling": "max", "activation": "log1p"}


def read(folder: Path, **keys: Any) -> Recipe:
    (folder / "sparse.json").write_text(json.dumps(keys))
    return read_recipe(folder)


def test_no_weight_passes_the_ceiling_of_its_activation() -> None:
    def highest(**keys: Any) -> float:
        return Recipe(**{**SPLADE, **keys}).highest

    assert highest() == 8.0
    assert highest(activation="log1p_log1p") == 4.0
    assert highest(activation="relu") == highest(pooling="sum") == 256.0
    assert highest(kind="prosper", pooling="last") == 256.0
    assert highest(activation="relu", ceiling=30.0) == 30.0


def test_questions_and_passages_keep_numbers_of_terms_of_their_own(tmp_path: Path) -> None:
    recipe = read(tmp_path, kind="prosper", pooling="last", activation="log1p", query_terms=256)
    assert (recipe.terms("query"), recipe.terms("document")) == (256, None)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"pooling": "max", "activation": "log1p"}, "kind: Field required"),
        ({"kind": "mlm", "pooling": "max"}, "activation: Field required"),
        ({**SPLADE, "kind": "colbert"}, "kind: Input should be 'mlm', 'mlp', 'decoder' or 'prosper'"),
        ({**SPLADE, "activation": "log2"}, "activation: Input should be 'log1p', 'log1p_log1p' or 'relu'"),
        ({**SPLADE, "doc_terms": 3}, "doc_terms: Extra inputs are not permitted"),
        ({**SPLADE, "prompts": {"passage": "x"}}, "prompts"),
        ({**SPLADE, "weights": "../x.safetensors"}, "weights: String should match pattern"),
        ({**SPLADE, "weights": "x.pt"}, "weights: String should match pattern"),
        ({**SPLADE, "ceiling": 0}, "ceiling: Input should be greater than 0"),
        ({**SPLADE, "pooling": "last"}, "kind mlm pools by max or sum, not by last"),
        ({**SPLADE, "kind": "prosper"}, "kind prosper pools by last, not by max"),
        ({**SPLADE, "separator": "\n"}, "kind mlm has no separator"),
    ],
)
def test_what_is_unknown_or_does_not_fit_is_refused(keys: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no recipe for sparse vectors") as error:
        read(tmp_path, **keys)
    assert said in str(error.value)


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sparse.json").write_text("{")
    with pytest.raises(
        ValueError, match=r"sparse\.json is no recipe for sparse vectors: sparse\.json: Invalid"
    ):
        read_recipe(tmp_path)
