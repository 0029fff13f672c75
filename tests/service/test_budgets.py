from collections.abc import Sequence

import pytest

from service.budgets import LENGTH, LONGEST, RUNS, Run, choose, climb, measured
from tests.nets import WordOverlapEncoder


def test_the_smallest_size_that_is_about_as_fast_as_the_best_is_chosen() -> None:
    assert choose({512: 90.0, 1024: 96.0, 2048: 100.0, 4096: 80.0}) == 1024
    assert choose({512: 100.0}) == 512


class Device:
    """Takes so many seconds for a forward and so many more for a token of it, and remembers what it ran."""

    def __init__(self, forward: float, token: float, memory: int = 100_000) -> None:
        self.forward, self.token, self.memory = forward, token, memory
        self.ran: list[int] = []

    def run(self, tokens: int) -> Run:
        self.ran.append(tokens)
        if tokens > self.memory:
            raise MemoryError
        return Run(tokens, self.forward + tokens * self.token)


SIZES = (512, 1024, 2048, 4096, 8192)


def test_the_climb_goes_on_while_larger_batches_are_faster() -> None:
    device = Device(forward=1e-2, token=1e-6)
    speeds = climb(device.run, SIZES)
    assert list(speeds) == list(SIZES)
    assert choose(speeds) == 8192
    assert device.ran == [size for size in SIZES for _ in range(RUNS)]


def test_the_climb_ends_after_two_that_are_hardly_better() -> None:
    speeds = climb(Device(forward=0, token=1e-6).run, SIZES)
    assert list(speeds) == [512, 1024, 2048]
    assert choose(speeds) == 512


def test_the_climb_ends_before_it_takes_too_long() -> None:
    slow = Device(forward=0.1, token=1e-4)
    speeds = climb(slow.run, SIZES)
    assert list(speeds) == [512, 1024]
    assert sum(0.1 + 1e-4 * size for size in slow.ran) < LONGEST
    assert list(climb(Device(forward=0, token=1.0).run, SIZES)) == [512]


def test_the_climb_ends_where_memory_does() -> None:
    assert list(climb(Device(1e-2, 1e-6, memory=2048).run, SIZES)) == [512, 1024, 2048]
    with pytest.raises(MemoryError):
        climb(Device(1e-2, 1e-6, memory=100).run, SIZES)


def test_an_error_of_another_kind_is_raised() -> None:
    def broken(tokens: int) -> Run:
        if tokens > 512:
            raise RuntimeError("broken")
        return Run(tokens, 1e-3)

    with pytest.raises(RuntimeError, match="broken"):
        climb(broken, SIZES)


class Recording(WordOverlapEncoder):
    """Remembers how long the texts of each forward were."""

    def __init__(self, max_tokens: int = 256) -> None:
        super().__init__(max_tokens)
        self.batches: list[list[int]] = []

    def forward(self, tokens: Sequence[Sequence[int]]) -> object:
        self.batches.append([len(ids) for ids in tokens])
        return super().forward(tokens)


@pytest.mark.parametrize(("longest", "tokens"), [(256, LENGTH - 2), (16, 16)])
def test_a_net_is_measured_by_texts_of_its_own_tokeniser(longest: int, tokens: int) -> None:
    net = Recording(longest)
    budget = measured(net, most=64)
    assert {length for batch in net.batches for length in batch} <= {tokens, tokens + 1, tokens + 2}
    assert budget.tokens in SIZES
    assert budget.per_second > 0
    assert max(map(len, net.batches)) <= 64


def test_no_batch_has_more_items_than_a_forward_may() -> None:
    net = Recording()
    assert measured(net, most=2).tokens == 512
    assert max(map(len, net.batches)) == 2


def test_inputs_may_be_other_than_texts() -> None:
    class OfPairs(Recording):
        def tokenize(self, pairs: Sequence[tuple[str, str]], kind: str = "document") -> list[list[int]]:
            return super().tokenize([" ".join(pair) for pair in pairs])

    net = OfPairs()
    measured(net, most=4, make=lambda text: ("moon", text))
    assert max(length for batch in net.batches for length in batch) > 100
