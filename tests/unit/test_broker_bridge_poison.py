"""Finding the request that kills the process: a crash here is a Suspects object that is dropped."""

from pathlib import Path

import pytest

from broker_bridge.inbox import Message
from broker_bridge.poison import Suspects
from broker_bridge.topics import Operation, Request
from shadow.document import ShadowId

TRIES_MAX = 3


def message(thing: str) -> Message[Request]:
    request = Request(Operation.UPDATE, ShadowId(thing))
    return Message(request, thing.encode(), 1, connection=1, duplicate=True)


GOOD = [message(f"good-{number}") for number in range(4)]
KILLER = message("killer")
BATCH = [*GOOD[:2], KILLER, *GOOD[2:]]


def run_until_death(directory: Path) -> list[Message[Request]] | None:
    """Start, serve the redelivered batch, die at the killer; None when the killer was condemned."""
    suspects = Suspects(directory, TRIES_MAX)
    suspects.begin()
    served: list[Message[Request]] = []
    for portion in suspects.portions(BATCH) if suspects.careful else [BATCH]:
        if suspects.condemned(portion[0]):
            return None
        if suspects.careful:
            suspects.take(portion)
        if KILLER in portion:
            return served
        served += portion
        suspects.release(portion)
    raise AssertionError("the killer was never reached")


def test_the_killer_is_tried_as_often_as_allowed_and_then_condemned(tmp_path):
    deaths = 0
    while run_until_death(tmp_path) is not None:
        deaths += 1
        assert deaths < 10
    # The first death was in normal operation; after it the bytes were tried again three times.
    assert deaths == 1 + TRIES_MAX


def test_the_innocent_are_served_as_soon_as_the_batch_is_split(tmp_path):
    served = [run_until_death(tmp_path) for _ in range(3)]
    assert served == [[], [], GOOD[:2]]


def test_a_clean_end_leaves_no_suspicion(tmp_path):
    suspects = Suspects(tmp_path, TRIES_MAX)
    suspects.begin()
    suspects.end()
    again = Suspects(tmp_path, TRIES_MAX)
    again.begin()
    assert not again.careful


def test_nothing_is_written_down_in_normal_operation(tmp_path):
    suspects = Suspects(tmp_path, TRIES_MAX)
    suspects.begin()
    assert not suspects.careful
    assert [file.name for file in tmp_path.iterdir()] == ["running"]


def test_after_the_redelivered_are_served_it_stops_being_careful(tmp_path):
    Suspects(tmp_path, TRIES_MAX).begin()
    suspects = Suspects(tmp_path, TRIES_MAX)
    suspects.begin()
    suspects.take(GOOD)
    suspects.release(GOOD)
    suspects.relax()
    assert not suspects.careful
    assert not (tmp_path / "in-hand.json").exists()


def condemn(directory: Path) -> Suspects:
    for _ in range(TRIES_MAX + 1):
        suspects = Suspects(directory, TRIES_MAX)
        suspects.begin()
        if suspects.careful:
            suspects.take([KILLER])
    suspects = Suspects(directory, TRIES_MAX)
    suspects.begin()
    return suspects


def test_a_condemned_request_stays_condemned_for_as_long_as_the_process_lives(tmp_path):
    """More copies of it may come, from the broker and from its sender."""
    suspects = condemn(tmp_path)
    suspects.take(GOOD)
    suspects.release(GOOD)
    suspects.relax()
    assert suspects.careful
    assert suspects.condemned(KILLER)
    assert [list(portion) for portion in suspects.portions([*GOOD, KILLER, KILLER])] == [
        GOOD, [KILLER], [KILLER],
    ]  # fmt: skip


def test_a_condemned_request_is_known_after_the_next_unclean_end_too(tmp_path):
    suspects = condemn(tmp_path)
    suspects.relax()
    suspects.take(GOOD)
    again = Suspects(tmp_path, TRIES_MAX)
    again.begin()
    assert again.condemned(KILLER)
    assert not again.condemned(GOOD[0])


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"a": "b"}'])
def test_notes_that_cannot_be_read_suspect_nobody_and_do_not_stop_the_start(tmp_path, content):
    condemn(tmp_path)
    (tmp_path / "in-hand.json").write_bytes(content)
    suspects = Suspects(tmp_path, TRIES_MAX)
    suspects.begin()
    assert suspects.careful
    assert suspects.tries(KILLER) == 0


def test_a_disk_that_takes_no_notes_does_not_stop_the_lane(tmp_path):
    suspects = condemn(tmp_path)
    (tmp_path / "in-hand.new").mkdir()  # stands for a full disk: even root cannot write to it
    suspects.take(GOOD)
    assert suspects.condemned(KILLER)
