"""The chain of audit entries: what holds, and that no change of it goes unseen or unnamed."""

import hashlib
import random
from itertools import repeat

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from security import chain
from security.chain import EMPTY, BadPositionError, Verification
from tests import audit_mutations as mutations

SEEDS = st.integers(0, 2**32)


def rows(count: int = 10, seed: int = 1) -> list[bytes]:
    return mutations.entries(random.Random(seed), count)


def blocks(count: int = 10, size: int = 3):
    return mutations.make_chain(rows(count), repeat(size))


def position(bodies, published=None) -> tuple[int, int, str]:
    with pytest.raises(BadPositionError) as raised:
        mutations.verify_all(bodies, published or {})
    return raised.value.block, raised.value.index, raised.value.entry


# What holds


def test_an_empty_chain_ends_at_the_genesis():
    assert mutations.verify_all([], {}) == EMPTY
    assert EMPTY.hash == "ff4b5f7afde2f6fabebedf639a09c924a8215f083362b8c5b1cc6f5ffaf7c7c5"


def test_a_block_holds_the_bytes_of_its_entries_and_leads_to_the_next():
    bodies, heads = blocks()
    assert mutations.verify_all(bodies, {head.number: head for head in heads}) == heads[-1]
    assert [entry for n, body in enumerate(bodies, 1) for entry in chain.parse(n, body).entries] == rows()
    assert (heads[-1].number, heads[-1].entries) == (4, 10)


def test_each_link_is_the_hash_of_the_link_before_and_the_stored_bytes():
    bodies, heads = blocks(2, 2)
    first = hashlib.sha256(chain.GENESIS + rows()[0]).digest()
    assert heads[-1].link == hashlib.sha256(first + rows()[1]).digest()
    assert [link for link, _ in chain.lines(1, bodies[0])] == [first.hex(), heads[-1].hash]


def test_a_header_tells_the_span_of_time_and_the_highest_time_so_far():
    late, early = rows(1)[0], rows(1)[0].replace(b"1790", b"1780")
    _, head = chain.make(EMPTY, [late])
    body, after = chain.make(head, [early])
    header = chain.header_of(2, body)
    assert header.from_ms == header.to_ms < header.upto_ms == head.upto_ms == after.upto_ms


@pytest.mark.parametrize(
    ("count", "spans"),
    [(1, [(0, 1)]), (1_000, [(0, 1_000)]), (1_001, [(0, 1_000), (1_000, 1_001)])],
)
def test_entries_go_into_blocks_of_a_bounded_number(count, spans):
    assert chain.ENTRIES_MAX == 1_000
    assert list(chain.portions([b"{}"] * count)) == spans


def test_entries_go_into_blocks_of_bounded_bytes():
    large = [b"x" * (chain.BLOCK_BYTES_MAX // 3)] * 5
    assert list(chain.portions(large)) == [(0, 2), (2, 4), (4, 5)]
    largest = [b"x" * chain.BLOCK_BYTES_MAX] * 2
    assert list(chain.portions(largest)) == [(0, 1), (1, 2)]
    assert list(chain.portions([])) == []


@pytest.mark.parametrize(
    "entry",
    [b"", b"[]", b'{"id":"a:1"}', b'{"id":"a:1",\n"at_ms":1}', b"\xff", b'{"id":"\xff","at_ms":1}'],
)
def test_what_is_no_entry_on_one_line_is_not_sealable(entry):
    assert not chain.sealable(entry)
    assert chain.sealable(rows(1)[0])


# What is found


def test_the_five_kinds_of_change_are_found_and_named_a_thousand_times():
    tally = mutations.run(200)
    assert tally == (1_000, 1_000, 1_000)


@given(SEEDS, st.sampled_from(sorted(mutations.KINDS)))
def test_any_change_is_found_and_named(seed, kind):
    chance = random.Random(seed)
    bodies, heads = mutations.make_chain(mutations.entries(chance, 25), mutations.sizes(chance))
    known = mutations.published(chance, heads)
    mutation = mutations.KINDS[kind](chance, list(bodies), heads, known)
    assert position(mutation.bodies, known)[:2] in mutation.positions


@given(st.data())
def test_any_bytes_in_place_of_a_block_are_a_bad_position_and_nothing_else(data):
    bodies, heads = blocks()
    at = data.draw(st.integers(0, len(bodies) - 1))
    bodies[at] = data.draw(st.binary(max_size=300))
    assert position(bodies, {4: heads[-1]})[0] == at + 1


def test_the_entry_is_named_by_its_id():
    bodies, _ = blocks()
    lines = bodies[1].split(b"\n")
    lines[2] = lines[2].replace(b'"role":"operator"', b'"role":"customer"')
    bodies[1] = b"\n".join(lines)
    id = msgspec.json.decode(rows()[4])["id"]
    assert position(bodies) == (2, 2, id)


def test_a_missing_block_is_named():
    bodies, _ = blocks()
    assert position([*bodies[:1], None, *bodies[2:]])[:2] == (2, 0)


def test_an_entry_twice_is_named_where_it_is_the_second_time():
    bodies, _ = blocks()
    lines = bodies[1].split(b"\n")
    bodies[1] = b"\n".join([*lines[:2], *lines[1:]])
    assert position(bodies)[:2] == (2, 2)


def test_without_published_heads_a_cut_tail_is_not_seen_and_with_them_it_is():
    bodies, heads = blocks()
    assert mutations.verify_all(bodies[:-1], {}) == heads[-2]
    assert position(bodies[:-1], {4: heads[-1]})[:2] == (4, 0)


def test_a_fork_is_named_at_the_first_head_it_contradicts_and_tells_what_agreed_before():
    _, heads = blocks()
    fork, _ = mutations.make_chain([*rows()[:6], *rows(4, seed=9)], repeat(3))
    with pytest.raises(BadPositionError, match="after block 1") as raised:
        mutations.verify_all(fork, {1: heads[0], 4: heads[3]})
    assert raised.value.block == 4


def test_a_verification_goes_on_where_another_stopped():
    bodies, heads = blocks()
    verification = Verification({4: heads[-1]}, head=heads[1])
    for body in bodies[2:]:
        verification.take(body)
    verification.end()
    assert (verification.head, verification.agreed) == (heads[-1], 4)
