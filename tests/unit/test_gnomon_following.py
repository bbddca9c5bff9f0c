"""Streams are followed across cuts: nothing twice, and not for ever."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gnomon.following import RETRY_S, TRIES_MAX, events, follow
from gnomon.refusals import AccessError, NotProvedError, UnreachableError

AWAY, OUT, GONE = UnreachableError("away"), NotProvedError("log in"), AccessError("no such campaign")


class FakeAccess:
    """Answers one try after another: lines, or an error."""

    def __init__(self, *tries: list[str] | AccessError) -> None:
        self._tries = iter(tries)
        self.asked = list[str]()
        self.waited = list[float]()
        self.forgot = 0

    @contextmanager
    def stream(self, path: str, fields: Mapping[str, str], *, silence_s: float) -> Iterator[Any]:
        assert (path, silence_s > 15) == ("/live", True), "the service says that it lives each 15 s"
        self.asked.append(fields.get("Last-Event-ID", ""))
        answer = next(self._tries, AWAY)
        if isinstance(answer, AccessError):
            raise answer
        yield SimpleNamespace(iter_lines=lambda: iter(answer))

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)

    def forget(self) -> None:
        self.forgot += 1


def told(number: int) -> list[str]:
    return [f"id: {number}", "event: progress", f'data: {{"n":{number}}}', ""]


def followed(fake: FakeAccess) -> Iterator[Any]:
    return follow(cast("Any", fake), "/live")


def test_after_a_cut_it_goes_on_with_what_was_told_last():
    fake = FakeAccess([*told(1), *told(2)], AWAY, [": alive", "", *told(3)], [])
    news = followed(fake)
    assert [next(news)["n"] for _ in range(3)] == [1, 2, 3]
    assert fake.asked == ["", "2", "2"]
    assert fake.waited == [RETRY_S, RETRY_S]


def test_a_service_that_stays_away_is_given_up_and_one_that_answers_is_not():
    fake = FakeAccess(*[AWAY] * (TRIES_MAX - 1), told(1))
    news = followed(fake)
    assert next(news) == {"n": 1}
    with pytest.raises(UnreachableError):
        next(news)
    assert len(fake.asked) == 2 * TRIES_MAX


def test_a_login_that_ran_out_is_renewed_once():
    fake = FakeAccess(told(1), OUT, told(2), OUT, OUT)
    news = followed(fake)
    assert [next(news)["n"], next(news)["n"]] == [1, 2]
    with pytest.raises(NotProvedError):
        next(news)
    assert fake.forgot == 2


def test_a_login_that_ran_out_while_the_service_was_away_is_renewed_too():
    fake = FakeAccess(told(1), AWAY, AWAY, OUT, AWAY, told(2))
    news = followed(fake)
    assert [next(news)["n"], next(news)["n"]] == [1, 2]
    assert fake.forgot == 1


def test_a_stream_that_opens_and_has_nothing_to_tell_is_not_given_up():
    quiet = [": alive", ""]
    fake = FakeAccess(told(1), *[quiet] * (2 * TRIES_MAX), told(2))
    news = followed(fake)
    assert [next(news)["n"], next(news)["n"]] == [1, 2]


def test_what_is_refused_is_not_asked_again():
    fake = FakeAccess(GONE)
    with pytest.raises(AccessError, match="no such campaign"):
        next(followed(fake))
    assert len(fake.asked) == 1


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["data: 1", ""], [("", "1")]),
        (["id:7", "data:a", "data: b", "", "data: c", ""], [("7", "a\nb"), ("7", "c")]),
        ([": alive", "", "retry: 2000", ""], []),
        (["id: 1", "data: cut off"], []),
    ],
)
def test_an_event_is_what_was_sent_to_its_end(lines, found):
    assert list(events(lines)) == found
