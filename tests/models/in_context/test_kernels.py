import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.in_context.cache import KVCache
from models.in_context.kernels import compiled_signatures, decode, encode, warm
from models.in_context.states import States

FIRST = np.zeros(1, np.int64)
FORMATS = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])


def around(dim, centre=0):
    return np.full((1, 1, dim), centre, np.float32)


def encoded(vectors, dtype=torch.float32, centre=0):
    """Codes int8 [tokens, dim], float32 scales [tokens], and whether all was finite: one head, one page."""
    given = torch.tensor(np.array(vectors), dtype=dtype)
    bits = given.view(torch.uint16 if dtype == torch.bfloat16 else torch.uint32).numpy()
    codes = np.full((1, 1, 1, *given.shape), 99, np.int8)
    scales = np.full((1, 1, 1, len(given)), 99, np.uint16)
    fine = encode(
        bits[None, None],
        0,
        around(given.shape[1], centre),
        codes,
        scales,
        FIRST,
        FIRST,
        np.array([len(given)]),
    )
    return codes[0, 0, 0], (scales[0, 0, 0].astype(np.uint32) << 16).view(np.float32), fine


def decoded(codes, scales, dtype, centre=0):
    """A tensor [tokens, dim] of int8 codes and float32 scales that bfloat16 can hold."""
    out = torch.empty(codes.size, dtype=dtype)
    memory = out.view(torch.uint16).numpy() if dtype == torch.bfloat16 else out.numpy()
    bits = (scales.view(np.uint32) >> 16).astype(np.uint16)
    page = (codes[None, None, None], bits[None, None, None])
    decode(around(codes.shape[1], centre), *page, 0, FIRST, FIRST, np.array([len(codes)]), memory, codes.size)
    return out.reshape(codes.shape)


@FORMATS
def test_the_largest_component_is_127_steps(dtype):
    codes, scales, fine = encoded([[63.5, -32, 0.5, 0], [0, 0, 0, -254]], dtype)
    assert scales.tolist() == [0.5, 2]
    assert codes.tolist() == [[127, -64, 1, 0], [0, 0, 0, -127]]
    assert fine


@FORMATS
def test_what_is_coded_is_the_difference_from_the_centre(dtype):
    codes, scales, fine = encoded([[8, 8.5, 7, 39.75], [8, 8, 8, 8]], dtype, centre=8)
    assert scales.tolist() == [0.25, 0]
    assert codes.tolist() == [[0, 2, -4, 127], [0] * 4]
    assert fine
    assert decoded(codes, scales, dtype, centre=8).tolist() == [[8, 8.5, 7, 39.75], [8] * 4]


@FORMATS
def test_nothing_is_left_of_nothing(dtype):
    codes, scales, fine = encoded([[0, -0.0]], dtype)
    assert (codes.tolist(), scales.tolist(), fine) == ([[0, 0]], [0], True)


@FORMATS
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -np.nan])
def test_what_is_not_finite_is_found_wherever_it_is(dtype, bad):
    vectors = np.ones((3, 5), np.float32)
    vectors[1, 4] = bad
    codes, scales, fine = encoded(vectors, dtype)
    assert not fine
    assert codes[1].tolist() == [0] * 5
    assert scales[1] == 0
    assert codes[[0, 2]].min() > 120  # the others are as they were


# The smallest subnormals have no step: a 127th of them is 0.
WIDE = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)


@FORMATS
@settings(max_examples=100, deadline=None)
@given(vector=st.lists(WIDE, min_size=1, max_size=40))
def test_no_component_moves_by_more_than_half_a_step(dtype, vector):
    vector = torch.tensor([vector]).clamp(-3e38, 3e38).to(dtype)
    codes, scales, fine = encoded(vector.float().numpy(), dtype)
    exact, step = vector.double().numpy(), float(scales[0])
    assert fine
    assert np.abs(codes.astype(int)).max() <= 127
    assert np.abs(codes * step - exact).max() <= step * 0.500001
    # a bfloat16 above 1/127 of the largest, and no larger than it has to be
    largest = np.abs(exact).max()
    assert largest / 127 * 0.999999 <= step <= largest / 127 * (1 + 2**-7) + 1e-40


def test_bfloat16_is_rounded_as_torch_rounds_it():
    # all codes, with scales that have all 8 bits: products have up to 15, and some lie halfway
    scales = (np.arange(0x3F80, 0x4000, dtype=np.uint32) << 16).view(np.float32)
    codes = np.broadcast_to(np.arange(-127, 128).astype(np.int8), (len(scales), 255)).copy()
    exact = torch.from_numpy(codes * scales[:, None])
    assert torch.equal(decoded(codes, scales, torch.float32), exact)
    assert torch.equal(decoded(codes, scales, torch.bfloat16), exact.to(torch.bfloat16))
    halves = exact.view(torch.int32) & 0xFFFF == 0x8000
    assert halves.sum() > 1000


@FORMATS
def test_nothing_is_compiled_after_warming(dtype):
    warm()
    before = compiled_signatures()
    cache, some = KVCache(2, 2, 4, dtype, 1 << 20), torch.ones(3, 2, 20, 4, dtype=dtype)
    entry = cache.put(b"a", States(some, some[:2]))
    larger = torch.empty(2, 50, 4, dtype=dtype)
    cache.documents([entry]).fill(0, larger[:, 3:23], torch.empty(2, 20, 4, dtype=dtype))
    assert compiled_signatures() == before
