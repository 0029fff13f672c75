"""How fast requests are finished, by a clock that one can follow in the head."""

import pytest

from service.flow import UNKNOWN_SECONDS, Flow
from tests.clocks import Clock


def test_those_inside_take_as_long_as_so_many_took_lately():
    clock = Clock()
    flow = Flow(clock=clock)
    for _ in range(4):
        flow.enter()
    clock.now += 0.5
    flow.leave()  # one in half a second
    assert flow.seconds() == pytest.approx(3 * 0.5)
    flow.leave()  # two in half a second
    assert flow.seconds() == pytest.approx(2 * 0.25)
    assert flow.inside == 2


def test_time_without_requests_does_not_count():
    clock = Clock()
    flow = Flow(clock=clock)
    for _ in range(3):
        flow.enter()
        clock.now += 0.1
        flow.leave()
        clock.now += 1000
    for _ in range(10):
        flow.enter()
    assert flow.seconds() == pytest.approx(10 * 0.1)


def test_a_service_that_stops_finishing_is_said_to_be_slow():
    clock = Clock()
    flow = Flow(clock=clock)
    flow.enter()
    flow.enter()
    clock.now += 0.1
    flow.leave()
    before = flow.seconds()
    clock.now += 5
    assert flow.seconds() > 50 * before


def test_the_speed_of_late_counts_most():
    clock = Clock()
    flow = Flow(clock=clock)
    flow.enter()
    for pause, times in ((1.0, 20), (0.01, 1000)):
        for _ in range(times):
            flow.enter()
            clock.now += pause
            flow.leave()
    assert flow.seconds() == pytest.approx(0.01, rel=0.02)


def test_those_whom_a_queue_refused_make_nobody_faster():
    clock = Clock()
    flow = Flow(clock=clock)
    for _ in range(12):
        flow.enter()
    clock.now += 0.5
    for _ in range(8):
        flow.leave(worked=False)
    flow.leave()  # one in half a second
    assert flow.seconds() == pytest.approx(3 * 0.5)


def test_before_any_was_finished_there_is_an_assumption():
    clock = Clock()
    flow = Flow(clock=clock)
    flow.enter()
    clock.now += 30
    assert flow.seconds() == UNKNOWN_SECONDS


def test_a_thread_without_a_request_could_have_done_as_much():
    clock = Clock()
    flow = Flow(2, clock=clock)
    flow.enter()
    clock.now += 1.0
    flow.leave()  # a second of one thread of two
    assert flow.pace() == pytest.approx(0.5)
    for _ in range(3):
        flow.enter()
    clock.now += 100.0
    for _ in range(3):
        flow.leave()  # three in a hundred seconds, of both; what was before is forgotten
    assert flow.pace() == pytest.approx(100 / 3, rel=1e-6)


def test_nobody_knows_the_pace_before_the_first_is_done():
    flow = Flow()
    flow.enter()
    assert flow.pace() is None
