import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from models.idf import idf_query, own_idf, read_idf

IDS = {"the": 0, "cat": 1, "##s": 2, "dog": 3}
IDF = np.array([0.2, 4.0, -1.0, 0.0], np.float32)


def written(path: Path, value: object) -> Path:
    text = json.dumps(value).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def test_the_the_cat_weighs_each_piece_once() -> None:
    question = idf_query(np.array([0, 0, 1], np.int32), IDF)
    assert question.offsets.tolist() == [0, 2]
    assert dict(zip(question.terms.tolist(), question.weights.tolist(), strict=True)) == {
        0: pytest.approx(0.2),
        1: 4.0,
    }


def test_a_piece_without_weight_asks_for_nothing() -> None:
    assert len(idf_query(np.array([2, 3], np.int32), IDF).terms) == 0
    assert len(idf_query(np.empty(0, np.int32), IDF)) == 1


@given(st.lists(st.integers(0, 3)))
def test_order_and_repetition_do_not_matter(pieces: list[int]) -> None:
    found = idf_query(np.array(pieces, np.int32), IDF)
    again = idf_query(np.array(sorted(set(pieces)), np.int32), IDF)
    assert found.terms.tolist() == again.terms.tolist() == [piece for piece in (0, 1) if piece in pieces]
    assert np.array_equal(found.weights, again.weights)


@pytest.mark.parametrize("name", ["idf.json", "idf.json.gz"])
def test_a_table_is_read_with_one_for_what_it_lacks_and_zero_for_what_is_below(
    name: str, tmp_path: Path
) -> None:
    path = written(tmp_path / name, {"cat": 4, "##s": -2.5, "the": 0.2})
    weights = read_idf(path, IDS, 6)
    assert weights.dtype == np.float32
    assert weights.tolist() == [pytest.approx(0.2), 4.0, 0.0, 1.0, 1.0, 1.0]


def test_a_table_of_another_tokeniser_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "idf.json", {"cat": 1.0, "▁cat": 2.0, "▁dog": 2.0})
    with pytest.raises(ValueError, match=r"weighs '▁cat' \(2 such\).* belongs to another tokeniser"):
        read_idf(path, IDS, 4)


@pytest.mark.parametrize(
    "table", [[1.0], {}, {"cat": "heavy"}, {"cat": True}, {"cat": math.nan}, {"cat": None}]
)
def test_what_is_no_table_is_refused(table: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no JSON object of word pieces and finite weights"):
        read_idf(written(tmp_path / "idf.json", table), IDS, 4)


@pytest.mark.parametrize(
    ("name", "stored"), [("idf.json", b"{"), ("idf.json", b"\xff"), ("idf.json.gz", b"{}")]
)
def test_a_file_that_cannot_be_read_says_why(name: str, stored: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(stored)
    with pytest.raises(ValueError, match=f"{name} is no JSON object"):
        read_idf(tmp_path / name, IDS, 4)


def test_a_folder_may_hold_a_table_or_not(tmp_path: Path) -> None:
    assert own_idf(tmp_path, IDS, 4) is None
    save_file({"idf": np.array([0.5, -1.0, 0.0, 3.0], np.float32)}, tmp_path / "idf.safetensors")
    table = own_idf(tmp_path, IDS, 4)
    assert table is not None
    assert (table.dtype, table.tolist()) == (np.float32, [0.5, 0.0, 0.0, 3.0])
    written(tmp_path / "idf.json", {"cat": 2.0})
    with pytest.raises(ValueError, match=r"has idf\.safetensors and idf\.json"):
        own_idf(tmp_path, IDS, 4)
    (tmp_path / "idf.safetensors").unlink()
    table = own_idf(tmp_path, IDS, 4)
    assert table is not None
    assert table.tolist() == [1.0, 2.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "tensors",
    [
        {"idf": np.ones(5, np.float32)},
        {"idf": np.ones(4, np.float64)},
        {"weight": np.ones(4, np.float32)},
        {"idf": np.ones(4, np.float32), "more": np.ones(4, np.float32)},
        {"idf": np.array([1, 1, np.nan, 1], np.float32)},
    ],
)
def test_tensors_of_another_form_are_refused(tensors: dict[str, np.ndarray], tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "idf.safetensors")
    with pytest.raises(ValueError, match=r"should hold finite numbers as \{'idf': \('float32', 4\)\}"):
        own_idf(tmp_path, IDS, 4)
