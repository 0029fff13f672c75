import gzip

import pytest
import torch

from models.training.groups import Group, held_out, read_groups, sample, split, write_groups
from tests.models.training.toys import toy_groups

TIDES = Group("tides", (("Sea", "tides rise"), ("", "cats")), (True, False), {"bm25": (2.5, 0.0)}, "toys")


@pytest.mark.parametrize("name", ["groups.jsonl", "groups.jsonl.gz"])
def test_groups_are_read_as_they_were_written(tmp_path, name):
    assert write_groups(tmp_path / name, [TIDES, *toy_groups(1)]) == 9
    assert read_groups(tmp_path / name) == [TIDES, *toy_groups(1)]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    if name.endswith(".gz"):
        assert gzip.decompress((tmp_path / name).read_bytes()).startswith(b'{"query": "tides"')


def test_a_line_that_is_no_group_is_named(tmp_path):
    file = tmp_path / "groups.jsonl"
    write_groups(file, [TIDES])
    file.write_text(file.read_text() + '{"query": "cats"}\n')
    with pytest.raises(ValueError, match=r"groups\.jsonl, line 2, is no group of documents: 'documents'"):
        read_groups(file)


def test_every_document_needs_a_score_of_every_teacher():
    with pytest.raises(ValueError, match=r"have \[1, 2\] entries"):
        Group("tides", (("", "a"), ("", "b")), (True, False), {"dense": (0.5,)}, "toys")
    with pytest.raises(ValueError, match="entries"):
        Group("tides", (), (), {}, "toys")


def test_documents_read_as_encoders_read_them():
    assert TIDES.texts == ["Sea tides rise", "cats"]
    assert TIDES.take([1]) == Group("tides", (("", "cats"),), (False,), {"bm25": (0.0,)}, "toys")


def test_a_question_is_held_out_wherever_it_is_asked():
    groups = [Group(f"question {n % 500}", (("", "a"),), (True,), {}, "toys") for n in range(1000)]
    training, validation = split(groups, 0.2, seed=3)
    assert len(training) + len(validation) == 1000
    assert not {group.query for group in training} & {group.query for group in validation}
    assert 140 <= len(validation) <= 260
    assert all(held_out(group.query, 0.2, 3) for group in validation)
    assert split(groups, 0.0, seed=3)[1] == []
    assert split(groups, 0.2, seed=4)[1] != validation


def test_a_sample_has_a_relevant_document_and_some_of_the_others():
    group = toy_groups(1)[0]
    for seed in range(10):
        drawn = sample(group, 2, torch.Generator().manual_seed(seed))
        assert drawn.relevant == (True, False)
        assert drawn.documents[0] == group.documents[1]
    unjudged = Group("tides", group.documents, (False,) * 3, group.scores, "toys")
    assert len(sample(unjudged, 2, torch.Generator()).documents) == 2
    assert len(sample(unjudged, 9, torch.Generator()).documents) == 3
