import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.in_context.net import InContextNet
from models.in_context.read_out import BlockRank
from models.training.groups import Group
from models.training.in_context import InContextOptions, _targets, _told, measured, share, train
from tests.models.training.toys import toy_groups
from tests.nets import tiny_causal

OPTIONS = InContextOptions(
    steps=40, batch=4, documents=3, validate=20, learning_rate=1e-2, layer=2, rank=8, document_tokens=64
)


@pytest.fixture
def base(tmp_path):
    return tiny_causal(tmp_path / "base", layers=4)


def test_shares_of_attention():
    # one head, one row, and keys whose products with it are 0, 0 and ln 2: shares 1/4, 1/4, 1/2
    queries, keys = torch.ones(1, 1, 1), torch.tensor([[[0.0], [0.0], [math.log(2.0)]]])
    assert share(queries, keys, torch.tensor([0, 1, 1]), 2).tolist() == pytest.approx([0.25, 0.75])
    assert share(queries, keys, torch.tensor([0, 0, 2]), 3).tolist() == pytest.approx([0.5, 0, 0.5])


def test_heads_that_share_keys():
    queries = torch.tensor([[[0.0]], [[9.0]], [[0.0]], [[0.0]]])  # four heads over two of keys
    keys = torch.tensor([[[0.0], [9.0]], [[0.0], [0.0]]])
    # the second head looks at the second document only, the others at both
    assert share(queries, keys, torch.tensor([0, 1]), 2).tolist() == pytest.approx([3 / 8, 5 / 8])


def test_a_question_is_not_compared_with_another_of_its_answers():
    one = Group("a", (("", "x"), ("", "y")), (True, True), {}, "toys")
    two = Group("b", (("", "y"), ("", "z")), (False, True), {}, "toys")
    unique = [("", "x"), ("", "y"), ("", "z")]
    targets, banned = _targets([one, two], unique)
    assert targets.tolist() == [0, 2]
    assert banned.tolist() == [[False, True, False], [False, False, False]]


def test_teachers_speak_of_a_questions_own_documents():
    one = Group("a", (("", "x"), ("", "y")), (True, False), {"bm25": (8.0, 2.0)}, "toys")
    two = Group("b", (("", "y"), ("", "z")), (False, True), {"bm25": (1.0, 3.0)}, "toys")
    unique = [("", "x"), ("", "y"), ("", "z")]
    nothing = float("-inf")
    told = _told([one, two], unique, 10.0)
    assert told.tolist() == [[pytest.approx(10), 0.0, nothing], [nothing, 0.0, pytest.approx(10)]]


def test_it_learns_from_teachers(base, tmp_path):
    groups = toy_groups()
    options = replace(OPTIONS, distil=1.0, aware=0.0, steps=20, validate=10)
    run = train(groups, groups[:8], tmp_path / "out", options, str(base), None)
    assert run.history[0]["ndcg@10"] < run.best


def test_it_learns_where_to_look_and_serves_what_it_learned(base, tmp_path):
    groups = toy_groups()
    run = train(groups, groups[:8], tmp_path / "out", OPTIONS, str(base), None)
    assert run.history[0]["ndcg@10"] < run.best
    net = InContextNet.load(str(tmp_path / "out"), device="cpu", dtype="float32")
    assert (net.layer, net.recipe.read) == (2, BlockRank(signal="words"))
    group = groups[0]
    tokens = [cut.ids for cut in net.document_tokens(group.documents)]
    prompt = net.prompt(group.query, tokens, "cached")
    (reading,) = net.rank([prompt])
    assert int(np.argmax(reading.scores)) == 1


def test_the_reader_computes_what_the_service_computes(base, tmp_path):
    from models.in_context.opened import load_model, opened
    from models.in_context.recipe import Recipe
    from models.training.in_context import AttentionReader

    recipe = Recipe(str(base), layer=2, read=BlockRank(signal="words"), document_tokens=64)
    reader = AttentionReader(
        *load_model(opened(str(base), None), "cpu", "float32"), recipe, OPTIONS, torch.float32
    )
    net = InContextNet.load(str(base), device="cpu", dtype="float32")
    group = toy_groups(1)[2]
    with torch.inference_mode():
        own = reader.shares(group.query, group.documents)
    folder = tmp_path / "recipe"
    folder.mkdir()
    read = {"kind": "blockrank", "signal": "words"}
    said = {"model": str(base), "layer": 2, "document_tokens": 64, "read": read}
    (folder / "in_context.json").write_text(json.dumps(said))
    net = InContextNet.load(str(folder), device="cpu", dtype="float32")
    tokens = [cut.ids for cut in net.document_tokens(group.documents)]
    (reading,) = net.rank([net.prompt(group.query, tokens, "cached")])
    np.testing.assert_allclose(own["cached"].numpy(), reading.scores, rtol=1e-4, atol=1e-6)
    assert measured(reader, [group]).keys() == {"keys", "cached", "ndcg@10"}
