"""Keep one shadow in step with what a device is. No I/O, no clock: `now` is an argument.

What a client must do (the protocol's rules) and where it is done:

    * subscribe, then get, after connecting ................. ``connected``
    * act on a delta whose version is not lower than the
      highest seen; deltas are cumulative ................... ``_on_delta``
    * report what was taken over at the same path ........... ``_report``
    * keep a request until accepted or rejected, repeat the
      same bytes with full jitter ........................... ``due``
    * carry {epoch, number} so that no old report wins ...... ``_report``

One report is under way at a time. So what the service holds is always known:
it is ``told``, as of the last answer, minus what a later delta ``denied``.
"""

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

from fleet.retry import full_jitter_s
from fleet.statistics import Statistics
from fleet.trees import GONE, UNREADABLE, Leaves, Path, Tree, changes, leaves, patch, same, told_after

ANSWER_S: Final = 10.0  # an answer later than this is taken for lost
RETRY_BASE_S, RETRY_CAP_S = 2.0, 60.0
REFUSAL_PAUSE_S: Final = 60.0  # after a refusal for good: whoever must fix it needs time
FAILURES_MAX: Final = 5  # answers 500 to the same bytes, then they are given up
REPORT_GAP_S: Final = 10.0  # between reports of mere readings

UNAVAILABLE: Final = frozenset({429, 503})  # not now: repeat, for as long as it takes
FAILED, CONFLICT, ABSENT = 500, 409, 404


class Subject(Protocol):
    """What a shadow is about: see `appliances.Appliance` for the promises."""

    @property
    def settings(self) -> Tree: ...

    def obey(self, wish: Tree) -> Tree: ...

    def readings(self) -> Tree: ...


@runtime_checkable
class Guided(Subject, Protocol):
    """A subject that answers in its own time, and must know what the service holds."""

    def document(self, desired: Tree, reported: Tree) -> None:
        """Learn what is wished and what was reported, whenever the document was read."""
        ...

    def pass_time(self, now: float) -> None:
        """Do what is due; seconds since 1970."""
        ...

    def wake_at(self) -> float:
        """Return when something will be due, infinite if nothing."""
        ...


@dataclass(slots=True)
class Request:
    """A message that waits for its answer; ``body`` never changes."""

    operation: str
    token: str
    body: bytes
    floor: int  # highest version known when it was made: a lower answer means a new history
    made_at: float
    due_at: float
    tries: int = 0
    failures: int = 0
    changed: Leaves = field(default_factory=dict)


class Sequence(msgspec.Struct):
    """The pair that orders reports."""

    epoch: int
    number: int


class Message(msgspec.Struct, rename="camel"):
    """What the service sends, as far as a device reads it."""

    state: dict[str, Any] | None = None
    version: int = 0
    client_token: str | None = None
    code: int = 0
    current_sequence: Sequence | None = None


_DECODER: Final = msgspec.json.Decoder(Message)
_ENCODER: Final = msgspec.json.Encoder()


class Keeper:
    """The device's side of one shadow."""

    __slots__ = (
        "_chance",
        "_delta_version",
        "_denied",
        "_epoch",
        "_get",
        "_gets",
        "_highest",
        "_known",
        "_next_report_at",
        "_noticeable",
        "_number",
        "_quiet_until",
        "_read_version",
        "_refused",
        "_report_every_s",
        "_reported_at",
        "_statistics",
        "_subject",
        "_told",
        "_update",
        "_wish_since",
        "facts",
        "shadow",
    )

    def __init__(
        self,
        shadow: str,
        subject: Subject,
        *,
        epoch: int,
        chance: random.Random,
        statistics: Statistics,
        noticeable: Mapping[str, float] | None = None,
        report_every_s: Callable[[], float] | None = None,
    ) -> None:
        self.shadow = shadow
        self.facts: Tree = {}  # reported besides: what the connection knows, not the appliance
        self._subject = subject
        self._epoch, self._number, self._gets = epoch, 0, 0
        self._chance, self._statistics = chance, statistics
        self._noticeable = noticeable or {}
        self._report_every_s = report_every_s
        self._known = False  # was the document read since connecting?
        self._told: Leaves = {}  # what the service holds as reported
        self._denied: dict[Path, int] = {}  # by a delta of this version: the service lacks it
        self._highest = 0  # version seen
        self._delta_version = 0  # of the newest delta
        self._read_version = 0  # of the newest document read
        self._refused: Tree = {}  # of the newest delta: what cannot be taken over, and why
        self._wish_since: float | None = None  # since when a wish is open
        self._get: Request | None = None
        self._update: Request | None = None
        self._quiet_until = self._reported_at = -math.inf
        self._next_report_at = math.inf

    @property
    def in_step(self) -> bool:
        """Whether, as far as the device knows, nothing is left to say or to hear but small readings."""
        left = changes(self._told, self._current())
        return self._known and self._update is None and all(path[-1] in self._noticeable for path in left)

    # -- what happens to it ---------------------------------------------------

    def connected(self, now: float) -> None:
        """Read the document first; what waited for an answer is asked again."""
        self._known = False
        self._gets += 1
        token = f"g{self._epoch}-{self._gets}"
        body = _ENCODER.encode({"clientToken": token})
        self._get = Request("get", token, body, self._highest, now, due_at=now)
        if self._update is not None:
            self._update.due_at = now
        if self._report_every_s is not None:
            # Spread over the period, or a herd that connects together reports together for ever.
            self._next_report_at = now + self._chance.uniform(0, self._report_every_s())

    def answer(self, event: str, payload: bytes, now: float) -> None:
        """Take a message of the service; what it means to say back comes out of ``due``."""
        try:
            message = _DECODER.decode(payload)
        except UNREADABLE:
            self._statistics.errors["undecodable message"] += 1
            return
        match event:
            case "update/delta":
                self._on_delta(message, now)
            case "update/accepted" if self._is(self._update, message):
                self._on_update_accepted(message, now)
            case "update/rejected" if self._is(self._update, message):
                self._on_update_rejected(message, now)
            case "get/accepted" if self._is(self._get, message):
                self._on_document(message, now)
            case "get/rejected" if self._is(self._get, message):
                self._on_get_rejected(message, now)
            case _:
                pass  # somebody else's answer, or one that came twice

    def due(self, now: float) -> Iterator[Request]:
        """Yield what to send now, and count it as sent."""
        self._update = self._update or self._report(now)
        # The get goes first: its answer must not show what the update is about to change.
        for request in (self._get, self._update):
            if request is not None and request.due_at <= now:
                if request.tries:
                    self._statistics.repeated += 1
                else:
                    self._statistics.sent += 1
                request.due_at = now + ANSWER_S + self._jitter_s(request)
                request.tries += 1
                yield request

    def wake_at(self) -> float:
        """Return when ``due`` may have something to send even if nothing happens until then."""
        waiting = [request.due_at for request in (self._get, self._update) if request is not None]
        if self._update is not None or not self._known:
            return min(waiting, default=math.inf)
        return min([*waiting, max(self._next_report_at, self._quiet_until)])

    # -- what the service says ------------------------------------------------

    def _on_delta(self, message: Message, now: float) -> None:
        if message.version < self._highest:
            self._statistics.outdated += 1
            return
        self._take(message.state or {}, message.version, now)

    def _take(self, wish: Tree, version: int, now: float) -> None:
        """Obey; what is now as wished has to be reported, whatever we thought was known."""
        self._highest = self._delta_version = version
        self._refused = self._subject.obey(wish)
        settings = leaves(self._subject.settings)
        for path, value in leaves(wish).items():
            if path in settings and same(settings[path], value):
                self._denied[path] = version
                self._told.pop(path, None)
        if self._denied and self._wish_since is None:
            self._wish_since = now

    def _on_document(self, message: Message, now: float) -> None:
        get, self._get, self._known = self._get, None, True
        assert get is not None
        state, version = message.state or {}, message.version
        if get.floor <= version < self._highest:
            self._told = {}  # a delta overtook it: it no longer says what the service holds
            return
        self._told = leaves(state.get("reported") or {})
        self._denied, self._refused, self._wish_since = {}, {}, None
        if isinstance(self._subject, Guided):
            self._subject.document(state.get("desired") or {}, state.get("reported") or {})
        if not self._read_version:
            # Just started: what was obeyed before the power cut is forgotten here, but not there.
            self._subject.obey(state.get("desired") or {})
        # A version below the floor: the thing was removed and made anew, with a new history.
        self._highest, self._read_version, self._delta_version = version, version, 0
        if delta := state.get("delta"):
            self._take(delta, version, now)

    def _on_get_rejected(self, message: Message, now: float) -> None:
        assert self._get is not None
        self._statistics.rejected[message.code] += 1
        if message.code == ABSENT:
            # No shadow yet: the first report makes it. No thing yet: that report is refused in its
            # turn and tried again after a pause.
            self._get, self._known, self._told = None, True, {}
            return
        pause_s = self._jitter_s(self._get) if message.code in UNAVAILABLE else REFUSAL_PAUSE_S
        self._get.due_at = now + pause_s

    def _on_update_accepted(self, message: Message, now: float) -> None:
        update, self._update = self._update, None
        assert update is not None
        version = message.version
        self._statistics.accepted += 1
        self._statistics.latency.add(now - update.made_at)
        if version < update.floor:
            self.connected(now)  # the thing was removed and made anew: nothing we knew holds
            return
        self._highest = max(self._highest, version)
        self._denied = {path: at for path, at in self._denied.items() if at >= version}
        if version > self._read_version:  # otherwise a replay of what the document has shown already
            self._told = told_after(self._told, update.changed, self._denied)
        if self._delta_version < version:
            self._on_converged(now)

    def _on_converged(self, now: float) -> None:
        """The delta goes before `accepted`: none came, so there is none."""
        self._refused = {}
        if self._wish_since is not None:
            self._statistics.convergence.add(now - self._wish_since)
            self._wish_since = None

    def _on_update_rejected(self, message: Message, now: float) -> None:
        update = self._update
        assert update is not None
        self._statistics.rejected[message.code] += 1
        update.failures += 1
        if message.code in UNAVAILABLE or (message.code == FAILED and update.failures < FAILURES_MAX):
            update.due_at = now + self._jitter_s(update)
            return
        self._update = None  # forgotten; what it said is still untold
        if not (message.code == CONFLICT and self._overtake(message.current_sequence)):
            self._quiet_until = now + REFUSAL_PAUSE_S + self._jitter_s(update)

    # -- what the device says -------------------------------------------------

    def _report(self, now: float) -> Request | None:
        if not self._known or now < self._quiet_until:
            return None
        current = self._current()
        changed = changes(self._told, current)
        if now >= self._next_report_at:
            changed |= leaves(self._subject.readings())  # a sign of life, though nothing changed
        elif not self._is_worth_saying(changed, now):
            return None
        self._number += 1
        token = f"r{self._epoch}-{self._number}"
        body = _ENCODER.encode(
            {
                "state": {"reported": patch(changed)},
                "clientToken": token,
                "sequence": {"epoch": self._epoch, "number": self._number},
            }
        )
        self._reported_at = now
        if self._report_every_s is not None:
            self._next_report_at = now + self._report_every_s()
        return Request("update", token, body, self._highest, now, due_at=now, changed=changed)

    def _current(self) -> Leaves:
        rejected = {"rejected": self._refused} if self._refused else {}
        return leaves({**self._subject.settings, **self._subject.readings(), **self.facts, **rejected})

    def _is_worth_saying(self, changed: Leaves, now: float) -> bool:
        rested = now >= self._reported_at + REPORT_GAP_S
        return any(
            name not in self._noticeable
            or value is GONE
            or (rested and self._is_noticeable((*above, name), value))
            for (*above, name), value in changed.items()
        )

    def _is_noticeable(self, path: Path, value: float) -> bool:
        told = self._told.get(path)
        return not isinstance(told, int | float) or abs(value - told) >= self._noticeable[path[-1]]

    def _overtake(self, current: Sequence | None) -> bool:
        """Begin an epoch above the stored one, or this life of the device would stay mute."""
        if current is None or (current.epoch, current.number) < (self._epoch, self._number):
            return False
        self._epoch, self._number = current.epoch + 1, 0
        return True

    def _jitter_s(self, request: Request) -> float:
        return full_jitter_s(self._chance, request.tries, RETRY_BASE_S, RETRY_CAP_S)

    @staticmethod
    def _is(request: Request | None, message: Message) -> bool:
        return request is not None and request.token == message.client_token
