import asyncio

import pytest

from indexer.segment.manifest import CollectionSchema
from service.engine import NAMED, check, named_pipelines
from service.errors import ComponentError, DeadlineError, InvalidError, LimitError, StageError
from service.pipeline import degraded, run
from service.settings import Limits
from service.stages import Bm25, Dense, Fuse, Group
from service.types import Hits, Search, Stage
from tests.service.hand_made import Broken, Given, scores, search

ALL = CollectionSchema(components=("bm25", "dense", "sparse", "late", "keys"))
BOTH = CollectionSchema()
WORDS = CollectionSchema(components=("bm25",))


async def test_a_later_stage_that_fails_leaves_the_hits_as_they_were():
    outcome = await run([Given(found={1: 1.0}), Broken()], search())
    assert scores(outcome.hits) == {1: 1.0}
    assert [account["status"] for account in outcome.accounts] == ["ran", "skipped"]
    assert outcome.accounts[1]["reason"] == "no weights"
    assert degraded(outcome.accounts) == ["broken"]


async def test_nothing_runs_after_a_first_stage_that_failed():
    outcome = await run([Given(failure="gone"), Broken()], search())
    assert isinstance(outcome.failure, StageError)
    assert [account["stage"] for account in outcome.accounts] == ["given"]


async def test_every_stage_may_begin_before_the_first_runs():
    order: list[str] = []

    class First(Given):
        async def __call__(self, search: Search, before: Hits) -> Hits:
            order.append("first")
            return await super().__call__(search, before)

    class Later(Stage):
        stage: str = "later"

        def begin(self, search: Search) -> None:
            order.append("begun")

        async def __call__(self, search: Search, hits: Hits) -> Hits:
            return hits

    await run([First(found={1: 1.0}), Later()], search())
    assert order == ["begun", "first"]


async def test_what_a_net_makes_of_a_question_is_made_once_and_not_after_its_search():
    made: list[str] = []

    async def slowly() -> str:
        made.append("begun")
        await asyncio.sleep(60)
        return "never"

    question = search()
    assert question.foresee("net", slowly) is question.within(5).foresee("net", slowly)
    await asyncio.sleep(0)
    await question.forget()
    assert made == ["begun"]
    assert question.ahead["net"].cancelled()


async def test_a_stage_ends_at_the_deadline_of_its_search():
    outcome = await run([Given(seconds=5.0)], search(seconds=0.02))
    assert isinstance(outcome.failure, DeadlineError)
    assert outcome.failure.status_code == 504


async def test_a_deadline_that_is_over_is_noticed_at_once():
    outcome = await run([Given(seconds=5.0)], search(seconds=-1.0))
    assert isinstance(outcome.failure, DeadlineError)


def test_the_named_pipelines_can_run_where_all_components_are():
    for stages in NAMED.values():
        check(stages, ALL, Limits())
        assert isinstance(stages[-1], Group), "so that a hit is a document"


def test_settings_add_pipelines_and_replace_them():
    pipelines = named_pipelines({"hybrid": [{"stage": "bm25", "k": 5}], "mine": [{"stage": "dense"}]})
    assert pipelines["hybrid"] == (Bm25(k=5),)
    assert pipelines["mine"] == (Dense(),)
    assert pipelines["bm25"] == NAMED["bm25"]


@pytest.mark.parametrize(
    ("stages", "sentence"),
    [
        ([Group()], "needs hits to work on"),
        ([Bm25(), Dense()], "comes first in a pipeline"),
        ([Fuse(inputs=((Bm25(), Dense()),))], "comes first in a pipeline"),
        ([Fuse(inputs=((Group(),),))], "needs hits to work on"),
    ],
)
def test_stages_in_an_order_that_makes_no_sense_are_refused(stages: list[Bm25], sentence: str):
    with pytest.raises(InvalidError, match=sentence):
        check(stages, BOTH, Limits())


@pytest.mark.parametrize("stages", [[Dense()], [Fuse(inputs=((Bm25(),), (Dense(),)))]])
def test_a_component_that_the_collection_lacks_is_named_with_what_to_do(stages: list[Dense]):
    with pytest.raises(ComponentError, match=r"needs the component 'dense'.*PUT /v1/collections"):
        check(stages, WORDS, Limits())


def test_number_and_nesting_of_stages_are_bounded():
    with pytest.raises(LimitError, match="'stages' is 3"):
        check([Fuse(inputs=((Bm25(),), (Bm25(),))), Group()], BOTH, Limits(stages=3))
    nested = Fuse(inputs=((Fuse(inputs=((Bm25(),),)),),))
    check([nested], BOTH, Limits(pipeline_depth=3))
    with pytest.raises(LimitError, match="'pipeline_depth' is 2"):
        check([nested], BOTH, Limits(pipeline_depth=2))
