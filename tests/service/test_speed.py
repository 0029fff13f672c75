import pytest

from service.speed import FADE, Speed


def test_a_speed_is_assumed_until_something_is_known() -> None:
    speed = Speed(10)
    assert speed.per_second == 10
    speed.note(30, 0.5, others_wait=False)
    assert speed.per_second == 60
    speed.note(30, 0.25, others_wait=False)
    assert speed.per_second == pytest.approx((FADE * 30 + 30) / (FADE * 0.5 + 0.25))


def test_lone_forwards_say_nothing_once_full_ones_have() -> None:
    speed = Speed(10)
    speed.note(10, 1.0, others_wait=False)
    speed.note(2000, 0.1, others_wait=True)
    assert speed.per_second == pytest.approx(20_000)
    for _ in range(100):
        speed.note(10, 1.0, others_wait=False)
    assert speed.per_second == pytest.approx(20_000)


def test_full_forwards_change_what_was_measured_before() -> None:
    speed = Speed(10)
    speed.set(2000, 0.1)
    speed.note(10, 1.0, others_wait=False)
    assert speed.per_second == pytest.approx(20_000)
    for _ in range(100):
        speed.note(2000, 0.2, others_wait=True)
    assert speed.per_second == pytest.approx(10_000, rel=1e-3)
