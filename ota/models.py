"""What the parts of firmware share: a target of a campaign, and what it went through. Pure values."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ota.states import WIRE_STATUS, ExecutionState, JobStatus

NEVER: Final = 0
"""Stands for a time that has not come."""
ATTEMPTS_MAX: Final = 11
JOB_PREFIX: Final = "c-"
FIRMWARE: Final = "firmware"
CONFIG: Final = "config"
"""Names of shadows."""
_JOB_ID: Final = re.compile(r"c-([0-9a-f]{8})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{12})", re.ASCII)


def job_id(campaign: str) -> str:
    """Return what devices call a campaign: ``c-`` and its UUID without dashes."""
    return JOB_PREFIX + campaign.replace("-", "")


def campaign_of(job: str) -> str | None:
    """Return the id of the campaign that devices call so; None for what is no job of ours."""
    found = _JOB_ID.fullmatch(job)
    return None if found is None else "-".join(found.groups())


def status_of(state: ExecutionState, claimed_at_ms: int) -> JobStatus | None:
    """Return what a device sees of an execution; None for what it does not see at all."""
    if claimed_at_ms and state in {ExecutionState.CONFIRMING, ExecutionState.FAILED}:
        return JobStatus.SUCCEEDED  # a device that has said so need not say it again
    return WIRE_STATUS.get(state)


def execution_id(campaign: str, thing: str) -> str:
    """Return the id of the document of one target."""
    return f"{campaign}:{thing}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try that is over. Times are milliseconds, :data:`NEVER` where it did not come so far."""

    number: int
    state: ExecutionState
    reason: str = ""
    queued_at_ms: int = NEVER
    started_at_ms: int = NEVER
    staged_at_ms: int = NEVER
    held_at_ms: int = NEVER
    go_at_ms: int = NEVER
    ended_at_ms: int = NEVER
    late: bool = False
    """It succeeded after its time was up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """A request that was answered: the same one again within 30 s gets the same answer."""

    token: str
    digest: str
    at_ms: int
    answer: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One target of a campaign and the attempt it is in. Times are milliseconds, :data:`NEVER` = not yet."""

    campaign: str
    thing: str
    wave: int
    """Number of its wave, 0 is the canary."""
    place: int
    """Its place in the order of the campaign: offers are made in this order."""
    proof_index: int
    """Its place in the order's list of names; -1 for one that is not in the order."""
    state: ExecutionState
    time_zone: str = ""
    """Of its premises, as it was when the campaign was made; empty: the campaign's."""
    attempt: int = 1
    """executionNumber, 1 to :data:`ATTEMPTS_MAX`."""
    version: int = 0
    """versionNumber: 1 when queued, one more with each change that a device sees."""
    queued_at_ms: int = NEVER
    started_at_ms: int = NEVER
    """The clock starts: first IN_PROGRESS of this attempt."""
    staged_at_ms: int = NEVER
    held_at_ms: int = NEVER
    """It was first told to wait at the gate: from STAGED to go no clock runs."""
    go_at_ms: int = NEVER
    ended_at_ms: int = NEVER
    updated_at_ms: int = NEVER
    details: Mapping[str, str] = field(default_factory=dict)
    """statusDetails as the device gave them last."""
    reason: str = ""
    how: str = ""
    """Of a success: empty by this job; ``late``, ``on_site``, ``elsewhere``."""
    late: bool = False
    claimed_at_ms: int = NEVER
    """The device said SUCCEEDED."""
    reported_at_ms: int = NEVER
    """Its ``firmware`` shadow said so: the new image, confirmed and healthy."""
    data_checked: bool = False
    """What the order says of its configuration was found to be so (preserve, reset)."""
    boot: int = 0
    """The boot counter that it had reported at go."""
    snapshot: str = ""
    timeout_min: int = 0
    """How long the in-progress timer of the protocol will run once it is started; 0 = it has none."""
    timeout_at_ms: int = NEVER
    """When it is up: fixed once it is started."""
    step_at_ms: int = NEVER
    """The step timer, as the last update set it."""
    retry_at_ms: int = NEVER
    """Not to be offered before."""
    remembered: tuple[Remembered, ...] = ()
    untold: int = 0
    """What its device is still to be told: bits of :class:`ota.executions.Tell`; then it is pending."""
    news: int = 0
    """Counts what there was to be told: so a word that comes late is not taken for a newer one."""
    past: tuple[Attempt, ...] = ()

    @property
    def id(self) -> str:
        """Return the id of its document."""
        return execution_id(self.campaign, self.thing)

    @property
    def job(self) -> str:
        """Return what devices call its campaign."""
        return job_id(self.campaign)

    @property
    def status(self) -> JobStatus | None:
        """Return what its device sees; None for what it does not see at all."""
        return status_of(self.state, self.claimed_at_ms)
