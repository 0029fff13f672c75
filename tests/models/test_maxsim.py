import numpy as np
import pytest

from models import maxsim
from models.maxsim import best_matches, products, reference_products


def codes(rows, dim, seed=0):
    return np.random.default_rng(seed).integers(-127, 128, (rows, dim)).astype(np.int8)


@pytest.fixture(params=["chosen", "floats"])
def way(request, monkeypatch):
    """The way to multiply that this machine chooses, and the one that every machine has."""
    if request.param == "floats":
        monkeypatch.setattr(maxsim, "int8_is_exact", lambda: False)
    return request.param


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dim", [1, 2, 7, 96, 384, 1040, 1041, 3000])
def test_products_are_exact_for_the_largest_codes(dim):
    for sign in (1, -1):
        extreme, asked = np.full((5, dim), sign * 127, np.int8), np.full((3, dim), 127, np.int8)
        asked[1, 0] = -126  # an odd difference: an even last bit alone would be no proof
        found = products(extreme, asked)
        assert found.dtype == np.int32
        assert found.tolist() == reference_products(extreme, asked).tolist()
    assert products(extreme, asked)[0, 0] == -(127**2) * dim


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("rows", "asked"), [(0, 3), (1, 1), (17, 16), (4099, 33)])
def test_products_of_any_number_of_vectors(rows, asked):
    ours, theirs = codes(rows, 32), codes(asked, 32, 1)
    assert np.array_equal(products(ours, theirs), reference_products(ours, theirs))


def test_the_best_match_of_every_row_and_question_vector():
    # rows of two, none and one vector; the scale decides between the first two
    ours = np.array([[10, 0], [4, 4], [-3, 0]], np.int8)
    scales, offsets = np.array([0.5, 2, 1], np.float32), np.array([0, 2, 2, 3])
    asked = np.array([[1, 0], [0, 1]], np.int8)
    found = best_matches(ours, scales, offsets, asked, "cpu")
    assert found.dtype == np.float32
    assert found.tolist() == [[8, 8], [-np.inf, -np.inf], [-3, 0]]


def test_no_rows_have_no_matches():
    nothing = (codes(0, 4), np.empty(0, np.float32), np.zeros(1, np.int64))
    assert best_matches(*nothing, codes(2, 4), "cpu").shape == (0, 2)
