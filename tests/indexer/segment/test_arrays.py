import numpy as np
import pytest

from indexer.segment.arrays import CorruptFile, create_arrays, open_arrays, write_arrays


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "some.bin"
    write_arrays(
        path,
        {
            "numbers": np.arange(5, dtype=np.uint16),
            "none": np.empty((0, 3), np.float32),
            "flags": np.array([[True, False]]),
        },
    )
    return path


def test_arrays_come_back_with_shape_and_type(path):
    arrays = open_arrays(path)
    assert arrays["numbers"].tolist() == [0, 1, 2, 3, 4]
    assert arrays["numbers"].dtype == np.uint16
    assert arrays["none"].shape == (0, 3)
    assert arrays["flags"].tolist() == [[True, False]]


def test_each_array_starts_on_a_cache_line(path):
    assert [array.ctypes.data % 64 for array in open_arrays(path).values()] == [0, 0, 0]


def test_writing_to_a_mapped_array_changes_no_file(path):
    open_arrays(path)["numbers"][0] = 9
    assert open_arrays(path)["numbers"][0] == 0


def test_order_in_memory_does_not_matter(tmp_path):
    write_arrays(tmp_path / "t", {"a": np.arange(6).reshape(2, 3).T})
    assert open_arrays(tmp_path / "t")["a"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_objects_are_refused(tmp_path):
    with pytest.raises(TypeError, match="only numbers"):
        write_arrays(tmp_path / "o", {"a": np.array(["text"])})


def test_a_torn_file_is_found_wherever_it_ends(path):
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptFile, match=r"some\.bin"):
            open_arrays(path)


def test_a_longer_file_is_found(path):
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CorruptFile, match="bytes long where the table of contents says"):
        open_arrays(path)


@pytest.mark.parametrize(
    ("place", "what"),
    [
        (0, "header"),
        (8, "format version"),
        (12, "checksum"),
        (40, "checksum"),
        (-1, "footer"),
        (-9, "footer"),
    ],
)
def test_a_flipped_byte_in_header_table_or_footer_is_found(path, place, what):
    raw = bytearray(path.read_bytes())
    raw[place] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(CorruptFile, match=what):
        open_arrays(path)


def test_a_file_made_to_be_filled_is_like_one_written_at_once(tmp_path):
    rows, codes = np.arange(5, dtype=np.int64), np.array([[1, 2], [3, 4]], np.uint16)
    write_arrays(tmp_path / "written", {"rows": rows, "codes": codes})
    arrays = create_arrays(tmp_path / "filled", {"rows": (np.int64, (5,)), "codes": (np.uint16, (2, 2))})
    assert not arrays["codes"].any()
    arrays["rows"][:], arrays["codes"][:] = rows, codes
    assert (tmp_path / "filled").read_bytes() == (tmp_path / "written").read_bytes()


def test_a_file_for_which_there_is_no_room_is_an_error_before_it_is_filled(tmp_path):
    with pytest.raises(OSError, match=r"large|space"):
        create_arrays(tmp_path / "huge", {"rows": (np.uint8, (1 << 60,))})
