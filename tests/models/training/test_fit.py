import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models.training.fit import Options, Student, fit, trained
from tests.models.training.toys import toy_groups

OPTIONS = Options(steps=20, batch=4, learning_rate=0.1, validate=5, seed=1)


class Line(Student):
    """One number, pulled to the mean length of questions plus some noise of the step."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__(seed)
        self.number = nn.Parameter(torch.zeros(1))
        self.fixed = nn.Parameter(torch.ones(1), requires_grad=False)
        self.steps: list[int] = []

    def forward(self, groups):
        self.steps.append(self.step)
        wanted = sum(len(group.query) for group in groups) / len(groups)
        noise = torch.rand((), generator=self.generator())
        return 0.01 * (self.number - wanted - noise).square().sum()  # too little for gradients to be clipped

    def measures(self) -> dict[str, float]:
        return {"near": -abs(self.number.item() - 9)}


def run(line, folder, options=OPTIONS):
    return fit(line, toy_groups(), line.measures, "near", folder, options)


def test_a_run_ends_with_the_best_weights_and_an_account(tmp_path):
    line = Line()
    found = run(line, tmp_path / "checkpoints")
    assert line.steps == list(range(20))
    assert found.steps == 20
    assert found.history[0]["near"] == -9.0  # measured before the first step
    best = max((entry for entry in found.history if "near" in entry), key=lambda entry: entry["near"])
    assert (found.best, found.best_step) == (best["near"], best["step"])
    assert line.measures()["near"] == pytest.approx(found.best)
    assert line.fixed.item() == 1.0
    assert list(trained(line)) == ["number"]


def test_the_seed_decides_a_run(tmp_path):
    lines = [Line(), Line(), Line(seed=2)]
    for number, line in enumerate(lines):
        run(line, tmp_path / str(number), replace(OPTIONS, seed=line.seed))
    assert lines[0].number == lines[1].number != lines[2].number


def test_an_interrupted_run_ends_as_it_would_have(tmp_path):
    whole = Line()
    run(whole, tmp_path / "whole")

    class Interrupted(Line):
        def forward(self, groups):
            if self.step == 13:
                raise KeyboardInterrupt
            return super().forward(groups)

    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(), tmp_path / "parts")
    rest = Line()
    run(rest, tmp_path / "parts")
    assert rest.steps == list(range(10, 20))
    assert rest.number == whole.number


def test_a_run_starts_with_the_weights_of_another(tmp_path):
    first = Line()
    run(first, tmp_path / "first")
    start = tmp_path / "first" / "checkpoint-20"
    found = run(Line(), tmp_path / "second", replace(OPTIONS, learning_rate=0.01, start=str(start)))
    assert found.history[0]["near"] > -9.0


@pytest.mark.parametrize("there", [False, True])
def test_a_start_of_another_net_is_refused(tmp_path, there):
    if there:
        save_file({"model.other": torch.zeros(1)}, tmp_path / "trained.safetensors")
    with pytest.raises(ValueError, match="another net" if there else r"has no trained\.safetensors"):
        run(Line(), tmp_path / "run", replace(OPTIONS, start=str(tmp_path)))


def test_it_ends_when_nothing_gets_better(tmp_path):
    line = Line()
    line.measures = lambda: {"near": 0.5}
    found = run(line, tmp_path / "checkpoints", replace(OPTIONS, steps=100, patience=2))
    assert (found.steps, found.best_step, found.best) == (15, 5, 0.5)


def test_checkpoints_of_another_run_are_not_gone_on_from(tmp_path):
    run(Line(), tmp_path / "checkpoints")
    written = json.loads((tmp_path / "checkpoints" / "run.json").read_text())
    assert written["options"]["steps"] == 20
    with pytest.raises(ValueError, match="other options or groups: delete it"):
        run(Line(), tmp_path / "checkpoints", replace(OPTIONS, steps=30))


def test_nothing_to_train_on(tmp_path):
    with pytest.raises(ValueError, match="no groups"):
        fit(Line(), [], dict, "near", tmp_path, OPTIONS)
