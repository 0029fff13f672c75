import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.in_context import arena
from models.in_context.arena import PAGE
from models.in_context.cache import Entry, KVCache, document_key
from models.in_context.net import InContextNet
from models.in_context.states import Joined, States
from tests.nets import tiny_causal

LAYERS, HEADS, DIM = 2, 2, 4
PAGE_BYTES = 5 * HEADS * PAGE * (DIM + 2)  # 3 planes of keys and 2 of values; 2 bytes are the scale


@pytest.fixture(autouse=True)
def small_slabs(monkeypatch):
    """Memory that grows by three pages: documents of some length lie in several slabs."""
    monkeypatch.setattr(arena, "SLAB_BYTES", 3 * PAGE_BYTES)


def cache(pages=100, dtype=torch.float32):
    return KVCache(LAYERS, HEADS, DIM, dtype, pages * PAGE_BYTES)


def noise(tokens, seed=0, dtype=torch.float32):
    source = torch.Generator().manual_seed(seed)
    keys = torch.randn(LAYERS + 1, HEADS, tokens, DIM, generator=source)
    return States(keys.to(dtype), torch.randn(LAYERS, HEADS, tokens, DIM, generator=source).to(dtype))


def whole(tokens, seed=0, dtype=torch.float32):
    """States that 8 bits hold exactly: whole numbers of a step, the largest 127."""
    source = torch.Generator().manual_seed(seed)

    def some(layers):
        codes = torch.randint(-127, 128, (layers, HEADS, tokens, DIM), generator=source)
        codes[..., 0] = 127
        step = torch.tensor([0.25, 1, 8])[torch.randint(3, (layers, HEADS, tokens, 1), generator=source)]
        return (codes * step).to(dtype)

    return States(some(LAYERS + 1), some(LAYERS))


def read(source, dtype=torch.float32):
    """All that a source gives, as States of its documents behind one another."""
    total = sum(source.lengths)
    keys = torch.full((LAYERS + 1, HEADS, total, DIM), torch.nan, dtype=dtype)
    values = torch.full((LAYERS, HEADS, total, DIM), torch.nan, dtype=dtype)
    for layer in range(LAYERS):
        source.fill(layer, keys[layer], values[layer])
    source.fill(LAYERS, keys[LAYERS], None)
    return States(keys, values)


def same(one, other):
    return torch.equal(one.keys, other.keys) and torch.equal(one.values, other.values)


def error(states, found):
    """The mean error of keys and of values."""
    return [
        float((a - b).abs().mean()) for a, b in ((states.keys, found.keys), (states.values, found.values))
    ]


def kept(cache):
    """Which of the keys a, b, … are there; as nobody used them."""
    return "".join(key for key in "abcdefgh" if cache._entries.get(key.encode()) is not None)


def put(cache, key, tokens=PAGE):
    """Put and let go."""
    with cache.lease() as lease:
        return lease.put(key.encode(), whole(tokens, ord(key)))


BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])


@BOTH
@pytest.mark.parametrize("tokens", [1, PAGE - 1, PAGE, PAGE + 1, 7 * PAGE + 3])
def test_whole_numbers_of_steps_come_back_exactly(dtype, tokens):
    held, states = cache(dtype=dtype), whole(tokens, dtype=dtype)
    source = held.documents([held.put(b"a", states)])
    assert source.lengths == [tokens]
    assert same(read(source, dtype), states)


@BOTH
def test_other_numbers_come_back_within_half_a_step(dtype):
    held, states = cache(dtype=dtype), noise(40, dtype=dtype)
    found = read(held.documents([held.put(b"a", states)]), dtype)
    # half of a step that is rounded up by less than 1/128, and bfloat16's own rounding
    share = (1 + 2**-7) / 254 + (2**-8 if dtype == torch.bfloat16 else 0)
    for ours, exact in ((found.keys, states.keys), (found.values, states.values)):
        bound = share * exact.float().abs().amax(-1, keepdim=True)
        assert ((ours.float() - exact.float()).abs() <= bound).all()
        assert not torch.equal(ours, exact)


def test_what_all_tokens_have_in_common_takes_no_bits():
    common, states, typical = noise(1, 2), noise(40), noise(30, 1)
    for some in (states, typical):
        some.keys.add_(30 * common.keys)
        some.values.add_(10 * common.values)
    typical.keys[:, :, 0] = 1000  # a first token like no other
    plain, better = cache(), KVCache(LAYERS, HEADS, DIM, torch.float32, 1 << 20, typical)
    without = error(states, read(plain.documents([plain.put(b"a", states)])))
    found = error(states, read(better.documents([better.put(b"a", states)])))
    assert found[0] < without[0] / 5
    assert found[1] < without[1] / 2


def test_kept_documents_and_others_in_the_order_given():
    held, states = cache(), [whole(tokens, seed) for seed, tokens in enumerate((20, 3, PAGE, 50))]
    first, third = held.put(b"0", states[0]), held.put(b"2", states[2])
    source = held.documents([third, states[1], first, states[3], third])
    joined = Joined([states[number] for number in (2, 1, 0, 3, 2)])
    assert source.lengths == joined.lengths
    assert same(read(source), read(joined))
    some = source.take([3, 0, 2])
    assert some.lengths == [50, PAGE, 20]
    assert same(read(some), read(joined.take([3, 0, 2])))
    assert source.take([]).lengths == []
    assert same(read(source.take([1])), states[1])


@BOTH
def test_only_its_part_of_a_larger_buffer_is_written(dtype):
    held, states = cache(dtype=dtype), whole(20, dtype=dtype)
    keys, values = (
        torch.full((HEADS, 33, DIM), 7.0, dtype=dtype),
        torch.full((HEADS, 20, DIM), 7.0, dtype=dtype),
    )
    held.documents([held.put(b"a", states)]).fill(1, keys[:, 5:25], values)
    assert torch.equal(keys[:, 5:25], states.keys[1])
    assert torch.equal(values, states.values[1])
    assert (keys[:, :5] == 7).all()
    assert (keys[:, 25:] == 7).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_number_formats_and_layouts_are_filled_too(dtype):
    held, states = cache(dtype=dtype), whole(20, dtype=dtype)
    source = held.documents([held.put(b"a", states), whole(3, 1, dtype)])
    joined = read(Joined([states, whole(3, 1, dtype)]), dtype)
    assert same(read(source, dtype), joined)
    across = torch.full((DIM, 23, HEADS), torch.nan).permute(2, 1, 0)
    source.fill(0, across, None)
    assert torch.equal(across, joined.keys[0].float())


def test_states_may_be_views_of_larger_ones():
    held, large = cache(), whole(60)
    part = States(large.keys[:, :, 7:31], large.values[:, :, 7:31])
    assert same(read(held.documents([held.put(b"a", part)])), part)


def test_what_was_used_least_recently_goes_first():
    held = cache(pages=3)
    for key in "abc":
        put(held, key)
    held.release(held.find([b"a"]))
    assert kept(held) == "abc"
    put(held, "d")
    assert kept(held) == "acd"
    put(held, "a")  # there already
    put(held, "e", 2 * PAGE)
    assert kept(held) == "ae"
    assert held.stats().evictions == 3


def test_short_documents_make_room_for_a_long_one_wherever_they_lie():
    held = cache(pages=7)
    for key in "abcdefg":
        put(held, key)
    pinned = held.find([b"b", b"d"])
    long = held.put(b"h", whole(5 * PAGE, 1))
    assert kept(held) == "bdh"
    source = held.documents([pinned[0], long, pinned[1]])
    joined = Joined([whole(PAGE, ord("b")), whole(5 * PAGE, 1), whole(PAGE, ord("d"))])
    assert same(read(source), read(joined))


def test_documents_in_use_stay():
    held = cache(pages=2)
    with held.lease() as lease:
        first = lease.put(b"a", whole(PAGE))
        assert isinstance(first, Entry)
        put(held, "b")
        put(held, "c")
        assert kept(held) == "ac"
        refused = whole(2 * PAGE)
        assert lease.put(b"d", refused) is refused  # and c did not go in vain
        assert kept(held) == "ac"
        assert held.stats().declined == 1
    put(held, "d", 2 * PAGE)
    assert kept(held) == "d"


def test_a_document_larger_than_the_budget_is_read_but_not_kept():
    held, states = cache(pages=2), whole(2 * PAGE + 1)
    assert held.put(b"a", states) is states
    assert same(read(held.documents([states])), states)
    stats = held.stats()
    assert (stats.documents, stats.bytes, stats.declined) == (0, 0, 1)
    assert isinstance(held.put(b"b", whole(2 * PAGE)), Entry)


def test_a_budget_of_nothing_keeps_nothing():
    held, states = cache(pages=0), whole(1)
    assert held.put(b"a", states) is states
    assert held.find([b"a"]) == [None]


def test_a_lease_releases_also_where_its_context_fails():
    held = cache(pages=1)
    put(held, "a")

    def fail():
        with held.lease() as lease:
            lease.find([b"a", b"c", b"a"])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    put(held, "b")
    assert kept(held) == "b"


def test_what_a_net_reads_stays_as_long_as_it_may_read():
    held = cache(pages=1)
    with held.lease() as lease:
        source = held.documents([lease.put(b"a", whole(PAGE))])
    part = source.take([0])
    del source
    put(held, "b")
    assert kept(held) == "a"
    assert same(read(part), whole(PAGE))
    del part
    put(held, "b")
    assert kept(held) == "b"


def test_a_document_that_was_released_and_evicted_is_not_read():
    held = cache(pages=1)
    gone = put(held, "a")
    put(held, "b")
    with pytest.raises(ValueError, match="released before it was read"):
        held.documents([gone])


def test_a_document_is_not_released_more_often_than_it_was_found():
    held = cache()
    entry = put(held, "a")
    with pytest.raises(ValueError, match="more often"):
        held.release([entry])


def test_a_key_that_is_there_is_not_written_again():
    held = cache()
    first = held.put(b"a", whole(5))
    assert held.put(b"a", whole(5)) is first
    assert first.pins == 2
    assert held.stats().documents == 1


def test_of_two_who_put_the_same_document_one_is_kept(monkeypatch):
    held, states = cache(), whole(5)
    write, inner = held._arena.write, []

    def meanwhile(*given):
        if not inner:
            inner.append(None)
            inner[0] = held.put(b"a", states)
        return write(*given)

    monkeypatch.setattr(held._arena, "write", meanwhile)
    assert held.put(b"a", states) is inner[0]
    assert inner[0].pins == 2
    assert (held.stats().documents, held.stats().filled_bytes) == (1, PAGE_BYTES)
    assert same(read(held.documents([inner[0]])), states)


def test_what_is_not_finite_is_refused_and_takes_no_room():
    held, states = cache(pages=2), whole(2 * PAGE)
    states.values[1, 1, -1, 3] = torch.nan
    with pytest.raises(ValueError, match="not all finite"):
        held.put(b"a", states)
    assert held.stats().filled_bytes == 0
    assert isinstance(held.put(b"a", whole(2 * PAGE)), Entry)


@pytest.mark.parametrize(
    ("states", "what"),
    [
        (whole(0), "without tokens"),
        (whole(5, dtype=torch.bfloat16), "torch.bfloat16 and torch.bfloat16 where torch.float32 is kept"),
        (States(whole(5).values, whole(5).values), "where keys"),
        (States(whole(5).keys, whole(4).values), "where keys"),
        (States(whole(5).keys[..., :2], whole(5).values[..., :2]), "where keys"),
    ],
)
def test_states_of_other_nets_are_refused_by_what_they_are(states, what):
    with pytest.raises(ValueError, match=what):
        cache().put(b"a", states)


@pytest.mark.parametrize(
    ("layer", "shape", "values"),
    [
        (0, (HEADS, 4, DIM), True),
        (0, (1, 5, DIM), False),
        (-1, (HEADS, 5, DIM), False),
        (LAYERS, (HEADS, 5, DIM), True),
        (LAYERS + 1, (HEADS, 5, DIM), False),
    ],
)
def test_only_what_is_kept_is_filled(layer, shape, values):
    held = cache()
    source = held.documents([held.put(b"a", whole(5))])
    with pytest.raises(ValueError, match=r"documents fill \(2, 5, 4\)|layers 0 to 2"):
        source.fill(layer, torch.empty(shape), torch.empty(shape) if values else None)


def test_memory_is_taken_when_it_is_needed_and_told():
    held = cache(pages=7)
    assert held.stats().bytes == 0
    put(held, "a", PAGE + 1)
    stats = held.stats()
    assert (stats.bytes, stats.filled_bytes) == (3 * PAGE_BYTES, 2 * PAGE_BYTES)
    assert stats.budget_bytes == 7 * PAGE_BYTES
    put(held, "b", 5 * PAGE)
    stats = held.stats()
    assert (stats.bytes, stats.filled_bytes, stats.documents) == (7 * PAGE_BYTES, 7 * PAGE_BYTES, 2)
    put(held, "c", PAGE)
    stats = held.stats()
    assert (stats.bytes, stats.filled_bytes, stats.documents) == (7 * PAGE_BYTES, 6 * PAGE_BYTES, 2)


def test_hits_and_misses_are_counted():
    held = cache()
    put(held, "a")
    found = held.find([b"a", b"b", b"a"])
    assert [each is not None for each in found] == [True, False, True]
    assert (held.stats().hits, held.stats().misses) == (2, 1)


def test_a_key_stands_for_a_net_and_its_tokens():
    key = document_key("net", [1, 2, 300])
    assert len(key) == 16
    assert key == document_key("net", np.array([1, 2, 300], np.int32))
    others = [("nets", [1, 2, 300]), ("net", [1, 2]), ("net", [1, 2, 3]), ("net", [2, 1, 300]), ("", [])]
    assert len({key, *(document_key(*each) for each in others)}) == 6


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 7)),
        st.tuples(st.just("find"), st.integers(0, 7)),
        st.tuples(st.just("release"), st.integers(0, 7)),
        st.tuples(st.just("hold"), st.integers(0, 7)),
        st.tuples(st.just("drop"), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(OPERATIONS, st.integers(0, 9))
def test_whatever_happens_the_budget_holds_and_documents_are_their_own(operations, pages):
    held, documents = cache(pages), [whole(1 + 9 * number, number) for number in range(8)]
    pinned, sources = [], []
    for what, number in operations:
        key = bytes([number])
        if what == "put":
            found = held.put(key, documents[number])
            pinned += [(number, found)] if isinstance(found, Entry) else []
        elif what == "find":
            pinned += [(number, found) for found in held.find([key]) if found is not None]
        elif what == "release" and pinned:
            held.release([pinned.pop(number % len(pinned))[1]])
        elif what == "hold" and pinned:
            some = pinned[-1 - number % len(pinned) :]
            sources.append(([who for who, _ in some], held.documents([entry for _, entry in some])))
        elif what == "drop" and sources:
            sources.pop()
        stats = held.stats()
        assert stats.filled_bytes <= stats.bytes <= stats.budget_bytes
        wanted = [read(Joined([documents[who] for who in numbers])) for numbers, _ in sources]
        assert all(same(read(source), states) for (_, source), states in zip(sources, wanted, strict=True))
    # whoever is in use has pages of his own, and every page is somebody's or free
    owned = [page for entry in held._entries.values() for page in entry.pages.tolist()]
    free = held._arena._free
    assert len(set(owned) | set(free)) == len(owned) + len(free) == held.stats().bytes // PAGE_BYTES
    held.release([entry for _, entry in pinned])
    sources.clear()
    assert held.stats().filled_bytes == PAGE_BYTES * len(owned)
    if pages:
        assert isinstance(held.put(b"all", whole(pages * PAGE)), Entry)  # nothing stayed pinned


@pytest.fixture
def restless():
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_threads_read_what_they_asked_for():
    held, documents = cache(pages=12), [whole(5 + 7 * number, number) for number in range(10)]
    begin = threading.Barrier(4)

    def work(seed):
        random = np.random.default_rng(seed)
        begin.wait()
        for _ in range(60):
            numbers = random.integers(0, 10, 3).tolist()
            keys = [bytes([number]) for number in numbers]
            with held.lease() as lease:
                found = lease.find(keys)
                parts = [
                    entry if entry is not None else lease.put(key, documents[number])
                    for key, entry, number in zip(keys, found, numbers, strict=True)
                ]
                source = held.documents(parts)
            if not same(read(source), read(Joined([documents[number] for number in numbers]))):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [True] * 4
    stats = held.stats()
    assert stats.hits + stats.misses == 4 * 60 * 3
    assert min(stats.hits, stats.evictions) > 0
    assert stats.bytes <= stats.budget_bytes
    assert isinstance(held.put(b"all", whole(12 * PAGE)), Entry)


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    return InContextNet.load(str(tiny_causal(tmp_path_factory.mktemp("net"))), device="cpu", dtype="float32")


def test_a_net_ranks_kept_documents_as_those_it_has_just_read(net):
    texts = ["the cat and the sea", "a moon", "water is water " * 9, "the tide of the moon in the sea"]
    ids = [cut.ids for cut in net.document_tokens([("", text) for text in texts])]
    states, question = net.read_documents(ids), net.question("the tide and the moon", "cached")
    typical = net.read_documents([list(range(40, 60))])[0]
    held = KVCache(net.layer, net.kv_heads, net.head_dim, net.dtype, 1 << 20, typical)
    with held.lease() as lease:
        kept = [
            lease.put(document_key(net.fingerprint, some), each)
            for some, each in zip(ids, states, strict=True)
        ]
        source, mixed = held.documents(kept), held.documents([kept[0], states[1], kept[2], states[3]])
    (fresh,) = net.ask([question], [Joined(states)])
    for each in net.ask([question, question], [source, mixed]):
        assert each.scores == pytest.approx(fresh.scores, rel=0.1)
        assert [len(tokens) for tokens in each.tokens] == [len(some) for some in ids]
    # a document's score goes with it, and they differ by more
    (other,) = net.ask([question], [source.take([3, 2, 1, 0])])
    assert other.scores == pytest.approx(fresh.scores[::-1], rel=0.1)
    assert other.scores != pytest.approx(fresh.scores, rel=0.3)
