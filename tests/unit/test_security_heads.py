"""Published heads: signed, appended, and nothing else is taken for one."""

import stat

import msgspec
import pytest

from security import heads as module
from security.chain import Head
from security.heads import ENTRIES_EVERY, SECONDS_EVERY, BadHeadsError, Heads, public_path
from security.secretbox import SealBrokenError, SecretBox
from tests.fakes import FakeClock, SeededIds

LINK = b"\1" * 32


def head(number: int, entries: int = 0, link: bytes = LINK) -> Head:
    return Head(number, link, entries or number, 0)


@pytest.fixture
def place(tmp_path):
    return tmp_path / "elsewhere" / "heads.jsonl"


def open_heads(place, clock=None, seed: int = 0) -> Heads:
    secrets = place.parents[1] / "secrets"
    box = SecretBox.open(secrets / "master.key", SeededIds(seed))
    return Heads.open(place, secrets / "audit.key", box, clock or FakeClock())


def read(place) -> dict[int, Head]:
    return module.read_heads(place, module.read_public_keys(public_path(place)))


def test_published_heads_are_read_back_with_the_public_key_beside_them(place):
    heads = open_heads(place)
    heads.publish(head(1))
    heads.publish(head(2, 1_500))
    assert read(place) == {1: head(1), 2: head(2, 1_500)}
    assert place.read_bytes().count(b"\n") == 2


def test_the_key_lies_sealed_for_its_owner_only_and_stays_the_same(place):
    open_heads(place).publish(head(1))
    key = place.parents[1] / "secrets" / "audit.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    open_heads(place).publish(head(2))
    assert len(module.read_public_keys(public_path(place))) == 1
    assert set(read(place)) == {1, 2}


def test_a_key_of_another_box_does_not_open(place):
    open_heads(place)
    (place.parents[1] / "secrets" / "master.key").unlink()
    with pytest.raises(SealBrokenError):
        open_heads(place, seed=1)


def test_a_new_key_is_published_beside_the_old_one_and_both_count(place):
    open_heads(place).publish(head(1))
    (place.parents[1] / "secrets" / "audit.key").unlink()
    open_heads(place).publish(head(2))
    assert len(module.read_public_keys(public_path(place))) == 2
    assert set(read(place)) == {1, 2}


def test_a_head_is_due_at_first_then_after_a_minute_or_a_thousand_entries_if_there_is_something_new(place):
    clock = FakeClock()
    heads = open_heads(place, clock)
    assert not heads.due(Head(0, LINK, 0, 0))
    assert heads.due(head(1))
    heads.publish(head(1))
    clock.advance(SECONDS_EVERY)
    assert not heads.due(head(1))
    heads.publish(head(2))
    assert not heads.due(head(3))
    assert heads.due(head(3, 2 + ENTRIES_EVERY))
    clock.advance(SECONDS_EVERY)
    assert heads.due(head(3))


def test_a_chain_that_has_become_shorter_is_never_due(place):
    heads = open_heads(place)
    heads.publish(head(7))
    assert not heads.due(head(6, 9_999))
    assert not open_heads(place).due(head(7, 9_999))


def test_what_a_crash_left_of_a_line_is_no_head_and_is_taken_away(place):
    open_heads(place).publish(head(1))
    whole = place.read_bytes()
    place.write_bytes(whole + whole[:50])
    assert set(read(place)) == {1}
    heads = open_heads(place)
    assert heads.last is not None
    assert heads.last.number == 1
    heads.publish(head(2))
    assert set(read(place)) == {1, 2}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda line: line.replace(b'"entries":1', b'"entries":2'), "signature"),
        (lambda line: line.replace(b"01" * 32, b"02" * 32), "signature"),
        (lambda line: line.replace(b'"number":1', b'"number":3'), "signature"),
        (lambda line: line.replace(b'"key":"', b'"key":"0'), "not known"),
        (lambda line: line.replace(b'"signature":"', b'"signature":"!'), "read"),
        (lambda line: line[1:], "read"),
        (lambda _line: b"", "read"),
        (lambda line: line.replace(b"01" * 32, b"zz" * 32), "read"),
    ],
    ids=["entries", "hash", "number", "key", "spelling", "torn", "empty", "no hash"],
)
def test_a_changed_line_is_refused_and_named(place, change, words):
    open_heads(place).publish(head(1))
    place.write_bytes(change(place.read_bytes()[:-1]) + b"\n")
    with pytest.raises(BadHeadsError, match=f"line 1.*{words}"):
        read(place)


def test_a_head_signed_by_another_is_refused(place, tmp_path):
    open_heads(place).publish(head(1))
    other = tmp_path / "other" / "elsewhere" / "heads.jsonl"
    open_heads(other, seed=1).publish(head(2))
    place.write_bytes(place.read_bytes() + other.read_bytes())
    with pytest.raises(BadHeadsError, match=r"line 2.*not known"):
        read(place)


def test_two_heads_of_one_block_are_refused(place):
    heads = open_heads(place)
    heads.publish(head(1))
    heads.publish(head(1))
    assert set(read(place)) == {1}
    heads.publish(head(1, link=b"\2" * 32))
    with pytest.raises(BadHeadsError, match="a second head"):
        read(place)


def test_a_file_that_ends_in_something_else_is_not_appended_to(place):
    open_heads(place)
    place.write_bytes(b"not a head\n")
    with pytest.raises(BadHeadsError):
        open_heads(place)
    place.write_bytes(b"x" * 10_000)
    with pytest.raises(BadHeadsError):
        open_heads(place)
    assert place.read_bytes() == b"x" * 10_000


def test_a_line_of_the_file_has_these_members(place):
    open_heads(place).publish(head(1))
    assert list(msgspec.json.decode(place.read_bytes())) == [
        "number", "hash", "entries", "at", "key", "signature",
    ]  # fmt: skip


# A part of a long file


def long_file(place, count: int) -> Heads:
    heads = open_heads(place)
    for number in range(1, count + 1):
        heads.publish(head(number * 3))
    return heads


def test_a_part_of_a_long_file_is_found_without_reading_it_all(place, monkeypatch):
    monkeypatch.setattr(module, "DISORDER_BYTES", 600)
    monkeypatch.setattr(module, "LINE_BYTES_MAX", 400)
    heads = long_file(place, 200)
    looked_at: list[bytes] = []
    monkeypatch.setattr(
        module, "_signed_bytes", lambda said, real=module._signed_bytes: _seen(looked_at, real, said)
    )
    for first in (1, 2, 3, 250, 599, 600, 9_999):
        looked_at.clear()
        found = heads.between(first, first + 30)
        wanted = {number for number in range(3, 601, 3) if first <= number <= first + 30}
        assert wanted | {600} <= set(found)
        assert len(looked_at) <= 40


def _seen(looked_at, real, said):
    looked_at.append(said)
    return real(said)


def test_heads_that_two_processes_published_in_another_order_are_found(place):
    heads = open_heads(place)
    for number in (3, 1, 2, 6, 5, 4):
        heads.publish(head(number))
    assert set(heads.between(2, 3)) == {1, 2, 3, 4, 5, 6}


def test_a_bad_line_far_from_the_part_is_not_looked_at_and_one_in_it_is_named(place):
    heads = long_file(place, 4)
    lines = place.read_bytes().split(b"\n")
    lines[2] = lines[2][5:]
    place.write_bytes(b"\n".join(lines))
    with pytest.raises(BadHeadsError, match="line 3"):
        heads.between(6, 12)


def test_before_the_first_head_there_is_none(place):
    assert open_heads(place).between(1, 9) == {}
