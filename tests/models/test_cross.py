import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder as Theirs

from models import roles
from models.cross import CrossEncoder
from models.cross_passages import Reading
from models.cross_recipe import FILE
from models.load import resolve
from tests.nets import VOCABULARY, tiny_cross_encoder

CLS, SEP = (VOCABULARY.index(each) for each in ("[CLS]", "[SEP]"))
PAIRS = [
    ("the moon", "the moon pulls the sea"),
    ("", "cat"),
    ("cat", ""),
    ("  the sea ", " rain falls into the sea, and the sea is water [SEP] "),
    ("sea " * 20, "moon " * 30),
    ("moon", "sea " * 60),
    ("moon " * 60, "sea"),
    ("dog", "tide"),
]
LONG = "the cat and the dog " * 8 + "the moon pulls the tide " + "rain and sun " * 12


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_cross_encoder(tmp_path_factory.mktemp("nets") / "tiny", max_tokens=40)


@pytest.fixture(scope="module")
def net(path: Path) -> CrossEncoder:
    return CrossEncoder.load(str(path), dtype="float32")


@pytest.fixture
def windowed(tmp_path: Path) -> CrossEncoder:
    """A net that reads windows of 5 tokens and 1 on each side, at most two, and adds half of the second."""
    path = tiny_cross_encoder(tmp_path / "net", max_tokens=40)
    (path / FILE).write_text('{"window": 5, "overlap": 1, "passages": 2, "weights": [1, 0.5]}')
    return CrossEncoder.load(str(path), dtype="float32")


def numbers(*tokens: str) -> list[int]:
    return [VOCABULARY.index(token) for token in tokens]


def test_it_says_what_it_is(net: CrossEncoder, path: Path):
    assert (net.name, net.fingerprint) == (str(path), resolve(str(path)).fingerprint)
    assert (net.max_tokens, net.dtype) == (40, "float32")


def test_tokens_of_the_second_text_are_complements(net: CrossEncoder):
    question = [CLS, *numbers("the", "tide", "##s"), SEP]
    assert net.tokenize([("The tides", "moon!")]) == [
        [*question, *(~n for n in [*numbers("moon", "!"), SEP])]
    ]
    assert net.tokenize([("", "")]) == [[CLS, SEP, ~SEP]]


def test_offsets_are_those_of_whole_texts(net: CrossEncoder):
    short, long = net.offsets(["The tides", "sea " * 50])
    assert short.tolist() == [[0, 3], [4, 8], [8, 9]]
    assert len(long) == 50


def test_scores_are_those_of_sentence_transformers(net: CrossEncoder, path: Path):
    wanted = Theirs(str(path), device="cpu").predict(PAIRS, activation_fn=torch.nn.Identity())
    np.testing.assert_allclose(net.predict(PAIRS), wanted, atol=1e-5, rtol=0)
    np.testing.assert_allclose(net.activate(net.predict(PAIRS)), 1 / (1 + np.exp(-wanted)), atol=1e-6)
    assert np.ptp(wanted) > 0.1, "a net that gives everything the same would pass"


def test_pairs_are_cut_as_by_sentence_transformers(net: CrossEncoder, path: Path):
    features = Theirs(str(path), device="cpu").preprocess(PAIRS)
    for item, ids, types, real in zip(
        net.tokenize(PAIRS),
        *(features[key].tolist() for key in ("input_ids", "token_type_ids", "attention_mask")),
        strict=True,
    ):
        assert [~each if each < 0 else each for each in item] == ids[: sum(real)]
        assert [int(each < 0) for each in item] == types[: sum(real)]


def test_a_batch_gives_what_single_pairs_give(net: CrossEncoder):
    single = np.concatenate([net.predict([pair]) for pair in PAIRS])
    np.testing.assert_allclose(net.predict(PAIRS, budget=4096), single, atol=1e-5, rtol=0)
    np.testing.assert_allclose(net.forward(net.tokenize(PAIRS)), single, atol=1e-5, rtol=0)
    assert net.predict([]).shape == (0,)


def test_which_text_is_which_matters(net: CrossEncoder):
    there, back = net.predict([("the moon", "the sea"), ("the sea", "the moon")])
    assert abs(there - back) > 1e-3
    (item,) = net.tokenize([("moon", "sea")])
    all_first = [~each if each < 0 else each for each in item]
    assert abs(float(net.forward([item])[0] - net.forward([all_first])[0])) > 1e-3


def test_in_bfloat16_the_last_layer_is_exact_enough_to_tell_passages_apart(path: Path, net: CrossEncoder):
    half = CrossEncoder.load(str(path), dtype="bfloat16")
    assert (half.dtype, half.fingerprint) == ("bfloat16", net.fingerprint)
    logits = half.predict(PAIRS)
    assert logits.dtype == np.float32
    assert (logits != torch.from_numpy(logits).to(torch.bfloat16).float().numpy()).any()
    assert np.corrcoef(logits, net.predict(PAIRS))[0, 1] > 0.95


def test_converted_weights_keep_name_fingerprint_recipe_and_student(tmp_path: Path, windowed: CrossEncoder):
    found = CrossEncoder.load(windowed.name, dtype="bfloat16", cache=tmp_path / "cache")
    assert (found.name, found.fingerprint, found.recipe) == (
        windowed.name,
        windowed.fingerprint,
        windowed.recipe,
    )


def test_it_is_loaded_by_its_role(tmp_path: Path, path: Path):
    assert isinstance(roles.load(tmp_path, "cross", str(path)), CrossEncoder)


def test_what_fits_a_window_is_read_whole_and_below_its_title(net: CrossEncoder):
    (plain, titled) = net.read("moon", [("", "the sea"), ("tide", "the sea")])
    assert [plain.items, titled.items] == [
        net.tokenize([("moon", each)]) for each in ("the sea", "tide the sea")
    ]
    assert plain.characters.tolist() == [[0, 7]]
    assert plain.whole
    assert net.read("moon", []) == []


def test_titles_are_cut_to_a_third_of_what_the_net_reads(net: CrossEncoder):
    (found,) = net.read("moon", [("tide " * 30, "the sea")])
    assert found.items == net.tokenize([("moon", "tide " * 13 + "the sea")])


def test_of_a_long_document_the_windows_are_read_that_have_the_question(windowed: CrossEncoder):
    (found,) = windowed.read("moon tide", [("", LONG)])
    shown = [LONG[begin:end] for begin, end in found.characters.tolist()]
    assert len(shown) == 2
    assert "moon" in shown[0]
    assert "tide" in " ".join(shown)
    assert not found.whole
    assert found.items == windowed.tokenize([("moon tide", each) for each in shown])


def test_what_a_document_costs_does_not_grow_with_its_length(windowed: CrossEncoder):
    costs = [
        sum(map(len, found.items)) for found in windowed.read("moon", [("", LONG * n) for n in (1, 10, 100)])
    ]
    assert costs[1] <= costs[0] + 2
    assert costs[2] <= costs[0] + 2


def test_a_document_of_few_windows_needs_no_choice(windowed: CrossEncoder):
    text = "the moon pulls the sea and the tide is in"
    pieces = len(windowed.tokenize([("", text)])[0]) - 3
    assert 7 < pieces <= 15, "more than one window"
    (found,) = windowed.read("zebra", [("", "the moon and the sea is water to the cat")])
    assert found.characters.tolist()[0][0] == 0
    assert found.whole
    assert len(found.items) == 2


def test_the_score_of_a_document_is_made_of_its_windows(windowed: CrossEncoder):
    readings = windowed.read("moon tide", [("", LONG), ("", "the sea"), ("", LONG[::-1])])
    logits = windowed.forward([item for each in readings for item in each.items])
    wanted = [
        max(logits[0], logits[1]) + 0.5 * min(logits[0], logits[1]),
        logits[2],
        max(logits[3], logits[4]) + 0.5 * min(logits[3], logits[4]),
    ]
    np.testing.assert_allclose(windowed.score(readings, logits), wanted, rtol=1e-6)
    one = [windowed.score([each], windowed.forward(each.items))[0] for each in readings]
    np.testing.assert_allclose(one, wanted, atol=1e-5)


def test_a_text_that_is_cut_is_not_whole(net: CrossEncoder):
    (found,) = net.read("moon " * 38, [("", "sea " * 20)])
    assert not found.whole
    assert len(found.items[0]) == net.max_tokens


def test_recipe_and_student_belong_to_the_fingerprint(tmp_path: Path):
    path = tiny_cross_encoder(tmp_path / "net")
    found = {CrossEncoder.load(str(path)).fingerprint}
    (path / FILE).write_text("{}")
    found.add(CrossEncoder.load(str(path)).fingerprint)
    (path / FILE).write_text(json.dumps({"passages": 3}))
    found.add(CrossEncoder.load(str(path)).fingerprint)
    assert len(found) == 3


def test_a_reading_of_several_windows_has_as_many_items(windowed: CrossEncoder):
    readings: list[Reading] = windowed.read("moon", [("tide", LONG), ("", ""), ("", "sea")])
    assert [len(each.items) for each in readings] == [2, 1, 1]
    assert all(len(each.items) == len(each.characters) for each in readings)
