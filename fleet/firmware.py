"""A device's side of firmware over the air: messages and time in, messages and restarts out. No I/O.

    0 none ─► 1 loading ─► 3 loaded ─► 5 verified ─gate─► 7 activating ═restart═► 7 trial ─► 8 activated
                 │            │           │ canceled                                 │
                 ▼            ▼           ▼                                          ▼
            2 load failed  4 bad image  0 none                               6 the old image, again

The job is the order, the shadow ``firmware`` is the fact: it is report only. What must survive a power cut
is written before the step it announces (`boot`); what is here besides is memory, and may be lost at any
moment: a :class:`~fleet.flash.PowerCutError` leaves any method, and whoever holds the flash starts the
device again by making a new machine from it. Nothing is installed but what `offers` lets through.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from cryptography import x509

from fleet.boot import FileStatus, Image, boot, config_digest, sound
from fleet.flash import Flash
from fleet.jobs import (
    NEXT,
    Execution,
    JobAnswer,
    JobMessage,
    StreamAnswer,
    job_topic,
    read_block,
    read_message,
    read_refusal,
    stream_topic,
    write_get,
)
from fleet.keyring import Keyring
from fleet.loading import IMAGE, Load, Outcome, Pool
from fleet.makes import Make
from fleet.offers import FAILED, MODES, SUCCEEDED, Checked, Refusal, examine, keys_named, once_more
from fleet.reports import FACTS, Progress, ReportAnswer, config_report, firmware_report, read_answer
from fleet.requests import Requests
from fleet.topics import Answer, Route, request_topic
from fleet.trees import UNREADABLE, Tree
from ota.manifest import DataMode
from ota.verification import Keys

FIRMWARE, CONFIG = "firmware", "config"  # shadows
QUIET_LOOK_S: Final = 5.0
"""How often it is looked whether something still keeps the device from starting again."""
HOLD_S, HOLD_SPREAD = 10.0, 0.1
DEADLINE_PRESTAGED_S: Final = 86_400
PROGRESS_EVERY_BLOCKS: Final = 64
REFUSED_PAUSE_S: Final = 60.0

JOB, REPORT, CONFIG_REPORT = "job", "report", "config"  # kinds of requests
KEY_UNKNOWN: Final = "key_unknown"
QUEUED: Final = "QUEUED"
IN_PROGRESS: Final = "IN_PROGRESS"
PRESERVE: Final = MODES[DataMode.PRESERVE]
NOT_NOW: Final = frozenset({"RequestThrottled", "InternalError"})
REPEATED: Final = frozenset({429, 500, 503})
CONFLICT: Final = 409
COMING: Final = frozenset({FileStatus.LOADING, FileStatus.LOADED, FileStatus.VERIFIED})
Then = Callable[[JobMessage, bool, float], None]


class Board(Protocol):
    """What the machine needs of the device around it."""

    def config(self) -> Tree:
        """Return the operating configuration as it is now."""
        ...

    def load(self, config: Tree) -> None:
        """Work by this configuration from now on."""
        ...

    def may_restart(self) -> bool:
        """Whether no event runs, and none starts within two minutes."""
        ...


@dataclass(frozen=True, slots=True)
class Faults:
    """What is wrong with a device, or with the new image on it."""

    boot_loop: bool = False
    self_test: bool = False
    deaf: bool = False
    """The new image never reaches the service."""
    config_damage: bool = False
    """The new image ruins its copy of the configuration."""
    wrong_mode: bool = False
    """The new image keeps what it should reset, and the other way round."""
    claims_nothing: bool = False
    reports_nothing: bool = False


SOUND: Final = Faults()


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a device shares with its fleet, and how it takes part."""

    keys: Keys = field(default_factory=dict)
    """Whose signatures it is told to believe."""
    roots: Sequence[x509.Certificate] = ()
    """Those that vouch for key lists: with any, it believes these lists and nobody else."""
    epoch: int = 0
    """Of its reports: rises with each start of the fleet."""
    faults: Faults = SOUND
    pool: Pool | None = None
    """Equal blocks of many devices are held once."""
    sparing: bool = False
    """It reports only facts, and no progress."""
    by_http: bool = False
    """It has a way to fetch images over HTTP, where the job names an address."""


@dataclass(frozen=True, slots=True)
class Download:
    """An image that is to be fetched over HTTP."""

    url: str
    sha256: str
    size: int


class Firmware:
    """One device's firmware from one start to the next."""

    __slots__ = (
        "_board",
        "_chance",
        "_checked",
        "_confirm_by",
        "_epoch",
        "_gate_at",
        "_load",
        "_load_by",
        "_make",
        "_name",
        "_number",
        "_offered",
        "_requests",
        "_ring",
        "_route",
        "_server_s",
        "_setting",
        "_since",
        "_start_at",
        "_store",
        "_then",
        "_version",
        "fails",
        "restart",
        "slot",
        "unavailable",
    )

    def __init__(
        self,
        name: str,
        make: Make,
        flash: Flash,
        board: Board,
        now: float,
        *,
        chance: random.Random,
        setting: Setting,
    ) -> None:
        """Start the device: the boot loader first, then the self-test of what it chose."""
        self._name, self._make, self._board = name, make, board
        self._chance, self._setting = chance, setting
        self._store, self.slot = boot(flash)
        self.restart = False
        """The device is about to start again; nothing else happens before."""
        record = self._store.record
        self._requests = Requests(f"f{record.boots}-", chance)
        self._then: Then | None = None
        self._route: Route | None = None
        self._epoch, self._number = setting.epoch + record.boots, 0
        self._checked: Checked | None = None
        self._ring = Keyring(flash.keys, setting.keys, setting.roots, chance)
        self._offered: Execution | None = None
        """What waits for the key list that it names."""
        self._load: Load | None = None
        self._version = self._server_s = self.fails = self.unavailable = 0
        self._since = now
        self._start_at = self._gate_at = self._confirm_by = self._load_by = math.inf
        if self.is_trial:
            self._try_out(now)
        board.load(self._store.config(self.slot))

    # -- what others may know ---------------------------------------------------

    @property
    def state(self) -> FileStatus:
        """Return where the image of the present job is."""
        return self._store.record.state

    @property
    def reason(self) -> str:
        """Return why the last job ended badly; empty if it did not."""
        return self._store.record.reason

    @property
    def image(self) -> Image:
        """Return what is running, confirmed or on trial."""
        image = self._store.record.images[self.slot]
        assert image is not None, "what runs is an image"
        return image

    @property
    def is_trial(self) -> bool:
        """Whether the running image is not yet confirmed."""
        return self.slot != self._store.record.running

    @property
    def settled(self) -> bool:
        """Whether nothing is under way and everything was answered."""
        record = self._store.record
        busy = record.state in COMING or self.is_trial or self.restart or math.isfinite(self._start_at)
        busy = busy or self._offered is not None
        return not busy and not record.end and not len(self._requests)

    @property
    def download(self) -> Download | None:
        """Return what is to be fetched over HTTP now; None while there is nothing."""
        load, checked = self._load, self._checked
        if load is None or checked is None or load.file != IMAGE or not self._setting.by_http:
            return None
        advice, image = checked.advice, checked.image
        return Download(advice.http, image.sha256, image.size) if advice.http else None

    def feed(self, now: float, fetched: Download, data: bytes) -> None:
        """Take a whole image as it was fetched; one that is no longer wanted is thrown away."""
        if self._load is not None and fetched == self.download:
            self._on_load(self._load, self._load.feed(data, now), now)

    def keep_config(self) -> None:
        """Write the configuration down as it is now; what changes on trial are wishes, and come again."""
        if self.is_trial:
            return
        config = self._board.config()
        if config_digest(config) != config_digest(self._store.config(self.slot)):
            self._store.write_config(self.slot, config)

    # -- what happens to it -----------------------------------------------------

    def connected(self, now: float, route: Route) -> None:
        """Speak by this route; what waited for an answer is asked again."""
        self._route = route
        self._requests.again(now)
        self._ring.again(now)
        if self._load is not None:
            self._load.again(now)
        self._report(now)
        if self.is_trial or self._setting.sparing:  # otherwise it was reported when it changed
            self._report_config(now)
        if self.is_trial:
            return
        if self._store.record.end:
            self._tell_end(now)
        elif not math.isfinite(self._start_at):
            self._look(now)

    def disconnected(self) -> None:
        """Keep what waits for an answer."""
        self._route = None

    def take(self, now: float, answer: Answer | JobAnswer | StreamAnswer, payload: bytes) -> None:
        """Take a message for this device."""
        if self.restart or self._is_deaf:
            return
        match answer:
            case StreamAnswer():
                self._on_stream(answer, payload, now)
            case JobAnswer():
                self._on_jobs(answer, payload, now)
            case Answer():
                self._on_shadow(answer, payload, now)

    def tick(self, now: float) -> None:
        """Do what is due."""
        if self.restart:
            return
        if self._ring.given_up(now):
            self._go_on(now, in_the_dark=True)
        if now >= self._confirm_by:
            self._fall_back("health_timeout", now)
        elif now >= self._load_by:
            self._finish(FileStatus.LOAD_FAILED, FAILED, "deadline", now)
        elif now >= self._start_at:
            self._start_at = math.inf
            body = {"statusDetails": {"fs": _fs(FileStatus.LOADING)}}
            self._ask(now, "", "start-next", body, self._on_started)
        elif now >= self._gate_at:
            self._try_gate(now)

    def due(self, now: float) -> Iterator[tuple[str, bytes]]:
        """Yield topics and payloads to send now."""
        route = self._route
        if route is None or self.restart or self._is_deaf:
            return
        yield from self._requests.due(now, route)
        if (asked := self._ring.ask(now)) is not None:
            yield stream_topic(route, self._ring.stream), write_get(asked)
        load, checked = self._load, self._checked
        if load is None or checked is None or self.download is not None:
            return
        if (asked := load.ask(now)) is not None:
            yield stream_topic(route, checked.stream), write_get(asked)

    def wake_at(self) -> float:
        """Return when ``tick`` or ``due`` have something to do if nothing happens before."""
        at = min(self._confirm_by, self._load_by, self._start_at, self._gate_at)
        if self._route is None or self._is_deaf:
            return at
        at = min(at, self._ring.wake_at)
        if self._load is not None and self.download is None:
            at = min(at, self._load.wake_at)
        return min(at, self._requests.wake_at())

    # -- jobs: what is to be done -------------------------------------------------

    def _ask(self, now: float, job: str, operation: str, body: dict[str, Any], then: Then) -> None:
        self._then = then
        self._requests.ask(JOB, now, lambda route: job_topic(route, job, operation), body)

    def _look(self, now: float) -> None:
        self._ask(now, NEXT, "get", {}, self._on_next)

    def _on_jobs(self, answer: JobAnswer, payload: bytes, now: float) -> None:
        try:
            message = read_message(payload)
        except UNREADABLE:
            return
        self._server_s = max(self._server_s, message.timestamp)
        accepted = answer.outcome == "accepted"
        if answer.operation == "notify-next":
            self._on_push(message.execution, now)
        elif not accepted and message.code in NOT_NOW and self._then != self._on_gate:
            self._requests.postpone(JOB, message.client_token, now, message.retry_after)
        elif not accepted and self._then == self._on_next:
            # Whoever may not ask has not been told that there is nothing: a gateway may be attached again.
            self._requests.postpone(JOB, message.client_token, now, REFUSED_PAUSE_S)
        elif self._requests.answered(JOB, message.client_token):
            then, self._then = self._then, None
            assert then is not None, "whoever asks knows what to do with the answer"
            then(message, accepted, now)

    def _on_push(self, execution: Execution | None, now: float) -> None:
        """Look what is next now. While an image is on trial, or an end untold, that comes later anyway."""
        record = self._store.record
        if self.is_trial or record.end or self._then == self._on_next:
            return
        if execution is not None and execution.job_id == record.job and record.state in COMING:
            return
        if execution is None or record.state in COMING or JOB in self._requests or self._has_ended(execution):
            self._look(now)  # a push may come late
        else:
            self._consider(execution, now)

    def _on_next(self, message: JobMessage, _accepted: bool, now: float) -> None:
        self._consider(message.execution, now)

    def _consider(self, execution: Execution | None, now: float) -> None:
        """Check a job, by the keys that it names; what was loaded for another one is thrown away."""
        before, self._offered = self._store.record, None
        if before.state in COMING and (execution is None or execution.job_id != before.job):
            self._abandon(now)
        over = execution is not None and self._has_ended(execution) and execution.status != QUEUED
        if execution is None or over:
            self._ring.stop()
            return
        if self._ring.wants(keys_named(execution), now):
            self._offered = execution
        else:
            self._examine(execution, now)

    def _go_on(self, now: float, *, in_the_dark: bool = False) -> None:
        """Check the job that waited for a key list, by whatever is held now."""
        execution, self._offered = self._offered, None
        if execution is not None:
            self._examine(execution, now, in_the_dark=in_the_dark)

    def _examine(self, execution: Execution, now: float, *, in_the_dark: bool = False) -> None:
        """Take a job, or refuse it; ``in_the_dark``: nobody answered when it was asked whose keys count."""
        record = self._store.record
        keys = self._ring.keys(max(int(now), record.floor))
        found = examine(execution, self._name, self._make, record, keys, int(now))
        if isinstance(found, Refusal) and in_the_dark and found.code == KEY_UNKNOWN:
            # That is the link's fault and not the job's, which would be refused for ever.
            self._ask(now + REFUSED_PAUSE_S, NEXT, "get", {}, self._on_next)
            return
        if isinstance(found, Refusal):
            self._finish(found.state, found.end, found.code, now, execution)
            return
        if record.state in COMING and record.candidate != found.image:
            self._abandon(now)
        self._checked = found
        waits = execution.status != IN_PROGRESS
        self._start_at = now + (self._chance.uniform(0, found.advice.jitter_s) if waits else 0.0)

    def _has_ended(self, execution: Execution) -> bool:
        """Whether its end was told. One that waits all the same was taken back meanwhile: nobody heard it."""
        record = self._store.record
        was_ours = (execution.job_id, execution.execution_number) == (record.job, record.attempt)
        return was_ours and record.state not in COMING

    def _on_started(self, message: JobMessage, accepted: bool, now: float) -> None:
        execution, checked = message.execution, self._checked
        if not accepted or execution is None or checked is None or execution.job_id != checked.job:
            self._look(now)
            return
        self._version = execution.version_number
        self._begin(checked, execution.execution_number, now)

    # -- states 1 to 5: loading ---------------------------------------------------

    def _begin(self, checked: Checked, attempt: int, now: float) -> None:
        """Begin to load, or go on where a power cut, or an earlier attempt, left off."""
        record, advice = self._store.record, checked.advice
        job = record.where(
            job=checked.job, attempt=attempt, reason="", end="", data=checked.data, confirm_s=advice.confirm_s
        )
        self._load_by = now + (DEADLINE_PRESTAGED_S if advice.prestage else advice.deadline_s)
        if record.state in COMING:
            if job != record:
                self._store.write(job)
        else:
            self._store.write(
                job.with_candidate(checked.image).where(state=FileStatus.LOADING, bits=b"", trials=0)
            )
            self._store.flash.slots[job.other].erase()
            self._since = now
            self._report_progress(now)
        if self.state is not FileStatus.LOADING:
            self._loaded(now)
        elif self._load is None:  # otherwise it goes on, and keeps waiting if it was told to
            self._load = Load(checked, self._store, self._chance, self._setting.pool)

    def _on_key_list(self, event: str, payload: bytes, now: float) -> None:
        block = read_block(payload)
        if event == "rejected":
            is_over = self._ring.refused(is_missing=read_refusal(payload) == "ResourceNotFound")
        else:
            is_over = block is not None and self._ring.take(block.p, max(int(now), self._store.record.floor))
        if is_over:
            self._go_on(now)

    def _on_stream(self, answer: StreamAnswer, payload: bytes, now: float) -> None:
        if answer.stream == self._ring.stream:
            self._on_key_list(answer.event, payload, now)
            return
        checked, load = self._checked, self._load
        if checked is None or load is None or answer.stream != checked.stream:
            return
        if answer.event == "rejected":
            load.refused(now)
            # Not now, or because the job is no longer ours: then it is time to look.
            if read_refusal(payload) == "ResourceNotFound" and JOB not in self._requests:
                self._look(now)
        elif (block := read_block(payload)) is not None:
            self._on_load(load, load.take(block, now), now)

    def _on_load(self, load: Load, outcome: Outcome, now: float) -> None:
        match outcome:
            case Outcome.GOES_ON:
                pass
            case Outcome.SAVED:
                if load.count % PROGRESS_EVERY_BLOCKS == 0:
                    self._say_progress(now, receive=f"{load.count}/{self._total}")
            case Outcome.COMPLETE:
                self._load = None
                self._count(load)
                self._enter(FileStatus.LOADED, now, bits=load.packed)
                self._loaded(now)
            case Outcome.BAD_LEAVES:
                self._finish(FileStatus.LOAD_FAILED, FAILED, "leaves", now)
            case Outcome.BAD_BLOCK:
                self._finish(FileStatus.LOAD_FAILED, FAILED, "block_hash", now)

    def _loaded(self, now: float) -> None:
        """Read the slot back from flash (V16), then wait for the moment to activate."""
        record = self._store.record
        self._load_by = math.inf
        if record.state is FileStatus.LOADED:
            if not sound(self._store.flash, record.other, record.candidate):
                self._finish(FileStatus.SIGNATURE_FAILED, FAILED, "image_hash", now)
                return
            self._enter(FileStatus.VERIFIED, now)
        self._gate_at = now
        assert self._checked is not None
        if self._checked.advice.activate_at > now:
            self._say_progress(now)

    def _abandon(self, now: float) -> None:
        """Nobody wants it any more: throw away what was loaded."""
        self._stop_loading()
        self._enter(FileStatus.NONE, now, bits=b"", job="")
        self._store.flash.slots[self._store.record.other].erase()

    def _stop_loading(self) -> None:
        if self._load is not None:
            self._count(self._load)
        self._load = self._checked = None
        self._requests.drop(JOB)
        self._start_at = self._gate_at = self._load_by = math.inf

    # -- state 5: the gate ----------------------------------------------------------

    def _try_gate(self, now: float) -> None:
        """Activate only at the right moment, after V17, and after the service's go."""
        checked = self._checked
        assert checked is not None, "what waits at the gate was checked since the last start"
        self._gate_at = math.inf
        if now < checked.advice.activate_at or not self._board.may_restart():
            self._gate_at = max(now + QUIET_LOOK_S, checked.advice.activate_at)
            return
        refusal = once_more(checked, self._store.record, int(now))
        if refusal is not None:  # V17
            self._finish(FileStatus.NONE, FAILED, refusal.code, now)
            return
        body: dict[str, Any] = {"status": IN_PROGRESS, "executionNumber": self._store.record.attempt}
        if self._make.gate:
            body |= {"statusDetails": {"fs": _fs(FileStatus.VERIFIED), "gate": "ask"}}
            if self._version:
                body["expectedVersion"] = self._version
            self._ask(now, checked.job, "update", body, self._on_gate)
        else:
            body["statusDetails"] = {"fs": _fs(FileStatus.ACTIVATING)}
            self._ask(now, checked.job, "update", body, self._on_ungated)

    def _on_gate(self, message: JobMessage, accepted: bool, now: float) -> None:
        state = message.execution_state
        if accepted and state is not None and state.status_details.get("gate") == "go":
            self._activate(now)
        elif message.code == "VersionMismatch" and state is not None:
            self._version = state.version_number
            self._gate_at = now
        elif accepted or message.code in NOT_NOW:
            wait_s = message.retry_after or HOLD_S
            self._gate_at = now + wait_s * self._chance.uniform(1 - HOLD_SPREAD, 1 + HOLD_SPREAD)
        elif state is not None and state.status == IN_PROGRESS:
            self._finish(FileStatus.NONE, FAILED, "gate", now)  # never
        else:
            self._abandon(now)
            self._look(now)

    def _on_ungated(self, _message: JobMessage, accepted: bool, now: float) -> None:
        if accepted:
            self._activate(now)
        else:
            self._abandon(now)
            self._look(now)

    def _activate(self, now: float) -> None:
        """Give the new image a copy of the configuration, mark its slot for trial, start again."""
        record = self._store.record
        candidate = record.candidate
        assert candidate is not None
        self.keep_config()
        preserve = (record.data == PRESERVE) != self._setting.faults.wrong_mode
        config = self._make.factory_defaults(candidate.schema)
        if preserve:
            config |= self._board.config()
        self._store.write_config(record.other, config)
        self._enter(FileStatus.ACTIVATING, now, digest=config_digest(config), trials=0)
        self.restart = True

    # -- states 6 to 8: the trial and its end ----------------------------------------

    def _try_out(self, now: float) -> None:
        """Test the new image by itself, before anybody hears of it."""
        record, faults = self._store.record, self._setting.faults
        if faults.boot_loop:
            self.restart = True  # the watchdog
            return
        if faults.config_damage:
            self._store.write_config(self.slot, {})
        if faults.self_test:
            self._fall_back("self_test", now)
        elif config_digest(self._store.config(self.slot)) != record.digest:
            self._fall_back("preserve_failed", now)
        else:
            self._confirm_by = now + record.confirm_s

    def _fall_back(self, reason: str, now: float) -> None:
        """Start the old image again: it, and its configuration, were not touched."""
        self._confirm_by = math.inf
        self._enter(FileStatus.ACTIVATION_FAILED, now, reason=reason, end=FAILED)
        self.restart = True

    def _confirm(self, now: float) -> None:
        """The service knows that the new image is well: from now on it is the one that runs (V19)."""
        record = self._store.record
        old, image = record.running, self.image
        self._confirm_by = math.inf
        self._enter(
            FileStatus.ACTIVATED,
            now,
            running=self.slot,
            counter=max(record.counter, image.counter),
            floor=max(record.floor, image.issued),
            end=SUCCEEDED,
        )
        self._store.flash.configs[old].erase()
        self._report(now)
        self._tell_end(now)

    @property
    def _is_deaf(self) -> bool:
        return self._setting.faults.deaf and self.is_trial

    # -- the end of a job ------------------------------------------------------------

    def _finish(
        self, state: FileStatus, end: str, reason: str, now: float, execution: Execution | None = None
    ) -> None:
        """End a job before anything was activated, and say why until it is answered."""
        record = self._store.record
        was_coming = record.state in COMING
        job = {} if execution is None else {"job": execution.job_id, "attempt": execution.execution_number}
        self._stop_loading()
        self._enter(state, now, reason=reason, end=end, data="", bits=b"", **job)
        if was_coming:
            self._store.flash.slots[record.other].erase()
        self._tell_end(now)

    def _tell_end(self, now: float) -> None:
        record = self._store.record
        if self._setting.faults.claims_nothing and record.end == SUCCEEDED:
            return
        details = {"fs": _fs(record.state)}
        if record.reason:
            details["reason"] = record.reason
        if record.state is FileStatus.ACTIVATED:
            details |= {"config": config_digest(self._board.config())}
            if record.data:
                details["data"] = record.data
        body = {"status": record.end, "statusDetails": details, "executionNumber": record.attempt}
        self._ask(now, record.job, "update", body, self._on_end)

    def _on_end(self, _message: JobMessage, _accepted: bool, now: float) -> None:
        """Accepted, or there is nothing more to say about it: either way it is over. What is next?"""
        record = self._store.record
        # The service's clock is believed after a success only: nobody else may push the floor up (V19).
        seen_s = self._server_s if record.state is FileStatus.ACTIVATED else 0
        self._store.write(record.where(end="", floor=max(record.floor, seen_s)))
        self._look(now)

    def _say_progress(self, now: float, **details: str) -> None:
        """Tell how far it is, if nothing more important waits for its answer."""
        if self._setting.sparing or JOB in self._requests:
            return
        record = self._store.record
        body = {
            "status": IN_PROGRESS,
            "statusDetails": {"fs": _fs(record.state), **details},
            "executionNumber": record.attempt,
        }
        self._ask(now, record.job, "update", body, self._on_progress)

    def _on_progress(self, message: JobMessage, accepted: bool, now: float) -> None:
        if message.execution_state is not None:
            self._version = message.execution_state.version_number
        if not accepted and self.state in COMING:
            self._look(now)

    # -- the shadow ``firmware`` -------------------------------------------------------

    def _enter(self, state: FileStatus, now: float, **changes: object) -> None:
        """Write down a new state, then report it."""
        self._store.write(self._store.record.where(state=state, **changes))
        self._since = now
        self._report_progress(now)

    def _report_progress(self, now: float) -> None:
        if not self._setting.sparing or self.state in FACTS:
            self._report(now)

    def _report(self, now: float) -> None:
        if self._setting.faults.reports_nothing or self._route is None:
            return  # it reports when it is connected
        self._number += 1
        sequence = {"epoch": self._epoch, "number": self._number}
        body = {"state": {"reported": self._facts()}, "sequence": sequence}
        self._requests.ask(REPORT, now, lambda route: request_topic(route, FIRMWARE, "update"), body)

    def _facts(self) -> Tree:
        record, load = self._store.record, self._load
        loaded = record.have.bit_count() if load is None else load.count
        progress = Progress(loaded, self._total, self.fails, self.unavailable, self._since)
        return firmware_report(self._make.hw, record, self.slot, self.image, progress)

    def _report_config(self, now: float) -> None:
        before = self._store.config(self._store.record.running)
        body = {"state": {"reported": config_report(before, self._board.config())}}
        self._requests.ask(CONFIG_REPORT, now, lambda route: request_topic(route, CONFIG, "update"), body)

    def _on_shadow(self, answer: Answer, payload: bytes, now: float) -> None:
        """Healthy is what the service has heard of: both reports of a trial must be accepted."""
        if not answer.event.startswith("update/") or answer.event == "update/delta":
            return
        message = read_answer(payload)
        kind = REPORT if answer.shadow == FIRMWARE else CONFIG_REPORT
        if answer.event == "update/rejected":
            self._on_report_refused(kind, message, now)
        elif self._requests.answered(kind, message.client_token) and self.is_trial:
            waits = REPORT in self._requests or CONFIG_REPORT in self._requests
            if not waits:
                self._confirm(now)

    def _on_report_refused(self, kind: str, message: ReportAnswer, now: float) -> None:
        if message.code == CONFLICT and message.current_sequence is not None and kind == REPORT:
            if self._requests.answered(kind, message.client_token):
                self._epoch, self._number = message.current_sequence.epoch + 1, 0
                self._report(now)
            return
        pause_s = 0.0 if message.code in REPEATED else REFUSED_PAUSE_S
        self._requests.postpone(kind, message.client_token, now, pause_s)

    # -- small things --------------------------------------------------------------------

    def _count(self, load: Load) -> None:
        self.fails += load.fails
        self.unavailable += load.unavailable

    @property
    def _total(self) -> int:
        candidate = self._store.record.candidate
        return 0 if candidate is None else candidate.blocks


def _fs(state: FileStatus) -> str:
    return str(int(state))
