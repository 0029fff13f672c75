"""How many steps a recipe takes in so many minutes, by the time that its first ones take.

The learning rate falls over all steps of a run, so a run that is stopped by the clock would end in the middle
of it; and one that goes on after an interruption must have as many steps as before.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson

from models.training.fit import SETTINGS, Options, Run
from models.training.groups import Group

FEW, MORE = 2, 8

Train = Callable[[Sequence[Group], Sequence[Group], Path, Options], Run]


def steps_within(
    minutes: float,
    train: Train,
    training: Sequence[Group],
    validation: Sequence[Group],
    out: Path,
    options: Options,
) -> int:
    """Return how many steps end in these minutes, validations included; at least one.

    As many as before where `out` has checkpoints to go on from.
    """
    file = out / "checkpoints" / SETTINGS
    if file.is_file():
        return int(orjson.loads(file.read_bytes())["options"]["steps"])
    few, more = (_seconds(number, train, training, validation, options) for number in (FEW, MORE))
    step = max((more - few) / (MORE - FEW), more / (MORE * 100))
    measured = max((few - FEW * step) / 2, 0.0)
    return max(1, int(steps_for(minutes * 60, step, measured, options.validate)))


def steps_for(seconds: float, step: float, measured: float, every: int) -> float:
    """How many steps fit, where a measure is taken before the first and then after every so many."""
    return (seconds - measured) / (step + measured / every)


def _seconds(
    steps: int, train: Train, training: Sequence[Group], validation: Sequence[Group], options: Options
) -> float:
    """What a run of so many steps takes that is measured before and after."""
    with TemporaryDirectory(prefix="winnow-") as folder:
        trial = replace(options, steps=steps, validate=steps)
        return train(training, validation, Path(folder), trial).seconds
