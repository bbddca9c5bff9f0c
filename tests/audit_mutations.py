"""What somebody who can write the store could do to the audit chain, many times over, with what must be said.

``run(200)`` makes 5 x 200 changed chains and returns how many were tried, found, and named at the right
position. The heads that were published stay as they are: they lie elsewhere.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from security import chain
from security.audit import AuditEntry
from security.chain import EMPTY, BadPositionError, Head, Verification

Bodies = list[bytes]


class Tally(NamedTuple):
    """``tried`` changes, of which ``found``, of which ``named`` where they are."""

    tried: int
    found: int
    named: int


@dataclass(frozen=True)
class Mutation:
    """A changed chain, and the positions (block, index) of which one must be named."""

    kind: str
    bodies: Bodies
    positions: frozenset[tuple[int, int]]


def entries(chance: random.Random, count: int, at_ms: int = 1_790_000_000_000) -> list[bytes]:
    """Return entries as the log holds them."""
    made = []
    for number in range(count):
        at_ms += chance.choice([0, 0, 1, 37, 1_000])
        target = f"thing/{chance.choice(['hall', 'attic', 'küche'])}-{number}"
        row = AuditEntry(
            at_ms=at_ms,
            actor=chance.choice(["operator", "acc-7", "system"]),
            role="operator",
            action=chance.choice(["thing.register", "shadow.update"]),
            target=target,
            version_before=number,
            version_after=number + 1,
            id=f"{target}:{number + 1}",
        )
        made.append(msgspec.json.encode(row))
    return made


def make_chain(rows: Sequence[bytes], sizes: Iterator[int], head: Head = EMPTY) -> tuple[Bodies, list[Head]]:
    """Return blocks of these sizes, and the head after each."""
    bodies, heads, start = Bodies(), list[Head](), 0
    while start < len(rows):
        end = min(len(rows), start + next(sizes))
        body, head = chain.make(head, rows[start:end])
        bodies.append(body)
        heads.append(head)
        start = end
    return bodies, heads


def sizes(chance: random.Random) -> Iterator[int]:
    """Yield sizes of blocks."""
    while True:
        yield chance.choice([1, 2, 5, 9])


def published(chance: random.Random, heads: Sequence[Head]) -> dict[int, Head]:
    """Return the heads that were published: some, and the last."""
    some = {head.number: head for head in heads if chance.random() < 0.3}
    return some | {heads[-1].number: heads[-1]}


def verify_all(bodies: Iterable[bytes | None], published: Mapping[int, Head]) -> Head:
    """Verify a whole chain and return where it ends."""
    verification = Verification(published)
    for body in bodies:
        verification.take(body)
    verification.end()
    return verification.head


def run(
    n_each: int,
    seed: int = 1,
    verify: Callable[[Bodies, Mapping[int, Head]], object] = verify_all,
) -> Tally:
    """Try each kind ``n_each`` times; ``verify`` raises :class:`BadPositionError` for what it finds."""
    chance = random.Random(seed)
    found = named = 0
    for kind in KINDS.values():
        for _ in range(n_each):
            bodies, heads = make_chain(entries(chance, 60), sizes(chance))
            known = published(chance, heads)
            verify(bodies, known)  # untouched, it holds
            mutation = kind(chance, list(bodies), heads, known)
            assert mutation.bodies != bodies, "nothing was changed"
            try:
                verify(mutation.bodies, known)
            except BadPositionError as error:
                found += 1
                named += (error.block, error.index) in mutation.positions
    return Tally(n_each * len(KINDS), found, named)


Kind = Callable[[random.Random, Bodies, Sequence[Head], Mapping[int, Head]], Mutation]


def edited(
    chance: random.Random, bodies: Bodies, _heads: Sequence[Head], _known: Mapping[int, Head]
) -> Mutation:
    """One byte of one entry, of its link or of a header is another; sometimes the link is made to fit."""
    at, lines = _some_block(chance, bodies)
    index = chance.randrange(len(lines) - 1)  # the last is what follows the last line end
    line = bytearray(lines[index])
    place = chance.randrange(len(line))
    line[place] = _other_byte(chance, line[place])
    expected = {(at + 1, index)}
    if index and place >= chain.LINE_BYTES - 1 and chance.random() < 0.3 and chain.sealable(bytes(line[65:])):
        before = lines[index - 1][:64] if index > 1 else chain.header_of(at + 1, bodies[at]).prev.encode()
        link = chain.link_after(bytes.fromhex(before.decode()), bytes(line[65:]))
        line[:64] = link.hex().encode()
        # It follows now; what comes after it does not any more.
        expected = {(at + 1, 0 if index == len(lines) - 2 else index + 1)}
    lines[index] = bytes(line)
    bodies[at] = b"\n".join(lines)
    return Mutation("edited", bodies, frozenset(expected))


def deleted(
    chance: random.Random, bodies: Bodies, _heads: Sequence[Head], _known: Mapping[int, Head]
) -> Mutation:
    """An entry is gone, or everything of a block but its number; sometimes the count is made to fit."""
    at, lines = _some_block(chance, bodies)
    index = chance.randrange(1, len(lines) - 1)
    last = index == len(lines) - 2
    del lines[index]
    fits = chance.random() < 0.5
    if fits:
        lines[0] = _with_count(lines[0], -1)
    bodies[at] = b"\n".join(lines)
    return Mutation("deleted", bodies, frozenset({(at + 1, 0 if fits and last else index)}))


def reordered(
    chance: random.Random, bodies: Bodies, _heads: Sequence[Head], _known: Mapping[int, Head]
) -> Mutation:
    """Two entries of a block, or two blocks, have changed places."""
    if chance.random() < 0.3:
        one, other = sorted(chance.sample(range(len(bodies)), 2))
        bodies[one], bodies[other] = bodies[other], bodies[one]
        return Mutation("reordered", bodies, frozenset({(one + 1, 0)}))
    at, lines = _some_block(chance, bodies, entries_min=2)
    one, other = sorted(chance.sample(range(1, len(lines) - 1), 2))
    lines[one], lines[other] = lines[other], lines[one]
    bodies[at] = b"\n".join(lines)
    return Mutation("reordered", bodies, frozenset({(at + 1, one)}))


def cut(
    chance: random.Random, bodies: Bodies, _heads: Sequence[Head], _known: Mapping[int, Head]
) -> Mutation:
    """The end is gone: whole blocks, entries of the last one with a header that fits, or bytes."""
    match chance.randrange(3):
        case 0:
            left = chance.randrange(len(bodies))
            return Mutation("cut", bodies[:left], frozenset({(left + 1, 0)}))
        case 1:
            block = chain.parse(len(bodies), bodies[-1])
            head = verify_all(bodies[:-1], {})
            left = chance.randrange(len(block.entries))
            shorter = [chain.make(head, block.entries[:left])[0]] if left else []
            return Mutation("cut", bodies[:-1] + shorter, frozenset({(len(bodies), 0)}))
        case _:
            kept = bodies[-1][: chance.randrange(1, len(bodies[-1]))]
            # Between two lines the next one is missing; within a line that one is bad.
            index = kept.count(b"\n")
            expected = {(len(bodies), index)}
            return Mutation("cut", [*bodies[:-1], kept], frozenset(expected))


def forked(
    chance: random.Random, bodies: Bodies, heads: Sequence[Head], known: Mapping[int, Head]
) -> Mutation:
    """From some entry on the chain says something else, and all of it is linked anew."""
    at = chance.randrange(len(bodies))
    block = chain.parse(at + 1, bodies[at])
    rows = list(block.entries)
    index = chance.randrange(len(rows))
    rows[index] = msgspec.json.encode(msgspec.json.decode(rows[index]) | {"actor": "nobody"})
    head = heads[at - 1] if at else EMPTY
    made = bodies[:at]
    for entries_of in [rows, *(chain.parse(n + 1, bodies[n]).entries for n in range(at + 1, len(bodies)))]:
        body, head = chain.make(head, entries_of)
        made.append(body)
    said = min(number for number in known if number > at)
    return Mutation("forked", made, frozenset({(said, 0)}))


KINDS: Mapping[str, Kind] = {
    "edited": edited,
    "deleted": deleted,
    "reordered": reordered,
    "cut": cut,
    "forked": forked,
}


def _some_block(chance: random.Random, bodies: Bodies, entries_min: int = 1) -> tuple[int, list[bytes]]:
    fit = [at for at, body in enumerate(bodies) if body.count(b"\n") > entries_min]
    at = chance.choice(fit)
    return at, bodies[at].split(b"\n")


def _other_byte(chance: random.Random, byte: int) -> int:
    others: list[int] = [other for other in (*range(0x20, 0x7F), 0, 0x0A, 0xFF) if other != byte]
    return chance.choice(others)


def _with_count(header: bytes, more: int) -> bytes:
    said = msgspec.json.decode(header, type=chain.Header)
    changed: bytes = msgspec.json.encode(msgspec.structs.replace(said, count=said.count + more))
    return changed
