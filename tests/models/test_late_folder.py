"""Every kind of token encoder from its folder, against sentence-transformers or the plain transformer."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Normalize
from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling, MultiVectorMask
from transformers import AutoModel

from models.dense import DenseEncoder
from models.late import LateEncoder
from models.late_heads import Head, load_head, save_head
from models.late_layout import UNSEEN
from models.late_recipe import HeadSpec
from tests.models.adapters import trained
from tests.models.late_folders import (
    DIM,
    DOCUMENT,
    HIDDEN,
    MARKERS,
    QUERY,
    multi_vector,
    plain,
    projection,
    pylate,
    say,
    stanford,
)
from tests.nets import VOCABULARY, tiny_classifier, tiny_encoder, tiny_sparse_encoder

TEXTS = [
    "the moon pulls the sea.",
    "cat",
    "",
    "...!",
    "rain, falls (into) the sea and the sea is water and the rain falls into the sea",
]
CLS, SEP, MASK, SEA, DOT = (VOCABULARY.index(each) for each in ("[CLS]", "[SEP]", "[MASK]", "sea", "."))
FILLED = {"query_expansion": {"strategy": "fixed", "attend": False, "length": 12}}


def load(path: Path) -> LateEncoder:
    return LateEncoder.load(str(path), dtype="float32")


def assert_like_sentence_transformers(path: Path) -> None:
    reference, encoder = MultiVectorEncoder(str(path), device="cpu"), load(path)
    expected = {
        "query": reference.encode_query(TEXTS, convert_to_numpy=True),
        "document": reference.encode_document(TEXTS, convert_to_numpy=True),
    }
    for kind, rows in expected.items():
        found = encoder.encode(TEXTS, kind)
        assert [each.shape for each in found] == [each.shape for each in rows]
        for one, other in zip(found, rows, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        FILLED,
        {"query_expansion": {"strategy": "fixed", "attend": True, "length": 12, "token": "the"}},
        {"query_expansion": {"strategy": "min", "attend": False, "length": 12}, "query_length": 14},
        {"query_expansion": {"strategy": "min", "attend": True, "length": 12}},
        {"query_length": 8, "document_length": 12},
        {},
    ],
)
def test_a_multi_vector_encoder_is_that_of_sentence_transformers(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    assert_like_sentence_transformers(multi_vector(tmp_path, **settings))


@pytest.mark.parametrize(
    "dense",
    [
        lambda: [projection(outputs=48), projection(48)],
        lambda: [projection(outputs=HIDDEN, use_residual=True), projection(use_residual=True, bias=True)],
        lambda: [projection(activation_function=torch.nn.Tanh())],
    ],
)
def test_heads_of_several_layers_are_read_too(dense: Any, tmp_path: Path) -> None:
    assert_like_sentence_transformers(multi_vector(tmp_path, dense=dense()))


def test_a_model_without_skip_list_or_with_one_for_questions_is_read_as_it_says(tmp_path: Path) -> None:
    words = {"skiplist_words": ["the", "."], "skiplist_tasks": ["query", "document"]}
    assert_like_sentence_transformers(
        multi_vector(tmp_path / "both", mask=MultiVectorMask(**words), **FILLED)
    )
    assert_like_sentence_transformers(multi_vector(tmp_path / "none", mask=MultiVectorMask()))


@pytest.mark.parametrize("folder", [pylate, stanford])
def test_older_layouts_of_colbert_are_read(folder: Any, tmp_path: Path) -> None:
    path = folder(tmp_path / "net")
    assert_like_sentence_transformers(path)
    assert load(path).tokenize(["cat"], "query")[0][:2] == [CLS, QUERY]
    assert load(path).max_tokens == 20


def test_questions_are_filled_up_with_masks_at_which_no_other_token_looks(tmp_path: Path) -> None:
    encoder = load(multi_vector(tmp_path, **FILLED))
    assert encoder.tokenize(["sea.", "sea " * 50], "query") == [
        [CLS, QUERY, SEA, DOT, SEP, *[MASK + UNSEEN] * 7],
        [CLS, QUERY, *[SEA] * 9, SEP],
    ]
    assert encoder.tokenize(["sea."]) == [[CLS, DOCUMENT, SEA, ~DOT, SEP]]
    rows = encoder.pieces(["sea."], "query")[0]
    assert rows.ids.tolist() == [CLS, QUERY, SEA, DOT, SEP, *[MASK] * 7]
    assert rows.spans.tolist() == [[0, 0], [0, 0], [0, 3], [3, 4], *[[0, 0]] * 8]


def test_masks_do_not_change_the_rows_of_the_question(tmp_path: Path) -> None:
    bare = load(multi_vector(tmp_path / "bare")).encode(["cat"], "query")[0]
    filled = load(multi_vector(tmp_path / "filled", **FILLED)).encode(["cat"], "query")[0]
    assert (len(bare), len(filled)) == (4, 12)
    np.testing.assert_allclose(filled[:4], bare, atol=1e-6)


def test_the_default_layout_is_token_states_of_unit_length(tmp_path: Path) -> None:
    path = tiny_encoder(tmp_path / "net")
    net, text = AutoModel.from_pretrained(path), [[CLS, SEA, DOT, SEP]]
    with torch.inference_mode():
        states = net(input_ids=torch.tensor(text)).last_hidden_state[0].numpy()
    expected = states / np.linalg.norm(states, axis=1, keepdims=True)
    encoder = load(path)
    np.testing.assert_allclose(encoder.encode(["sea."], "query")[0], expected, atol=1e-5)
    np.testing.assert_allclose(encoder.encode(["sea."])[0], expected[[0, 1, 3]], atol=1e-5)
    assert encoder.dim == HIDDEN


@pytest.mark.parametrize("folder", [plain, tiny_sparse_encoder])
def test_a_plain_encoder_gives_its_token_states(folder: Any, tmp_path: Path) -> None:
    encoder = load(folder(tmp_path / "net", max_tokens=12))
    assert (encoder.dim, encoder.max_tokens) == (HIDDEN, 12)
    assert encoder.tokenize(["sea."]) == [[CLS, SEA, ~DOT, SEP]]


def test_prompts_of_a_dense_encoder_are_read_and_get_no_vector(tmp_path: Path) -> None:
    path = tiny_encoder(tmp_path / "net")
    prompts = {"prompts": {"query": "is ", "passage": "the "}}
    (path / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    encoder = load(path)
    assert encoder.tokenize(["sea"], "query") == [[CLS, ~VOCABULARY.index("is"), SEA, SEP]]
    assert encoder.tokenize(["sea"]) == [[CLS, ~VOCABULARY.index("the"), SEA, SEP]]
    assert encoder.pieces(["sea"])[0].spans.tolist() == [[0, 0], [0, 3], [0, 0]]


def test_a_recipe_says_markers_prompts_lengths_and_what_is_skipped(tmp_path: Path) -> None:
    path = plain(tmp_path / "net")
    say(path, markers=MARKERS, prompts={"document": "the "}, query_length=8, skip=["cat"], max_tokens=16)
    encoder = load(path)
    the, cat = VOCABULARY.index("the"), VOCABULARY.index("cat")
    assert encoder.tokenize(["sea cat."]) == [[CLS, DOCUMENT, ~the, SEA, ~cat, DOT, SEP]]
    assert encoder.tokenize(["sea"], "query") == [[CLS, QUERY, SEA, SEP, *[MASK + UNSEEN] * 4]]
    assert encoder.pieces(["sea"])[0].spans.tolist() == [[0, 0], [0, 0], [0, 3], [0, 0]]
    assert encoder.max_tokens == 16


def test_a_recipe_may_have_other_tokens_look_at_what_fills_a_question_up(tmp_path: Path) -> None:
    path = say(plain(tmp_path / "net"), query_length=8, fill="the", attend=True)
    assert load(path).tokenize(["sea"], "query") == [[CLS, SEA, SEP, *[VOCABULARY.index("the")] * 5]]


@pytest.mark.parametrize("folder", [plain, tiny_encoder])
def test_a_head_that_was_saved_drops_in(folder: Any, tmp_path: Path) -> None:
    path = folder(tmp_path / "net")
    without = load(path).encode(TEXTS)
    head = Head(HeadSpec(kind="glu", dim=DIM, inner=48, activation="silu", residual=True), HIDDEN)
    save_head(path, head)
    encoder = load(path)
    assert encoder.dim == DIM
    for states, rows in zip(without, encoder.encode(TEXTS), strict=True):
        assert rows.shape == (len(states), DIM)
    text = torch.tensor(encoder.tokenize(["sea"]))
    with torch.inference_mode():
        expected = head(AutoModel.from_pretrained(path)(input_ids=text).last_hidden_state[0]).numpy()
    np.testing.assert_allclose(encoder.encode(["sea"])[0], expected, atol=1e-5)


def test_a_converted_copy_gives_the_same_bits(tmp_path: Path) -> None:
    path = plain(tmp_path / "net")
    save_head(path, Head(HeadSpec(kind="deep", dim=DIM, inner=48, activation="identity"), HIDDEN))
    for net in (path, multi_vector(tmp_path / "colbert", **FILLED)):
        once = LateEncoder.load(str(net), dtype="bfloat16")
        cached = LateEncoder.load(str(net), dtype="bfloat16", cache=tmp_path / "cache")
        assert cached.fingerprint == once.fingerprint
        for one, other in zip(once.encode(TEXTS), cached.encode(TEXTS), strict=True):
            assert np.array_equal(one, other)


def with_base(tmp_path: Path, adapted: bool, **recipe: Any) -> tuple[Path, torch.nn.Module]:
    """A folder with a head for a dense encoder elsewhere, and that encoder's transformer as it should be."""
    net, own = tiny_encoder(tmp_path / "net", max_tokens=64), tmp_path / "own"
    own.mkdir()
    body = AutoModel.from_pretrained(net, dtype=torch.float32)
    body = trained(own / "lora", body) if adapted else body.eval()
    say(own, model="../net", **({"adapter": "lora"} if adapted else {}), **recipe)
    save_head(own, Head(HeadSpec(kind="deep", dim=DIM, inner=48, activation="relu", residual=True), HIDDEN))
    return own, body


@pytest.mark.parametrize("adapted", [False, True])
def test_a_folder_may_hold_only_what_was_trained(adapted: bool, tmp_path: Path) -> None:
    own, body = with_base(tmp_path, adapted)
    head, encoder = load_head(own), load(own)
    with torch.inference_mode():
        states = body(torch.tensor([[CLS, SEA, DOT, SEP]])).last_hidden_state[0]
    expected = head(states)[[0, 1, 3]].numpy()
    np.testing.assert_allclose(encoder.encode(["sea."])[0], expected, atol=1e-5)
    assert (encoder.name, encoder.dim, encoder.max_tokens) == (str(own), DIM, 64)
    bare = load(tmp_path / "net").encode(["sea."])[0]
    assert np.allclose(head(torch.from_numpy(bare)).numpy(), encoder.encode(["sea."])[0]) is not adapted


def test_an_adapter_is_merged_before_anything_is_rounded(tmp_path: Path) -> None:
    own, body = with_base(tmp_path, adapted=True)
    say(own, model="../net", adapter="lora")
    encoder = LateEncoder.load(str(own), dtype="bfloat16", cache=tmp_path / "cache")
    say(own, model="../merged")
    shutil.copytree(tmp_path / "net", tmp_path / "merged")
    save_file(body.state_dict(), tmp_path / "merged" / "model.safetensors", {"format": "pt"})
    merged = LateEncoder.load(str(own), dtype="bfloat16", cache=tmp_path / "cache")
    for one, other in zip(encoder.encode(TEXTS), merged.encode(TEXTS), strict=True):
        assert np.array_equal(one, other)


def test_one_forward_gives_vectors_of_texts_only_where_they_are_the_dense_encoders(tmp_path: Path) -> None:
    own, _ = with_base(tmp_path, adapted=False)
    encoder, dense = load(own), DenseEncoder.load(str(tmp_path / "net"), dtype="float32")
    assert encoder.pooled == dense.fingerprint
    made = encoder.vectors(encoder.tokenize(TEXTS, "query"), sentences=True)
    np.testing.assert_allclose([each.sentence for each in made], dense.encode(TEXTS, "query"), atol=1e-5)
    for recipe in (
        {"adapter": "lora"},
        {"query_length": 8},
        {"prompts": {"document": "the "}},
        {"markers": {"query": "the"}},
        {"max_tokens": 32},
    ):
        trained(own / "lora", AutoModel.from_pretrained(tmp_path / "net"))
        assert load(say(own, model="../net", **recipe)).pooled is None
    assert load(say(own, model="../net", skip=[], max_tokens=64)).pooled == dense.fingerprint


def test_an_adapter_for_another_net_is_refused(tmp_path: Path) -> None:
    own, _ = with_base(tmp_path, adapted=True)
    tiny_encoder(tmp_path / "net", dim=16)
    with pytest.raises(ValueError, match=r"lora changes encoder\.layer\.0\.attention\.self\.\w+ by a matrix"):
        load(own)


def test_the_fingerprint_covers_all_that_changes_vectors(tmp_path: Path) -> None:
    path = plain(tmp_path / "net")
    found = [load(path).fingerprint]
    for recipe in (
        {"skip": []},
        {"skip": ["cat"]},
        {"markers": {"document": MARKERS["document"]}},
        {"prompts": {"query": "is "}},
        {"query_length": 8},
        {"query_length": 8, "attend": True},
        {"query_length": 9},
    ):
        found.append(load(say(path, **recipe)).fingerprint)
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            save_head(path, Head(HeadSpec(kind="linear", dim=DIM), HIDDEN))
        found.append(load(path).fingerprint)
    assert len(set(found)) == len(found)


def test_stanfords_metadata_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    path = stanford(tmp_path / "net")
    first = load(path).fingerprint
    (path / "artifact.metadata").write_text(json.dumps({"query_maxlen": 16, "doc_maxlen": 20}))
    assert load(path).fingerprint != first


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"head": {"kind": "linear", "dim": DIM}}, "holds no weights of a linear head"),
        ({"markers": {"query": "[Q]"}}, r"has no '\[Q\]' in its vocabulary"),
        ({"skip": ["moonlight"]}, "has no 'moonlight' in its vocabulary"),
        ({"query_length": 8, "fill": "moonlight"}, "has no 'moonlight' in its vocabulary"),
        ({"query_length": 400}, "reads 256 tokens, and its questions are to have 400"),
    ],
)
def test_a_recipe_that_the_folder_cannot_keep_is_refused(
    recipe: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        load(say(plain(tmp_path / "net"), **recipe))


def test_a_head_for_other_states_is_refused(tmp_path: Path) -> None:
    path = plain(tmp_path / "net")
    save_head(path, Head(HeadSpec(kind="linear", dim=DIM), HIDDEN + 1))
    with pytest.raises(ValueError, match=f"states of {HIDDEN} numbers, and its head is for {HIDDEN + 1}"):
        load(path)


def test_other_nets_are_refused_by_name(tmp_path: Path) -> None:
    classifier = tiny_classifier(tmp_path / "classifier")
    with pytest.raises(ValueError, match="classifier is BertForSequenceClassification, not an encoder"):
        load(classifier)
    dense = tiny_encoder(tmp_path / "dense")
    (dense / "config_sentence_transformers.json").write_text(json.dumps({"model_type": "SparseEncoder"}))
    with pytest.raises(ValueError, match="dense is a SparseEncoder"):
        load(dense)
    unpooled = tiny_encoder(tmp_path / "unpooled")
    modules = json.loads((unpooled / "modules.json").read_text())
    (unpooled / "modules.json").write_text(json.dumps(modules[:1]))
    with pytest.raises(ValueError, match="unpooled is Transformer, which does not begin with"):
        load(unpooled)


def test_a_multi_vector_encoder_that_does_more_is_refused_by_name(tmp_path: Path) -> None:
    pooled = multi_vector(tmp_path / "pooled", more=(HierarchicalTokenPooling(pool_factor=2),))
    with pytest.raises(ValueError, match="MultiVectorMask, Normalize, HierarchicalTokenPooling, not"):
        load(pooled)
    images = multi_vector(tmp_path / "images", mask=MultiVectorMask(keep_only_token_ids=[5]))
    with pytest.raises(ValueError, match="as models of images do"):
        load(images)
    sentence = multi_vector(tmp_path / "sentence", more=(Normalize(),))
    with pytest.raises(ValueError, match="not Transformer, Dense, MultiVectorMask and Normalize"):
        load(sentence)
