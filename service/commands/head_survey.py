"""What all heads of a language model do with judged questions, over the candidates that a pipeline finds."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.progress import Progress

from models.in_context import families
from models.in_context.net import InContextNet
from models.in_context.opened import Opened, load_model, opened
from models.load import WeightsMissing
from service.commands.common import CommandError
from service.commands.encoding_cache import cache_home
from service.commands.evaluate import Task
from service.commands.head_choice import Surveyed
from service.commands.trial_run import TrialRun
from service.schema.search import Hit


@dataclass(frozen=True)
class Survey:
    """What was seen, and the questions that were left out since none of their candidates is relevant.

    Of all candidates that were read, `cut` were longer than the model is given to read.
    """

    seen: list[Surveyed]
    skipped: int
    read: int
    cut: int


def whole_net(name: str) -> tuple[InContextNet, Opened]:
    """The model of this name as it runs through all its layers, and what the name says."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = opened(name, cache_home() / "models")
        model, tokenizer = load_model(found, device)
        families.check(model, name)
        last = int(model.config.num_hidden_layers) - 1
        whole = replace(found, recipe=replace(found.recipe, layer=last))
        return InContextNet(whole, model, tokenizer, device), found
    except (WeightsMissing, ValueError) as error:
        raise CommandError(str(error)) from error


def candidates(
    dataset: Path, task: Task, pipeline: str, number: int, schema: Mapping[str, Any], progress: Progress
) -> dict[str, list[Hit]]:
    """The first hits of each question with title and passage, best first, from an index that is then gone."""
    with TemporaryDirectory(prefix="winnow-") as root:
        run = TrialRun(Path(root), cache_home(), [pipeline], None, progress)
        run.index(dataset, schema)
        responses = run.responses(task.queries, number, ("title", "passage"))[pipeline]
    for response in responses.values():
        if response["degraded"]:
            raise CommandError(f"{pipeline} did less than it should: {'; '.join(response['degraded'])}")
    return {query: response["hits"] for query, response in responses.items()}


def survey(
    net: InContextNet, task: Task, hits: Mapping[str, Sequence[Hit]], seed: int, progress: Progress
) -> Survey:
    """What all heads did with each question that has a relevant document among its hits."""
    useful = {query: found for query, found in hits.items() if _relevant(task.qrels[query], found).any()}
    if len(useful) < 2:
        raise CommandError(
            f"of {len(hits)} queries {len(useful)} have a relevant document among their candidates; choosing "
            "takes one and measuring another: give more --queries, more --candidates or another --pipeline"
        )
    mixed, seen, cut = random.Random(seed), [], 0  # noqa: S311 - an order, not a secret
    for query, found in progress.track(useful.items(), description="reading"):
        ranks = mixed.sample(range(len(found)), len(found))
        one, lost = _one(net, query, task, [found[rank] for rank in ranks], ranks)
        seen.append(one)
        cut += lost
    return Survey(seen, len(hits) - len(useful), sum(map(len, useful.values())), cut)


def _one(
    net: InContextNet, query: str, task: Task, hits: Sequence[Hit], ranks: Sequence[int]
) -> tuple[Surveyed, int]:
    """What all heads did with one question, and how many of its hits, which had these ranks, were cut."""
    cuts = net.document_tokens([(hit["title"], hit["passage"]["text"]) for hit in hits])
    surveyed = Surveyed(
        query,
        [hit["id"] for hit in hits],
        np.array(ranks),
        np.array([hit["score"] for hit in hits], np.float32),
        _relevant(task.qrels[query], hits),
        net.survey(task.queries[query], [cut.ids for cut in cuts]),
    )
    return surveyed, sum(cut.lost > 0 for cut in cuts)


def _relevant(grades: Mapping[str, int], hits: Sequence[Hit]) -> Any:
    return np.array([grades.get(hit["id"], 0) > 0 for hit in hits], np.bool_)
