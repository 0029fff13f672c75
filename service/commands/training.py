"""A training from folders to weights: groups are mined, a recipe learns from them, and its gain is measured.

Of the questions some are held out of training. Half of these say when to stop, and the other half what the
training was worth: a measure that chose something looks better than it is.
"""

import random
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import TypeAdapter, ValidationError

from models.load import WeightsMissing
from models.training.card import CARD, Source, write_card
from models.training.fit import Options as RunOptions
from models.training.fit import Run
from models.training.groups import Group, held_out
from service.commands import mining
from service.commands.common import CommandError, progress_bar, stderr
from service.commands.encoding_cache import cache_home
from service.commands.gain import Gain, measure
from service.commands.mining import Mined, Questions, mine, questions_of
from service.commands.pace import steps_within
from service.commands.train_kinds import Kind, how_to_use

MOST_STEERING = 200
"""Groups by which a recipe says when to stop: it measures them many times."""

MADE_QUESTIONS = 300
"""Questions made of a collection's text to measure by, where nothing is judged."""

SOME_PASSAGES = 2000

Side = Literal["training", "steering", "measuring"]


@dataclass(frozen=True)
class Given:
    """What a training is asked to do: see the options of `winnow train sparse`."""

    data: Sequence[Path]
    validation: Sequence[Path]
    out: Path
    groups: Path
    mining: mining.Options
    share: float
    base: str | None
    minutes: float | None
    options: Mapping[str, Any]
    licence: str
    gain: bool


@dataclass
class Material:
    """What is learnt from, what steers, and what is measured by; `sources` are of the first."""

    training: list[Group] = field(default_factory=list)
    steering: list[Group] = field(default_factory=list)
    measuring: list[Questions] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)


@dataclass(frozen=True)
class Trained:
    """What became of a training; `use` is a line for a shell."""

    run: Run
    gains: list[Gain]
    use: str


def train(kind: Kind, given: Given) -> Trained:
    """Train a net of a kind and write it into a folder, with its card. CommandError for what cannot be."""
    options = options_of(kind, given)
    base = given.base or kind.base
    material = gathered(given)
    run = _run(kind, given, options, base, material)
    title = f"{given.out.resolve().name}: {kind.what.partition(':')[0].partition(',')[0].lower()}"
    write_card(given.out, title, kind.what, base, material.sources, run, given.licence)
    shutil.rmtree(given.out / "checkpoints", ignore_errors=True)
    trials = kind.trials(base, str(given.out.resolve()), _some_passages(material, given.mining.seed))
    with progress_bar() as progress:
        gains = [
            measure(questions, trials, given.mining.language, given.mining.seed, progress)
            for questions in (material.measuring if given.gain else ())
        ]
    return Trained(run, gains, how_to_use(trials[1]))


def options_of(kind: Kind, given: Given) -> RunOptions:
    """The options of a recipe, changed by what was given. CommandError names what it does not have."""
    known: type[RunOptions] = getattr(_recipe(kind), kind.options)
    names = [each.name for each in fields(known)]
    values = {"seed": given.mining.seed, **given.options}
    if strange := sorted(set(values) - set(names)):
        raise CommandError(f"there is no option {strange[0]!r} here; there are {', '.join(sorted(names))}")
    try:
        return TypeAdapter(known).validate_json(orjson.dumps(values))
    except ValidationError as error:
        detail = error.errors()[0]
        where = ".".join(map(str, detail["loc"]))
        raise CommandError(f"option {where}: {detail['msg']}") from error


def gathered(given: Given) -> Material:
    """Mine all folders, and part their questions. CommandError if a part is empty."""
    material = Material()
    steering = [_mined(folder, given) for folder in given.validation]
    apart = {text for mined in steering for text in mined.questions.queries.values()}
    for folder in given.data:
        mined = _mined(folder, given)
        side = _side_of(given, apart)
        _add(material, mined, side)
        groups = sum(side(group.query) == "training" for group in mined.groups)
        material.sources.append(_source(folder, mined, groups))
        if not steering:
            material.measuring += _measured(mined, side, folder, given)
    for folder, mined in zip(given.validation, steering, strict=True):
        half = _half_of(given)
        _add(material, mined, half)
        material.measuring += _measured(mined, half, folder, given)
    _check(material)
    chance = random.Random(given.mining.seed)  # noqa: S311 - a sample, not a secret
    steering_groups = chance.sample(material.steering, min(MOST_STEERING, len(material.steering)))
    return replace(material, steering=[_judged(group) for group in steering_groups])


def _mined(folder: Path, given: Given) -> Mined:
    if not folder.exists():
        raise CommandError(f"{folder} does not exist")
    with progress_bar() as progress:
        return mine(questions_of(folder, given.groups, given.mining), given.groups, given.mining, progress)


def _side_of(given: Given, apart: set[str]) -> Callable[[str], Side | None]:
    """Which part a question of the data belongs to; none if it is asked of validation data too."""

    def side(text: str) -> Side | None:
        if text in apart:
            return None
        if given.validation or not held_out(text, given.share, given.mining.seed):
            return "training"
        return _half_of(given)(text)

    return side


def _half_of(given: Given) -> Callable[[str], Side]:
    """Which part a question that is held out belongs to."""
    return lambda text: "steering" if held_out(text, 0.5, given.mining.seed + 1) else "measuring"


def _add(material: Material, mined: Mined, side: Callable[[str], Side | None]) -> None:
    material.training += [group for group in mined.groups if side(group.query) == "training"]
    material.steering += [group for group in mined.groups if side(group.query) == "steering"]


def _measured(
    mined: Mined, side: Callable[[str], Side | None], folder: Path, given: Given
) -> Iterator[Questions]:
    """The questions of a collection to measure by: those made of its text if none has an answer."""
    if not given.gain:
        return
    asked = mined.questions
    if not asked.relevant:
        yield questions_of(folder, given.groups, replace(given.mining, task="ict", queries=MADE_QUESTIONS))
        return
    queries = {query: text for query, text in asked.queries.items() if side(text) == "measuring"}
    if queries:
        yield replace(asked, queries=queries)


def _judged(group: Group) -> Group:
    """A group with a relevant document: where nothing is judged, the one that teachers together like best."""
    if any(group.relevant):
        return group
    return replace(group, relevant=(True, *group.relevant[1:]))


def _some_passages(material: Material, seed: int) -> list[str]:
    """Passages of the groups, or so many of them."""
    texts = sorted({text for group in (*material.training, *material.steering) for text in group.texts})
    chance = random.Random(seed)  # noqa: S311 - a sample, not a secret
    return chance.sample(texts, min(SOME_PASSAGES, len(texts)))


def _check(material: Material) -> None:
    if not material.training or not material.steering:
        raise CommandError(
            f"there are {len(material.training)} questions to train on and {len(material.steering)} to say "
            "when to stop: give more --data or --queries, another --held-out, or --validation"
        )


def _run(kind: Kind, given: Given, options: RunOptions, base: str, material: Material) -> Run:
    learnt, steering, out = material.training, material.steering, given.out
    stderr().print(f"{len(learnt)} groups to train on, {len(steering)} to say when to stop.")

    def train(some: Sequence[Group], others: Sequence[Group], folder: Path, how: RunOptions) -> Run:
        found: Run = _recipe(kind).train(some, others, folder, how, base, cache_home() / "models")
        return found

    out.mkdir(parents=True, exist_ok=True)
    try:
        with redirect_stdout(sys.stderr):  # the trainer prints its figures
            if given.minutes is not None:
                steps = steps_within(given.minutes, train, learnt, steering, out, options)
                stderr().print(f"{given.minutes:g} minutes are about {steps} steps.")
                options = replace(options, steps=steps)
            return train(learnt, steering, out, options)
    except (WeightsMissing, ValueError) as error:
        raise CommandError(str(error)) from error


def _recipe(kind: Kind) -> Any:
    return import_module(f"models.training.{kind.recipe}")


def _source(folder: Path, mined: Mined, groups: int) -> Source:
    """What a card says of a folder: from its `source.json`, if it has one."""
    file, said = folder / "source.json", {}
    if file.is_file():
        try:
            said = orjson.loads(file.read_bytes())
        except orjson.JSONDecodeError as error:
            raise CommandError(f"{file} is not JSON: {error}") from error
    origin, licence = (str(said.get(key, "not stated")) for key in ("source", "licence"))
    return Source(mined.questions.source, origin, licence, groups)


def is_trained(out: Path) -> bool:
    """Whether a folder has what a training ends with."""
    return (out / CARD).is_file()
