"""Windows in local time, also on the days on which clocks are changed."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ota.calendar import Window, instant_ms, is_open, opens_at_ms

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = Window(22 * 60, 6 * 60)


def utc(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000)


def test_without_windows_it_is_always_open():
    assert is_open((), BERLIN, utc("2026-06-01T12:00"))


@pytest.mark.parametrize(
    ("at", "open"),
    [
        ("2026-06-01T19:59:59", False),
        ("2026-06-01T20:00", True),
        ("2026-06-02T03:59:59", True),
        ("2026-06-02T04:00", False),
    ],
)
def test_a_window_over_midnight_begins_and_ends_in_local_time(at, open):
    assert is_open((NIGHT,), BERLIN, utc(at)) is open


def test_a_window_of_some_days_belongs_to_the_day_on_which_it_begins():
    sunday = Window(22 * 60, 6 * 60, frozenset({6}))
    assert is_open((sunday,), BERLIN, utc("2026-06-08T03:00"))
    assert not is_open((sunday,), BERLIN, utc("2026-06-09T03:00"))
    assert opens_at_ms((sunday,), BERLIN, utc("2026-06-08T12:00")) == utc("2026-06-14T20:00")


def test_a_time_that_clocks_leave_out_is_the_moment_they_do():
    left_out = datetime.fromisoformat("2026-03-29T02:30")
    assert instant_ms(left_out, BERLIN, last=False) == utc("2026-03-29T01:00")
    assert instant_ms(left_out, BERLIN, last=True) == utc("2026-03-29T01:00")
    window = Window(2 * 60 + 30, 5 * 60)
    assert not is_open((window,), BERLIN, utc("2026-03-29T00:59:59"))
    assert is_open((window,), BERLIN, utc("2026-03-29T01:00"))


def test_where_clocks_are_set_back_a_window_begins_with_the_first_and_ends_with_the_last():
    window = Window(2 * 60 + 15, 2 * 60 + 45)
    for at, open in {
        "2026-10-25T00:14:59": False,
        "2026-10-25T00:15": True,
        "2026-10-25T00:50": True,
        "2026-10-25T01:44:59": True,
        "2026-10-25T01:45": False,
    }.items():
        assert is_open((window,), BERLIN, utc(at)) is open


@given(
    st.integers(0, 1439),
    st.integers(0, 1439),
    st.frozensets(st.integers(0, 6)),
    st.integers(utc("2026-01-01T00:00"), utc("2027-12-31T00:00")),
)
def test_a_window_opens_when_it_is_said_to_and_not_before(start, end, days, now_ms):
    windows = (Window(start, end, days),)
    opens = opens_at_ms(windows, BERLIN, now_ms)
    assert is_open(windows, BERLIN, opens)
    assert (opens == now_ms) is is_open(windows, BERLIN, now_ms)
    if opens > now_ms:
        assert not is_open(windows, BERLIN, opens - 1)
        assert not is_open(windows, BERLIN, (now_ms + opens) // 2)
