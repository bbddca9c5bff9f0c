"""One connection of a load: asks about one thing, measures, repeats, and tells the history.

No I/O of its own: a connection calls it and is called by it. When to ask is `load`'s
affair; here is what an answer means.
"""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from fleet.history import History
from fleet.retry import full_jitter_s
from fleet.shapes import SHAPES, Mode, body_maker
from fleet.statistics import Statistics
from fleet.topics import own_route, request_topic
from infra.clock import MS_PER_S, Clock

ANSWER_S: Final = 5.0  # an answer later than this is taken for lost
RETRY_BASE_S, RETRY_CAP_S = 1.0, 10.0
BACKLOG_MAX: Final = 10_000  # planned requests that wait for a connection's window; more are shed
FAILED, UNAVAILABLE, BUSY = 500, 503, 429
_NOT_YET: Final = frozenset({FAILED, UNAVAILABLE, BUSY})


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a load is told to do."""

    seconds: float
    rate: float | None = None  # a second over all connections; None: closed loop
    window: int = 8  # unanswered requests per connection
    mode: Mode = Mode.REPORTED
    shape: str = "thermostat"
    shadow: str = ""
    is_sequenced: bool = False  # do reports carry {epoch, number}?
    seed: int = 0
    drain_s: float = 30.0  # how long to wait for what is unanswered when time is up

    def __post_init__(self) -> None:
        if self.window < 1 or self.seconds <= 0 or (self.rate is not None and self.rate <= 0):
            raise ValueError("a load needs a window of at least 1, and more than 0 seconds and requests")


class Wire(Protocol):
    """What a worker needs of its connection."""

    def publish(self, topic: str, payload: bytes) -> bool: ...

    def subscribe(self, filters: Sequence[str]) -> None: ...


class Run:
    """What the workers of one load share."""

    __slots__ = (
        "chance",
        "clock",
        "epoch",
        "history",
        "id",
        "is_asking",
        "order",
        "shed",
        "statistics",
        "unknown",
    )

    def __init__(self, order: Order, id: str, clock: Clock, history: History | None = None) -> None:
        self.order, self.id, self.clock, self.history = order, id, clock, history
        self.epoch = clock.now_ms() // MS_PER_S  # of sequenced reports: rises with each run
        self.chance = random.Random(order.seed)
        self.statistics = Statistics()
        self.is_asking = False  # time is not up yet
        self.shed = 0  # planned, but the backlog was full
        self.unknown = 0  # unanswered at the end


class Answer(msgspec.Struct, rename="camel"):
    """What is read of an answer, where its topic is not enough."""

    version: int | None = None
    code: int = 0


class Pending:
    """A request without its answer yet."""

    __slots__ = ("body", "due_at", "planned_at", "tries")

    def __init__(self, body: bytes, planned_at: float, due_at: float) -> None:
        self.body = body
        self.planned_at = planned_at
        self.due_at = due_at
        self.tries = 1


_ANSWERS: Final = msgspec.json.Decoder(Answer)


class Worker:
    """One connection, asking about one thing."""

    __slots__ = (
        "_body",
        "_next",
        "_run",
        "_token",
        "_token_mark",
        "_topic",
        "backlog",
        "connection",
        "is_up",
        "pending",
        "source",
    )

    def __init__(self, thing: str, number: int, run: Run) -> None:
        order = run.order
        operation = "get" if order.mode is Mode.GET else "update"
        self._run = run
        self._token = f"{run.id}-{number}-"
        self._token_mark = f'"{self._token}'.encode()
        self._topic = request_topic(own_route(thing), order.shadow, operation)
        epoch = run.epoch if order.is_sequenced else None
        self._body = body_maker(order.mode, SHAPES[order.shape], self._token, epoch)
        self.source = (f"{run.id}-{number}", operation, thing, order.shadow)  # for the history
        self._next = 0
        self.pending: dict[int, Pending] = {}  # by number, the oldest first
        self.backlog: deque[float] = deque()  # planned moments that wait for the window
        self.connection: Wire | None = None
        self.is_up = False

    def offer(self, planned_at: float) -> None:
        """Ask once more: now, or when the window allows."""
        if self.is_up and len(self.pending) < self._run.order.window:
            self._ask(planned_at)
        elif len(self.backlog) < BACKLOG_MAX:
            self.backlog.append(planned_at)
        else:
            self._run.shed += 1

    def repeat_overdue(self, now: float) -> None:
        """Send again what should have been answered by now."""
        if self.is_up:
            for pending in self.pending.values():
                if pending.due_at <= now:
                    self._repeat(pending, now)

    def give_up(self) -> None:
        """Write down what nobody will ever know."""
        for number, pending in self.pending.items():
            self._run.unknown += 1
            self._tell("maybe", number, pending.body)

    # -- what the connection says ---------------------------------------------

    def connected(self) -> None:
        assert self.connection is not None
        self.is_up = True
        self._run.statistics.connected += 1
        self._run.statistics.connects += 1
        self.connection.subscribe((f"{self._topic}/accepted", f"{self._topic}/rejected"))
        now = self._run.clock.elapsed_s()
        for pending in self.pending.values():
            self._repeat(pending, now)
        self.refill()

    def disconnected(self) -> None:
        self.is_up = False
        self._run.statistics.connected -= 1

    def message(self, topic: str, payload: bytes) -> None:
        statistics = self._run.statistics
        statistics.received += 1
        number = self._number(payload)
        if number is None:
            statistics.errors["answer without our token"] += 1
        elif topic.endswith("/accepted"):
            self._on_accepted(number, payload)
        else:
            self._on_rejected(number, payload)

    def _on_accepted(self, number: int, payload: bytes) -> None:
        run = self._run
        pending = self.pending.pop(number, None)
        if run.history is not None:
            self._tell("ok", number, self._body(number), payload)
        if pending is None:
            run.statistics.errors["answered twice"] += 1
            return
        run.statistics.accepted += 1
        run.statistics.latency.add(run.clock.elapsed_s() - pending.planned_at)
        self.refill()

    def _on_rejected(self, number: int, payload: bytes) -> None:
        run = self._run
        code = _ANSWERS.decode(payload).code
        run.statistics.rejected[code] += 1
        pending = self.pending.get(number)
        if pending is None:
            run.statistics.errors["answered twice"] += 1
            return
        self._tell("maybe" if code in {FAILED, UNAVAILABLE} else "fail", number, pending.body, payload)
        if code in _NOT_YET:
            wait_s = full_jitter_s(run.chance, pending.tries, RETRY_BASE_S, RETRY_CAP_S)
            pending.due_at = run.clock.elapsed_s() + wait_s
            return
        del self.pending[number]
        self.refill()

    # -- what is sent ---------------------------------------------------------

    def refill(self) -> None:
        """Use the window: for what was planned, or in a closed loop for the next request."""
        run, window = self._run, self._run.order.window
        while self.backlog and len(self.pending) < window:
            self._ask(self.backlog.popleft())
        if run.order.rate is None and run.is_asking:
            now = run.clock.elapsed_s()
            while len(self.pending) < window:
                self._ask(now)

    def _ask(self, planned_at: float) -> None:
        assert self.connection is not None
        number = self._next = self._next + 1
        body = self._body(number)
        self.pending[number] = Pending(body, planned_at, self._run.clock.elapsed_s() + ANSWER_S)
        self._run.statistics.sent += 1
        self._tell("invoke", number, body)
        self.connection.publish(self._topic, body)

    def _repeat(self, pending: Pending, now: float) -> None:
        assert self.connection is not None
        wait_s = full_jitter_s(self._run.chance, pending.tries, RETRY_BASE_S, RETRY_CAP_S)
        pending.due_at = now + ANSWER_S + wait_s
        pending.tries += 1
        self._run.statistics.repeated += 1
        self.connection.publish(self._topic, pending.body)

    def _tell(self, phase: str, number: int, body: bytes, answer: bytes | None = None) -> None:
        history = self._run.history
        if history is None:
            return
        read = _ANSWERS.decode(answer) if answer is not None else Answer()
        history.add(
            phase,
            self.source,
            f"{self._token}{number}",
            body,
            version=read.version,
            answer=answer,
            code=read.code or None,
        )

    def _number(self, payload: bytes) -> int | None:
        """Return which request is answered; the token stands near the end of every answer."""
        at = payload.rfind(self._token_mark)
        if at < 0:
            return None
        start = at + len(self._token_mark)
        return int(payload[start : payload.index(b'"', start)])
