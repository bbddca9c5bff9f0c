"""What the rules of a shadow cost, by size of the document: merge, delta, and a whole device update.

    python -m bench.merge

``update`` is all that happens to a typical report between its bytes and the store: it is parsed, decided,
and the document, its history row, delta, documents and accepted are made. No store, no network.
"""

import gc
import json
import statistics
import time
from collections.abc import Callable

from bench.report import emit
from infra.settings.model import ShadowLimits
from security.policy import Role
from shadow.commands import Channel, Origin, parse_update
from shadow.decisions import Circumstances, Shadow, decide
from shadow.document import ShadowId, Tree, difference, merge, part, stamped, write
from shadow.ledger import Answered, remember, token_hash
from shadow.records import body_of, shadow_of
from shadow.wire import version_json

SIZES = (600, 2_000, 8_000, 32_000)
ROUND_S = 0.15
ROUNDS = 9
NOW_MS = 1_790_000_000_000
OLD, NEW = {"timestamp": 1_789_999_000}, {"timestamp": 1_790_000_000}
LIMITS = ShadowLimits(document_bytes_max=65_536)
HALL = ShadowId("thermostat-7f3a21")
DEVICE = Origin("thermostat-7f3a21", Role.DEVICE, Channel.MQTT)
REPORT = {"temperature_c": 21.37, "humidity": 41, "mode": "eco", "rssi": -61}
TOKEN = "6f1c0a52-2d0b-4f0e-9d2c-0b6f6a1d7c11"


def tree(size: int) -> Tree:
    """Return a state of about `size` bytes of JSON, two levels deep, as devices have them."""
    state: Tree = dict(REPORT)
    group = 0
    while len(json.dumps(state)) < size:
        state[f"zone{group}"] = {"set_c": 21.5, "valve": True, "hours": [6, 18], "label": f"room {group}"}
        group += 1
    return state


def shadow(size: int) -> Shadow:
    """Return a shadow whose sections have ``size`` bytes together and differ in one field."""
    state = tree(size // 2)
    desired, reported = part(state | {"mode": "day"}, stamped(state, OLD)), part(state, stamped(state, OLD))
    answered = Answered(b"x" * 16, 1, unique=True, version=1, timestamp=NOW_MS // 1_000)
    ledger = b""
    for number in range(LIMITS.dedup_records_max):
        ledger = remember(ledger, token_hash(str(number)), answered, LIMITS)
    return Shadow(
        desired=desired,
        reported=reported,
        version=41,
        at_ms=NOW_MS - 1_000,
        exists=True,
        ledger=ledger,
        diverged_ms=NOW_MS - 1_000,
        json=version_json(desired, reported, 41),
    )


def microseconds(act: Callable[[], object]) -> tuple[float, int]:
    """Return the median time of one call, and how many calls it stands on."""
    start = time.perf_counter()
    act()
    times = max(1, int(ROUND_S / max(time.perf_counter() - start, 1e-7) / 3))
    rounds = []
    gc.collect()
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(times):
            act()
        rounds.append((time.perf_counter() - start) / times)
    return statistics.median(rounds) * 1e6, times * ROUNDS


def main() -> None:
    payload = json.dumps(
        {"state": {"reported": REPORT}, "clientToken": TOKEN}, separators=(",", ":")
    ).encode()
    circumstances = Circumstances(NOW_MS, LIMITS)

    def failed(_: object, error: Exception) -> Exception:
        raise error

    for size in SIZES:
        now = shadow(size)
        stored = body_of(now)

        def update(now: Shadow = now) -> bytes:
            command = parse_update(payload, HALL, DEVICE, LIMITS)
            after, _ = decide({HALL: now}, [command], circumstances, failed)  # type: ignore[arg-type] # raises
            return body_of(after[HALL])

        def parse() -> object:
            return parse_update(payload, HALL, DEVICE, LIMITS)

        def merged(now: Shadow = now) -> object:
            return merge(now.reported.state, now.reported.stamps, REPORT, NEW)

        def written(now: Shadow = now) -> object:
            return write(now.reported, REPORT, NEW)

        def differs(now: Shadow = now) -> object:
            return difference(now.desired, now.reported)

        def loaded(stored: bytes = stored) -> object:
            return shadow_of(HALL.key, stored)

        for figure, act in (
            ("update", update),
            ("parse", parse),
            ("merge", merged),
            ("merge_and_encode", written),
            ("delta", differs),
            ("load", loaded),
        ):
            value, n = microseconds(act)
            emit(f"shadow_{figure}", value, "us", n, document_bytes=size)


if __name__ == "__main__":
    main()
