from pathlib import Path

import pytest

from models.cross_recipe import FILE, Recipe, read_recipe, told


def test_a_folder_that_says_nothing_is_read_by_its_best_passage(tmp_path: Path):
    assert read_recipe(tmp_path, 512) == Recipe(window=200, overlap=20, passages=4, weights=(1.0,))
    assert read_recipe(tmp_path, 512).longest == 240, "passages as they are indexed are read whole"


def test_a_net_that_reads_little_is_given_shorter_windows(tmp_path: Path):
    assert read_recipe(tmp_path, 128) == Recipe(window=64, overlap=6, passages=4, weights=(1.0,))


def test_what_the_file_leaves_out_is_as_in_the_paper(tmp_path: Path):
    (tmp_path / FILE).write_text('{"passages": 3}')
    assert read_recipe(tmp_path, 512) == Recipe(window=50, overlap=7, passages=3, weights=(1.0, 1.0, 1.0))


def test_a_file_that_names_a_net_and_says_nothing_of_windows_changes_none(tmp_path: Path):
    (tmp_path / FILE).write_text('{"model": "../net", "adapter": "lora"}')
    assert told(tmp_path) == Recipe(model="../net", adapter="lora")
    single = {"window": 200, "overlap": 20, "passages": 4, "weights": (1.0,)}
    assert read_recipe(tmp_path, 512) == Recipe(model="../net", adapter="lora", **single)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"windows": 50}', "windows"),
        ('{"window": 0}', "window"),
        ('{"weights": []}', "weights"),
        ('{"weights": [1, 1, 1], "passages": 2}', "3 weights for the scores of 2 passages"),
        ('{"overlap": -1}', "overlap"),
        ('{"model": ""}', "model"),
        ("[]", FILE),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path: Path, text: str, named: str):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ValueError, match=named):
        read_recipe(tmp_path, 512)


def test_a_window_must_leave_room_for_a_question(tmp_path: Path):
    (tmp_path / FILE).write_text('{"window": 50, "overlap": 7}')
    assert read_recipe(tmp_path, 65).longest == 64
    with pytest.raises(ValueError, match="64 tokens, and the net reads 64"):
        read_recipe(tmp_path, 64)
