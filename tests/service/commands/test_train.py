"""`winnow train` with a recipe that learns nothing, so that all around it can be seen."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from models.training.fit import Options, Run
from models.training.groups import Group
from service.cli import app
from service.commands import training
from service.commands.train_kinds import KINDS, how_to_use
from tests.nets import word_overlap
from tests.service.commands.beir import write_beir

NUMBER = 60
CORPUS = {
    f"d{n}": (f"Moon {n}", f"The moon number {n} is over the sea of {n} tides. Seen by night.")
    for n in range(NUMBER)
}
QUERIES = {f"q{n}": f"moon {n}" for n in range(NUMBER)}
QRELS = {f"q{n}": {f"d{n}": 1} for n in range(NUMBER)}


@dataclass(frozen=True, kw_only=True)
class FakeOptions(Options):
    teachers: tuple[str, ...] = ("bm25",)


@dataclass
class Recipe:
    """Keeps what it was given, and writes a file as if it were weights."""

    training: Sequence[Group] = ()
    validation: Sequence[Group] = ()
    options: Any = None
    base: str = ""

    def train(
        self, some: Sequence[Group], others: Sequence[Group], out: Path, options: Any, base: str, cache: Path
    ) -> Run:
        self.training, self.validation, self.options, self.base = some, others, options, base
        print("a figure that the trainer prints")
        if options.learning_rate == 0:
            raise ValueError("nothing can be learnt so")
        (out / "checkpoints").mkdir(parents=True)
        (out / "net.json").write_text("{}")
        history = ({"step": 0.0, "ndcg@10": 0.25}, {"step": 9.0, "ndcg@10": 0.5})
        return Run(options, "ndcg@10", 0.5, 9, options.steps, 60.0, history)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """In place of every recipe; and every net counts words in common."""
    fake = Recipe()
    classes = dict.fromkeys((kind.options for kind in KINDS.values()), FakeOptions)
    monkeypatch.setattr(training, "_recipe", lambda kind: SimpleNamespace(train=fake.train, **classes))
    monkeypatch.setattr("service.commands.trial_run.loader_here", lambda cache: word_overlap)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("NUMBA_CACHE_DIR", os.environ.get("NUMBA_CACHE_DIR", ""))
    return fake


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_beir(tmp_path / "moons", CORPUS, QUERIES, QRELS)


Winnow = Callable[..., Result]


@pytest.fixture
def winnow(tmp_path: Path) -> Winnow:
    def run(kind: str, *arguments: str | Path) -> Result:
        return CliRunner().invoke(app, ["train", kind, *map(str, arguments), "--out", str(tmp_path / "out")])

    return run


def one_line(text: str) -> str:
    return " ".join(text.split())


def asked(groups: Sequence[Group]) -> set[str]:
    return {group.query for group in groups}


# Mining


def test_mine_makes_groups_and_says_where(data: Path, winnow: Winnow, recipe: Recipe, tmp_path: Path) -> None:
    result = winnow("mine", "--data", data, "--queries", "5", "--documents", "4")
    assert result.exit_code == 0, result.output
    path, number = result.stdout.split("\t")
    assert (Path(path).parent, int(number)) == (tmp_path / "out" / "groups", 5)
    assert "moons: 5 groups of 5 queries." in result.stderr


def test_mean_of_runs(winnow: Winnow, tmp_path: Path) -> None:
    for name, weight in (("a", 1.0), ("b", 3.0)):
        (tmp_path / name).mkdir()
        save_file({"w": torch.tensor([weight])}, tmp_path / name / "model.safetensors")
    result = winnow("mean", tmp_path / "a", tmp_path / "b")
    assert result.exit_code == 0, result.output
    assert load_file(tmp_path / "out" / "model.safetensors")["w"].item() == 2.0
    result = winnow("mean", tmp_path / "a", tmp_path / "b")
    assert "holds a trained net already" in one_line(result.output)
    result = winnow("mean", tmp_path / "a", tmp_path / "nowhere", "--force")
    assert result.exit_code == 1
    assert "there is no mean of these runs" in one_line(result.output)


def test_a_folder_that_is_not_there_is_named(winnow: Winnow, recipe: Recipe, tmp_path: Path) -> None:
    for kind in ("mine", "sparse"):
        result = winnow(kind, "--data", tmp_path / "nowhere")
        assert result.exit_code == 1
        assert "nowhere does not exist" in one_line(result.stderr)


# Training


def test_a_net_is_trained_described_and_measured(
    data: Path, winnow: Winnow, recipe: Recipe, tmp_path: Path
) -> None:
    (data / "source.json").write_text(json.dumps({"source": "the sky", "licence": "CC0"}))
    result = winnow("late", "--data", data, "--steps", "7", "--seed", "3", "--licence", "MIT", "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    (gain,) = said.pop("gain")
    assert said == {"steps": 7, "best_step": 9, "seconds": 60.0, "ndcg@10": 0.5}
    assert gain["source"] == "moons"
    assert gain["before"] == gain["after"] > 0
    assert (gain["difference"], gain["p"]) == (0, 1)
    assert recipe.options == FakeOptions(steps=7, seed=3)
    assert recipe.base == KINDS["late"].base

    card = (tmp_path / "out" / "README.md").read_text()
    assert f"| moons | the sky | CC0 | {len(recipe.training)} |" in card
    assert "Licence: MIT." in card
    assert "net.json" in (tmp_path / "out" / "SHA256SUMS").read_text()
    assert not (tmp_path / "out" / "checkpoints").exists()
    assert "late_encoder" in result.stderr
    assert "a figure that the trainer prints" in result.stderr


@pytest.mark.parametrize("kind", ["cross", "decoder-sparse"])
def test_nets_without_a_forerunner_are_measured_beside_bm25(
    kind: str, data: Path, winnow: Winnow, recipe: Recipe
) -> None:
    """Each question's two words are in the title of its answer, and one of them is in no other."""
    result = winnow(kind, "--data", data, "--queries", "20", "--json")
    assert result.exit_code == 0, result.output
    (gain,) = json.loads(result.stdout)["gain"]
    assert gain["before"] == gain["after"] == 1


def test_what_measures_neither_trains_nor_steers(
    data: Path, winnow: Winnow, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[set[str]] = []

    def measure(questions: Any, *_: Any) -> Any:
        measured.append(set(questions.queries.values()))
        return training.Gain(questions.source, len(questions.queries), 0.25, 0.75, 0.01)

    monkeypatch.setattr(training, "measure", measure)
    result = winnow("sparse", "--data", data, "--held-out", "0.5")
    assert result.exit_code == 0, result.output
    parts = [asked(recipe.training), asked(recipe.validation), *measured]
    assert sum(map(len, parts)) == len(set().union(*parts)) == NUMBER
    assert len(parts[0]) in range(20, 41)
    assert all(len(part) in range(8, 23) for part in parts[1:])
    assert "+0.500" in result.stdout


def test_other_folders_may_steer_and_measure(
    data: Path, winnow: Winnow, recipe: Recipe, tmp_path: Path
) -> None:
    """All questions of the data train but the one that is asked there too."""
    others = {**{f"v{n}": f"sea {n}" for n in range(20)}, "same": "moon 1"}
    qrels = {query: {"d1": 1} for query in others}
    validation = write_beir(tmp_path / "seas", CORPUS, others, qrels)
    result = winnow("late", "--data", data, "--validation", validation, "--json")
    assert result.exit_code == 0, result.output
    assert asked(recipe.training) == set(QUERIES.values()) - {"moon 1"}
    assert asked(recipe.validation) < set(others.values())
    (gain,) = json.loads(result.stdout)["gain"]
    assert (gain["source"], gain["questions"]) == ("seas", 21 - len(recipe.validation))


def test_where_nothing_is_judged_teachers_steer_and_the_text_asks(
    winnow: Winnow, recipe: Recipe, tmp_path: Path
) -> None:
    data = write_beir(tmp_path / "moons", CORPUS, QUERIES)
    result = winnow("late", "--data", data, "--json")
    assert result.exit_code == 0, result.output
    assert not any(any(group.relevant) for group in recipe.training)
    assert all(group.relevant.index(True) == 0 for group in recipe.validation)
    (gain,) = json.loads(result.stdout)["gain"]
    assert gain["questions"] == NUMBER  # each text gives one


def test_a_folder_without_questions_asks_itself(winnow: Winnow, recipe: Recipe, tmp_path: Path) -> None:
    data = write_beir(tmp_path / "moons", CORPUS)
    result = winnow("late", "--data", data, "--json")
    assert result.exit_code == 0, result.output
    parts = asked(recipe.training), asked(recipe.validation)
    (gain,) = json.loads(result.stdout)["gain"]
    assert sum(map(len, parts)) + gain["questions"] == NUMBER
    assert all(query.endswith("tides.") for query in parts[0])


def test_options_of_the_recipe_can_be_set(data: Path, winnow: Winnow, recipe: Recipe) -> None:
    arguments = ("--data", data, "--no-gain", "--batch", "2", "--learning-rate", "0.5", "--base", "other")
    result = winnow("cross", *arguments, "--set", 'teachers=["dense", "sparse"]', "--set", "validate=5")
    assert result.exit_code == 0, result.output
    expected = FakeOptions(batch=2, learning_rate=0.5, validate=5, teachers=("dense", "sparse"))
    assert (recipe.options, recipe.base) == (expected, "other")


def test_minutes_become_steps(data: Path, winnow: Winnow, recipe: Recipe) -> None:
    """Each run says that it took a minute: nothing of it is of its steps, and there is time for one."""
    result = winnow("sparse", "--data", data, "--no-gain", "--minutes", "0.5")
    assert result.exit_code == 0, result.output
    assert recipe.options.steps == 1
    assert "0.5 minutes are about 1 steps" in one_line(result.stderr)
    result = winnow("sparse", "--data", data, "--minutes", "1", "--steps", "1")
    assert "not both" in one_line(result.stderr)


def test_a_trained_net_is_replaced_only_if_asked(data: Path, winnow: Winnow, recipe: Recipe) -> None:
    assert winnow("sparse", "--data", data, "--no-gain").exit_code == 0
    again = winnow("sparse", "--data", data, "--no-gain")
    assert again.exit_code == 1
    assert "holds a trained net already: name another folder, or give --force" in one_line(again.stderr)
    assert winnow("sparse", "--data", data, "--no-gain", "--force").exit_code == 0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--set", "unknown=1"], 1, "there is no option 'unknown' here; there are batch, learning_rate,"),
        (["--set", "steps=many"], 2, "--set takes NAME=JSON"),
        (["--set", 'batch="many"'], 1, "option batch: Input should be a valid integer"),
        (["--learning-rate", "0"], 1, "nothing can be learnt so"),
        (["--queries", "1"], 1, "questions to train on and"),
    ],
)
def test_errors_say_what_to_do(
    data: Path, winnow: Winnow, recipe: Recipe, options: list[str], code: int, message: str
) -> None:
    result = winnow("sparse", "--data", data, *options)
    assert result.exit_code == code, result.output
    assert message in one_line(result.stderr.replace("│", ""))


# The table


@pytest.mark.parametrize("name", list(KINDS))
def test_every_kind_has_a_recipe_and_trials(name: str) -> None:
    kind = KINDS[name]
    recipe = training._recipe(kind)
    assert issubclass(getattr(recipe, kind.options), Options)
    assert callable(recipe.train)
    made = "itn" if name == "quality" else "/what/was/made"  # a scorer is asked what its scores are
    before, after = kind.trials("the base", made, ["moon", "moon moon moon"])
    assert before.label != after.label
    assert made in (*after.schema.values(), *after.settings.values())
    assert CliRunner().invoke(app, ["train", name, "--help"]).exit_code == 0


def test_how_a_net_is_used_is_a_line_for_a_shell() -> None:
    lines = {
        name: how_to_use(KINDS[name].trials("the base", "/my nets/one", [])[1])
        for name in ("sparse", "late", "cross")
    }
    idf = '"sparse_encoder": "/my nets/one", "sparse_idf": "model", "sparse_query": "idf"'
    late = '"components": ["bm25", "dense", "sparse", "late"], "late_encoder": "/my nets/one"'
    assert lines == {
        "sparse": f"winnow index FOLDER --schema '{{{idf}}}'",
        "late": f"winnow index FOLDER --schema '{{{late}}}'",
        "cross": "WINNOW_CROSS_ENCODER='/my nets/one' winnow serve",
    }


def test_the_worse_third_of_passages_is_left_out_by_their_quality() -> None:
    """Shares of different words: 1/4, 1/2, 3/4 and 1; 30 % of the way from the first lies at 0.475."""
    passages = ["a a a a", "a a b b", "a a b c", "a b c d"]
    _, after = KINDS["quality"].trials("the base", "itn", passages)
    assert after.schema == {"sparse_quality": "itn", "least_quality": 0.475}
