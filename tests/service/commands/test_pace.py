"""How many steps fit into some minutes, by runs whose times are made up."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from models.training.fit import SETTINGS, Options, Run
from models.training.groups import Group
from service.commands.pace import Train, steps_for, steps_within


def run_of(step: float, measured: float) -> tuple[list[int], Train]:
    """A recipe whose steps and measures take so many seconds, and the numbers of steps it was asked for."""
    asked: list[int] = []

    def train(some: Sequence[Group], others: Sequence[Group], folder: Path, options: Options) -> Run:
        asked.append(options.steps)
        assert options.validate == options.steps
        return Run(options, "ndcg@10", 0.5, 0, options.steps, options.steps * step + 2 * measured, ())

    return asked, train


def test_measures_take_their_part_of_the_time() -> None:
    """600 s: 10 s before the first step, then 100 steps of 4 s and a measure of 10 s: 590 / 4.1."""
    assert steps_for(600, 4, 10, 100) == pytest.approx(590 / 4.1)
    asked, train = run_of(4, 10)
    assert steps_within(10, train, [], [], Path("nowhere"), Options(steps=9999, validate=100)) == 143
    assert asked == [2, 8]


def test_at_least_one_step_is_taken() -> None:
    _, train = run_of(500, 1000)
    assert steps_within(1, train, [], [], Path("nowhere"), Options()) == 1


def test_a_run_that_goes_on_has_as_many_steps_as_before(tmp_path: Path) -> None:
    asked, train = run_of(1, 1)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / SETTINGS).write_text('{"options": {"steps": 77}}')
    assert steps_within(1, train, [], [], tmp_path, Options()) == 77
    assert asked == []
