"""One way to train all nets: transformers' Trainer, over a module that gives the loss of some groups.

It brings what every run needs and no recipe should write again: a progress bar, checkpoints that an
interrupted run goes on from, a schedule, early stopping by a measure on held-out questions, and the best
weights at the end. A run is determined by its seed, its groups and its options, on one machine.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from models.training.groups import Group

WEIGHTS = "trained.safetensors"
SETTINGS = "run.json"


@dataclass(frozen=True, kw_only=True)
class Options:
    """How long and how fast to train.

    `steps` are optimiser steps of `batch` groups each. The learning rate rises over the share `warmup` of
    them and falls to zero in a line. Every `validate` steps the measure is taken and a checkpoint written;
    after `patience` of these without a better one training ends. `seed` decides everything that is random.
    `start` is a checkpoint of an earlier run of the same net, whose weights training begins with; its options
    and groups may have been others.
    """

    steps: int = 1000
    batch: int = 8
    learning_rate: float = 1e-4
    warmup: float = 0.06
    weight_decay: float = 0.0
    validate: int = 100
    patience: int = 5
    seed: int = 0
    start: str | None = None


@dataclass(frozen=True)
class Run:
    """What became of a training: its options, the step whose weights were kept, and the measures on the way.

    `history` holds {"step", "loss" or measures}, in order; `seconds` are of this process, an interrupted
    one's not counted.
    """

    options: Options
    measure: str
    best: float
    best_step: int
    steps: int
    seconds: float
    history: tuple[dict[str, float], ...]


class Student(nn.Module):
    """What `fit` trains: gives the loss of groups, and may ask which step it is.

    What a step draws by chance comes of its own generator, so that a run that goes on draws the same.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.step = 0

    def generator(self) -> torch.Generator:
        """The chance of this step."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)


def fit(
    model: Student,
    training: Sequence[Group],
    measures: Callable[[], dict[str, float]],
    measure: str,
    folder: Path,
    options: Options,
) -> Run:
    """Train the parameters of `model` that require gradients, and leave the best ones in it.

    `model(groups)` gives the loss of a list of groups, a scalar. `measures` computes by name what `model` is
    worth now; the highest `measure` is best. `folder` keeps checkpoints; if it has any, training goes on from
    the last one. ValueError if these are of another run, without groups, and for a start that is of another
    net.
    """
    if not training:
        raise ValueError("there are no groups to train on")
    _same_run(folder, training, measure, options)
    net = _Loss(model)
    if options.start is not None:
        _begin(net, Path(options.start).expanduser())
    trainer = _Trainer(
        model=net,
        args=_arguments(folder, measure, options),
        train_dataset=cast(Any, list(training)),
        eval_dataset=cast(Any, list(training[:1])),  # the trainer wants one; `measures` has its own
        data_collator=lambda groups: {"groups": list(groups)},
        callbacks=[EarlyStoppingCallback(options.patience)],
    )
    trainer.student, trainer.net, trainer.measures = model, cast(nn.Module, trainer.model), measures
    began = time.monotonic()
    trainer.train(resume_from_checkpoint=_last(folder))
    state = trainer.state
    return Run(
        options,
        measure,
        float(state.best_metric or 0.0),
        int(state.best_global_step or 0),
        int(state.global_step),
        time.monotonic() - began,
        tuple(_plain(entry) for entry in state.log_history),
    )


class _Loss(nn.Module):
    """A module as the trainer wants it, which looks for a loss by name."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, groups: list[Group]) -> dict[str, Tensor]:
        """See `Student`."""
        return {"loss": self.model(groups)}


class _Trainer(Trainer):
    """Keeps of a module only what was trained, and asks the recipe what it is worth."""

    net: nn.Module
    student: Student
    measures: Callable[[], dict[str, float]]

    def training_step(self, *given: Any, **named: Any) -> Tensor:
        """One step, whose number the student is told."""
        self.student.step = self.state.global_step
        return super().training_step(*given, **named)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        self.net.eval()
        with torch.inference_mode():
            found = {f"eval_{name}": value for name, value in self.measures().items()}
        self.net.train()
        self.log(found)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(str(output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_file(trained(self.net), folder / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        _put(self.net, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        _put(self.net, Path(str(self.state.best_model_checkpoint)))


def _last(folder: Path) -> str | None:
    found: str | None = get_last_checkpoint(str(folder))  # type: ignore[no-untyped-call]
    return found


def trained(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that are trained, by name, each once."""
    return {
        name: weight.detach().contiguous()
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }


def _begin(model: nn.Module, folder: Path) -> None:
    """Put the weights of an earlier run's checkpoint into `model`. ValueError for none, or another net's."""
    if not (folder / WEIGHTS).is_file():
        raise ValueError(f"{folder} is no checkpoint to start from: it has no {WEIGHTS}")
    own = {name: weight.shape for name, weight in trained(model).items()}
    if own != {name: weight.shape for name, weight in load_file(folder / WEIGHTS).items()}:
        raise ValueError(f"{folder} is a checkpoint of another net, or of one with other options")
    _put(model, folder)


def _put(model: nn.Module, folder: Path) -> None:
    model.load_state_dict(load_file(folder / WEIGHTS), strict=False)


def _arguments(folder: Path, measure: str, options: Options) -> TrainingArguments:
    every = min(options.validate, options.steps)
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=options.steps,
        per_device_train_batch_size=options.batch,
        learning_rate=options.learning_rate,
        warmup_steps=round(options.warmup * options.steps),
        weight_decay=options.weight_decay,
        lr_scheduler_type="linear",
        eval_strategy="steps",
        eval_steps=every,
        eval_on_start=True,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model=f"eval_{measure}",
        greater_is_better=True,
        logging_steps=max(1, every // 5),
        seed=options.seed,
        data_seed=options.seed,
        use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=False,
        report_to="none",
    )


def _same_run(folder: Path, training: Sequence[Group], measure: str, options: Options) -> None:
    """Write down which run a folder is of. ValueError if it is of another."""
    digest = sha256("\n".join(f"{group.query}\t{group.documents[0]}" for group in training).encode())
    run = {"options": asdict(options), "measure": measure, "groups": digest.hexdigest()[:16]}
    file = folder / SETTINGS
    if file.is_file() and json.loads(file.read_text("utf-8")) != run:
        raise ValueError(
            f"{folder} holds checkpoints of a run with other options or groups: delete it to begin anew, or "
            "name another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(run, indent=2) + "\n", "utf-8")


def _plain(entry: dict[str, Any]) -> dict[str, float]:
    return {
        name.removeprefix("eval_"): float(value)
        for name, value in entry.items()
        if isinstance(value, int | float)
    }
