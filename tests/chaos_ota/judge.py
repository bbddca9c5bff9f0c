"""Judges a run: values in, findings out. Pure, and shares no code with ``ota`` or ``fleet``.

J1  no brick: every record is whole, what runs is confirmed and hashes to what the record says
J2  no wrong install: nothing runs, or was ever tried, that was not ordered of this very device
J3  accounting: states add up to targets at every sample, ends never become fewer, and the documents agree
J4  truth: a target succeeded if, and only if, its device runs the image; every campaign came to its end;
    lies were refused for what is wrong with them, honest offers by nobody
J5  abort: all is committed within a planner's tick, and nobody is let go on, or activates, after it
J6  data: what was to be preserved is there, what was to be reset is as the factory made it
J7  every kind of fault struck, and kills struck while devices were at work
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.chaos.judge import proves
from tests.chaos_ota.cast import (
    ABORTED,
    BITTER_POINTS,
    POINTS,
    REFUSED_WITH,
    TRIALS,
    Cut,
    Group,
    Mangling,
    Part,
    State,
)
from tests.chaos_ota.evidence import Device, Evidence, Execution, Line, Record
from tests.chaos_ota.written import Sample

BRICKED = "bricked"
WRONG_INSTALL = "wrong install"
MISCOUNTED = "miscounted"
UNTRUE = "untrue"
UNFINISHED = "unfinished"
ABORT_IGNORED = "abort ignored"
DATA_LOST = "data"
DID_NOT_STRIKE = "did not strike"

TICK_MS: Final = 1_000
"""The planner looks so often."""
RESTART_MS_MAX: Final = 30_000
"""A service that is killed just after it has said yes comes back, and stops what it said it would."""
FINAL: Final = frozenset(
    {
        *("SUCCEEDED", "FAILED", "ROLLED_BACK", "TIMED_OUT", "REJECTED"),
        *("CANCELED", "REMOVED", "SKIPPED", "REPLACEMENT_REQUIRED"),
    }
)
NEVER_AGAIN: Final = frozenset({"SUCCEEDED", "REJECTED", "CANCELED", "REMOVED", "SKIPPED"})
"""Ends from which nobody is tried again: of these there are never fewer."""
AT_REST: Final = frozenset(State) - {State.LOADING, State.LOADED, State.VERIFIED, State.ACTIVATING}
REFUSALS: Final = ("manifest_", "order_", "key_")
"""How reasons begin after which nobody is tried again."""
SAMPLES_MIN: Final = 10
WANTED: Final = (
    *(f"power.{Cut(state, how).name}" for state, how in (*POINTS, *BITTER_POINTS)),
    *(f"block.{one}" for one in Mangling),
    *(f"lie.{one}" for one in REFUSED_WITH),
    *(f"abort.{one}" for one in ABORTED),
    *("lost.up", "lost.down", "kill.service", "kill.broker"),
)
"""Every kind of fault that a run must have."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was promised, and is not so."""

    kind: str
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: {self.text}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came out."""

    devices: int
    samples: int
    ends: dict[str, dict[str, int]]
    struck: dict[str, int]
    cancels_ms: dict[str, int]
    findings: tuple[Finding, ...]

    def count(self, kind: str) -> int:
        return sum(1 for one in self.findings if one.kind == kind)

    def summary(self) -> dict[str, object]:
        """Return the figures of a line of JSON."""
        kinds = Counter(one.kind for one in self.findings)
        named = (BRICKED, WRONG_INSTALL, MISCOUNTED)
        return {
            "devices": self.devices,
            **{name.replace(" ", "_"): kinds[name] for name in named},
            "other_findings": {kind: count for kind, count in kinds.items() if kind not in named},
            "ends": self.ends,
            "samples": self.samples,
            "canceled_within_ms": self.cancels_ms,
            "struck": self.struck,
            "proves": proves(self.devices, "device"),
        }


def judge(evidence: Evidence) -> Verdict:
    """Judge a run."""
    case = _Case(evidence)
    struck = _struck(evidence)
    findings = [
        *(one for part in evidence.cast.parts for one in case.device(part)),
        *_accounting(evidence),
        *(one for group in Group for one in case.campaign(group)),
        *_unstruck(struck),
    ]
    ends: dict[str, Counter[str]] = {}
    for execution in evidence.executions:
        ends.setdefault(case.groups[execution.campaign], Counter())[execution.state] += 1
    return Verdict(
        devices=len(evidence.cast.parts),
        samples=len(evidence.samples),
        ends={group: dict(sorted(counts.items())) for group, counts in ends.items()},
        struck=dict(sorted(struck.items())),
        cancels_ms={group: case.cancels_ms(group) for group in ABORTED},
        findings=tuple(findings),
    )


class _Case:
    """The evidence, sorted by device and by campaign."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._executions = {(one.campaign, one.thing): one for one in evidence.executions}
        self._lines: dict[str, list[Line]] = {}
        for line in evidence.lines:
            self._lines.setdefault(line.thing, []).append(line)
        self._campaigns = {group: evidence.campaign_of(group) for group in Group}
        self.groups = {id: str(group) for group, id in self._campaigns.items()}

    # ------------------------------------------------------------------ one device

    def device(self, part: Part) -> Iterator[Finding]:
        device = self._evidence.devices.get(part.thing)
        execution = self._executions.get((self._campaigns[part.group], part.thing))
        if device is None or device.record is None:
            yield Finding(BRICKED, part.thing, "nothing of its record is whole")
            return
        yield from self._bricked(part, device, device.record)
        yield from self._wrong(part, device.record, execution)
        if execution is None:
            yield Finding(UNTRUE, part.thing, "its campaign knows nothing of it")
            return
        yield from self._untrue(part, device.record, execution)
        yield from self._data(part, device, device.record, execution)

    def _bricked(self, part: Part, device: Device, record: Record) -> Iterator[Finding]:
        image = record.images.get(record.running)
        if image is None or device.sha256.get(record.running) != image.sha256:
            yield Finding(BRICKED, part.thing, f"slot {record.running} does not hold the image that runs")
        elif image.sha256 not in {self._evidence.run.factory_sha256, self._evidence.run.image_sha256}:
            yield Finding(BRICKED, part.thing, f"{image.sha256} is nobody's image")
        lines = self._lines.get(part.thing, ())
        if record.state not in AT_REST:
            yield Finding(UNFINISHED, part.thing, f"it never came to rest: {State(record.state).name}")
        if any(line.trials > TRIALS for line in lines):
            yield Finding(BRICKED, part.thing, "its new image is tried again and again")
        if any(line.event == "dead" for line in lines):
            yield Finding(BRICKED, part.thing, "its boot loader found nothing to start")

    def _wrong(self, part: Part, record: Record, execution: Execution | None) -> Iterator[Finding]:
        """Of what runs, and of what was ever tried: it was ordered of this device, and nobody lied."""
        run, image = self._evidence.run, record.images.get(record.running)
        runs_new = image is not None and image.sha256 != run.factory_sha256
        tried = [line for line in self._lines.get(part.thing, ()) if _is_trial(line)]
        manifests = {line.manifest for line in tried} | ({image.manifest} if image and runs_new else set())
        if manifests - {run.manifest_sha256}:
            yield Finding(WRONG_INSTALL, part.thing, f"by a manifest that was never released ({part.lie})")
        elif manifests and part.lie is not None:
            yield Finding(WRONG_INSTALL, part.thing, f"it believed {part.lie}")
        elif manifests and (execution is None or not execution.had_go):
            yield Finding(WRONG_INSTALL, part.thing, "nobody has let it go on")
        wanted = run.counter if runs_new else 1
        if record.counter != wanted:
            yield Finding(WRONG_INSTALL, part.thing, f"its counter is {record.counter}, not {wanted}")

    def _untrue(self, part: Part, record: Record, execution: Execution) -> Iterator[Finding]:
        image, run = record.images.get(record.running), self._evidence.run
        runs_new = image is not None and image.sha256 == run.image_sha256
        if execution.state not in FINAL:
            yield Finding(UNFINISHED, part.thing, f"it is {execution.state}")
        elif (execution.state == "SUCCEEDED") != runs_new and not (runs_new and execution.late):
            is_so = "runs" if runs_new else "does not run"
            yield Finding(
                UNTRUE, part.thing, f"it {is_so} the image, and is {execution.state} ({execution.reason})"
            )
        refused = execution.state == "REJECTED" or execution.reason.startswith(REFUSALS)
        if part.lie is None and refused:
            yield Finding(UNTRUE, part.thing, f"it refused an honest offer: {execution.reason}")
        if part.lie is not None and execution.reason != REFUSED_WITH[part.lie]:
            yield Finding(UNTRUE, part.thing, f"{part.lie} ended with {execution.reason!r}")

    def _data(self, part: Part, device: Device, record: Record, execution: Execution) -> Iterator[Finding]:
        wanted = dict(self._evidence.run.factory_config)
        image = record.images.get(record.running)
        has_new = image is not None and image.sha256 == self._evidence.run.image_sha256
        if part.group is not Group.WIPE or not has_new:
            wanted |= {"set": wanted["set"] | {"night": part.night}}
        if device.config != wanted:
            yield Finding(DATA_LOST, part.thing, f"{device.config} is not {wanted}")

    # ------------------------------------------------------------------ one campaign

    def campaign(self, group: Group) -> Iterator[Finding]:
        kept = self._evidence.campaigns.get(self._campaigns[group])
        wanted = "ABORTED" if group in ABORTED else "COMPLETED"
        if kept is None or kept.state != wanted:
            state = "never begun" if kept is None else kept.state
            yield Finding(UNFINISHED, group, f"the campaign is {state}, not {wanted}")
        if group in ABORTED:
            yield from self._abort(group)

    def _abort(self, group: Group) -> Iterator[Finding]:
        act = next((one for one in self._evidence.acts if (one.act, one.group) == ("abort", group)), None)
        if act is None:
            yield Finding(DID_NOT_STRIKE, group, "it was not aborted")
            return
        limit_ms = TICK_MS if group is Group.STOP else RESTART_MS_MAX
        ends_ms = act.until + TICK_MS
        for one in self._of(group):
            if one.state == "CANCELED" and one.ended_at_ms > act.until + limit_ms:
                late_ms = one.ended_at_ms - act.until
                yield Finding(ABORT_IGNORED, one.thing, f"canceled {late_ms} ms after the abort")
            if one.go_at_ms > ends_ms:
                yield Finding(ABORT_IGNORED, one.thing, f"let go on {one.go_at_ms - act.until} ms after it")
            if one.state == "CANCELED" and any(map(_is_activation, self._lines.get(one.thing, ()))):
                yield Finding(ABORT_IGNORED, one.thing, "canceled, and it activated")
            if one.state != "CANCELED" and one.state in FINAL and not one.had_go:
                yield from self._ended_before(one, act.until)

    def _ended_before(self, one: Execution, abort_ms: int) -> Iterator[Finding]:
        if one.ended_at_ms > abort_ms + TICK_MS:
            yield Finding(ABORT_IGNORED, one.thing, f"it was to be canceled, and is {one.state}")

    def cancels_ms(self, group: Group) -> int:
        """Return how long after the answer the last target was canceled."""
        act = next((one for one in self._evidence.acts if (one.act, one.group) == ("abort", group)), None)
        ended = [one.ended_at_ms for one in self._of(group) if one.state == "CANCELED"]
        return max(ended, default=0) - act.until if act is not None and ended else 0

    def _of(self, group: Group) -> list[Execution]:
        return [one for one in self._evidence.executions if one.campaign == self._campaigns[group]]


def _is_trial(line: Line) -> bool:
    """Tell whether it says that a new image was started."""
    return line.event == "record" and line.state == State.ACTIVATING and line.trials > 0


def _is_activation(line: Line) -> bool:
    return line.event == "record" and line.state == State.ACTIVATING


# ---------------------------------------------------------------------------- accounting


def _accounting(evidence: Evidence) -> Iterator[Finding]:
    sizes = Counter(str(part.group) for part in evidence.cast.parts)
    last: dict[str, Sample] = {}
    for sample in evidence.samples:
        if sum(sample.counts.values()) != sizes[sample.group] or sample.targets != sizes[sample.group]:
            yield Finding(
                MISCOUNTED, sample.group, f"{sample.counts} of {sample.targets} do not add up, at {sample.t}"
            )
        before = last[sample.group].counts if sample.group in last else {}
        for end in sorted(NEVER_AGAIN):
            if sample.counts.get(end, 0) < before.get(end, 0):
                yield Finding(MISCOUNTED, sample.group, f"there are fewer {end} at {sample.t}")
        last[sample.group] = sample
    yield from _final_counts(evidence, last)
    if evidence.miscounts:
        yield Finding(MISCOUNTED, "the service", f"it found {evidence.miscounts} wrong counts itself")
    if len(evidence.samples) < SAMPLES_MIN:
        yield Finding(DID_NOT_STRIKE, "samples", f"only {len(evidence.samples)}")


def _final_counts(evidence: Evidence, last: dict[str, Sample]) -> Iterator[Finding]:
    """Compare what was shown last with the documents, and those with who was meant."""
    for group in Group:
        id = evidence.campaign_of(group)
        documents = [one for one in evidence.executions if one.campaign == id]
        meant = sorted(part.thing for part in evidence.cast.of(group))
        if sorted(one.thing for one in documents) != meant:
            yield Finding(MISCOUNTED, group, f"{len(documents)} documents for {len(meant)} targets")
        counted = Counter(one.state for one in documents if one.state in FINAL)
        shown = last[group].counts if group in last else {}
        ends = {state: count for state, count in shown.items() if state in FINAL and count}
        if ends != counted:
            yield Finding(MISCOUNTED, group, f"shown are {ends}, stored are {dict(counted)}")


# ---------------------------------------------------------------------------- did it happen


def _struck(evidence: Evidence) -> Counter[str]:
    """Count what befell devices, service and broker."""
    struck = Counter({line.name: line.count for line in evidence.lines if line.event == "struck"})
    for act in evidence.acts:
        if act.act == "kill" and act.active:
            struck[f"kill.{act.note}"] += 1
    refused = {(line.thing, line.reason) for line in evidence.lines if line.end}
    for part in evidence.cast.parts:
        if part.lie is not None and (part.thing, REFUSED_WITH[part.lie]) in refused:
            struck[f"lie.{part.lie}"] += 1
        if part.ailment is not None:
            struck[f"ailment.{part.ailment}"] += 1
    for group in ABORTED:
        id = evidence.campaign_of(group)
        canceled = sum(1 for one in evidence.executions if one.campaign == id and one.state == "CANCELED")
        struck[f"abort.{group}"] += canceled
    return struck


def _unstruck(struck: Counter[str]) -> Iterator[Finding]:
    for name in WANTED:
        if not struck[name]:
            yield Finding(DID_NOT_STRIKE, name, "a fault that never happened proves nothing")
