"""Who needs a release, and why everybody else does not: each device has at most one reason. Pure.

Of a device that takes no part nothing is told but that it is one of so many. (spec: ota, 9.1)
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ota.campaign import Path
from ota.data import PRESERVE
from ota.errors import OtaError
from ota.manifest import Manifest, version_of
from ota.reports import NOTHING, Report
from registry.catalogue import DeviceModel, HealthSign, Ota, Signatures
from registry.lifecycle import Device
from registry.models import Owner, Standing
from registry.states import Lifecycle

OFFLINE_MS: Final = 7 * 86_400_000
LINK_S_MAX: Final = 180
"""Of the five minutes, what the transfer may take."""
AFR_BYTES_MAX: Final = 4 * 1_024 * 1_024
"""An unmodified FreeRTOS agent keeps its bitmap in 128 bytes, for blocks of 4 KiB."""


class Reason(StrEnum):
    """Why a device is not included, in the order in which they are looked for."""

    NOT_ENROLLED = "NOT_ENROLLED"
    RETIRED = "RETIRED"
    SUSPENDED = "SUSPENDED"
    MODEL = "MODEL"
    HW_CLASS = "HW_CLASS"
    OTA_NONE = "OTA_NONE"
    """It is a target all the same: it has to be replaced."""
    LOCAL_ONLY = "LOCAL_ONLY"
    REMOTE_ONLY = "REMOTE_ONLY"
    UNKNOWN_FIRMWARE = "UNKNOWN_FIRMWARE"
    ALREADY_CURRENT = "ALREADY_CURRENT"
    NEWER = "NEWER"
    COUNTER = "COUNTER"
    FROM_TOO_OLD = "FROM_TOO_OLD"
    DEPENDENCY = "DEPENDENCY"
    SCHEMA = "SCHEMA"
    TOO_LARGE = "TOO_LARGE"
    PINNED = "PINNED"
    OTHER_CAMPAIGN = "OTHER_CAMPAIGN"


class Warning(StrEnum):
    """What people should know of a device that is included."""

    OFFLINE = "offline for more than 7 days"
    SLOW_LINK = "link needs more than 180 s"
    NO_GATE = "no gate: an abort does not stop it once it is verified"
    ONE_SIGNATURE = "protected by one signature only"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What is to be brought, and to whom."""

    manifest: Manifest
    model: str
    """Its id in the catalogue."""
    path: Path = Path.REMOTE
    data: str = PRESERVE
    pinned: Collection[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What is known of a device."""

    device: Device
    standing: Standing | None
    """None: there is no thing of its name."""
    model: DeviceModel | None
    report: Report = NOTHING
    heard_at_ms: int = 0
    """When it last said anything of its firmware."""
    other: frozenset[str] = frozenset()
    """Campaigns that it is an open target of."""
    busy_with: frozenset[str] = frozenset()
    """Those of them that have offered it something."""

    @property
    def hw(self) -> str:
        """Return its hardware class: as it says, else as its registration says."""
        if self.report.hw or self.model is None or self.model.firmware is None:
            return self.report.hw
        return self.model.firmware.class_of(self.device.hw) or ""

    @property
    def in_scope(self) -> bool:
        """Whether the utility may bring it firmware."""
        return takes_part(self.device, self.standing)


def takes_part(device: Device, standing: Standing | None) -> bool:
    """Tell whether a device is the utility's own, or somebody lets it take part."""
    return device.owner is Owner.UTILITY or (standing is not None and standing.thing.taking_part)


_UP_TO_DATE: Final = frozenset({Reason.ALREADY_CURRENT, Reason.NEWER, Reason.COUNTER})
_GONE: Final = frozenset({Lifecycle.DEREGISTERED, Lifecycle.REPLACED, Lifecycle.RETIRED})


def why_not(facts: DeviceFacts, need: Need, campaign: str = "") -> Reason | None:
    """Return the first reason for which a device is not included; None: it needs the release.

    Other targets of ``campaign`` are no reason.
    """
    if not facts.in_scope:
        return Reason.NOT_ENROLLED
    standing, model = facts.standing, facts.model
    if standing is None or is_gone(facts):
        return Reason.RETIRED
    if facts.device.lifecycle is Lifecycle.SUSPENDED or standing.thing.barred:
        return Reason.SUSPENDED
    if facts.device.model != need.model or model is None:
        return Reason.MODEL
    if model.ota is Ota.NONE:
        # No class is known of what takes no firmware; it is known by its model.
        return Reason.OTA_NONE if _may_be_class(facts, need) else Reason.HW_CLASS
    if facts.hw not in need.manifest.hw:
        return Reason.HW_CLASS
    return _by_path(model, need) or _by_firmware(facts, model, need, campaign)


def is_gone(facts: DeviceFacts) -> bool:
    """Tell whether a device is none of ours any more."""
    standing = facts.standing
    return standing is None or standing.thing.revoked_at_ms is not None or facts.device.lifecycle in _GONE


def outlook(facts: DeviceFacts, newest_first: Iterable[tuple[str, Need]]) -> tuple[str, Reason | None]:
    """Return which of some releases a device needs; if none, why it does not get what is newer.

    One that a campaign is about to bring is needed still. No release and no reason: it is up to date.
    """
    hindrance: Reason | None = None
    for release, need in newest_first:
        reason = why_not(facts, need)
        if reason in {None, Reason.OTHER_CAMPAIGN}:
            return release, None
        if reason in _UP_TO_DATE:
            break
        if reason is not Reason.HW_CLASS and hindrance is None:
            hindrance = reason
    return "", hindrance


def warnings_of(facts: DeviceFacts, need: Need, now_ms: int) -> tuple[Warning, ...]:
    """Return what people should know of a device that is included."""
    firmware = facts.model.firmware if facts.model is not None else None
    if firmware is None:
        return ()
    found = (
        (Warning.OFFLINE, need.path is Path.REMOTE and facts.heard_at_ms < now_ms - OFFLINE_MS),
        (Warning.SLOW_LINK, need.manifest.size > firmware.link_bytes_s * LINK_S_MAX),
        (Warning.NO_GATE, not firmware.gate),
        (Warning.ONE_SIGNATURE, firmware.trust is Signatures.AFR),
    )
    return tuple(one for one, holds in found if holds)


def _may_be_class(facts: DeviceFacts, need: Need) -> bool:
    return not facts.hw or facts.hw in need.manifest.hw


def _by_path(model: DeviceModel, need: Need) -> Reason | None:
    if need.path is Path.REMOTE and model.ota is Ota.LOCAL:
        return Reason.LOCAL_ONLY
    if need.path is Path.LOCAL and model.ota is Ota.REMOTE:
        return Reason.REMOTE_ONLY
    return None


def _by_firmware(facts: DeviceFacts, model: DeviceModel, need: Need, campaign: str) -> Reason | None:
    manifest, firmware = need.manifest, model.firmware
    running = running_of(facts)
    if running is None or firmware is None:
        return Reason.UNKNOWN_FIRMWARE
    counter, version = running
    checks = (
        (Reason.ALREADY_CURRENT, facts.report.sha256 == manifest.sha256),
        (Reason.NEWER, counter == manifest.counter and version >= manifest.version),
        (Reason.COUNTER, counter > manifest.counter),
        (Reason.FROM_TOO_OLD, version < manifest.min_from),
        (Reason.DEPENDENCY, _lacks(facts.report.components, manifest.requires)),
        (Reason.SCHEMA, need.data == PRESERVE and manifest.config_schema < facts.report.schema),
        (Reason.TOO_LARGE, _is_too_large(manifest.size, model)),
        (Reason.PINNED, facts.device.id in need.pinned),
        (Reason.OTHER_CAMPAIGN, bool(facts.other - {campaign})),
    )
    return next((reason for reason, holds in checks if holds), None)


def running_of(facts: DeviceFacts) -> tuple[int, int] | None:
    """Return the counter and the version that a device runs; None: nobody knows."""
    by_session = (
        facts.model is not None
        and facts.model.firmware is not None
        and facts.model.firmware.health is HealthSign.SESSION
    )
    text = facts.report.version or (facts.device.fw if by_session else "")
    try:
        return facts.report.counter, version_of(text)
    except (OtaError, ValueError):
        return None


def _lacks(components: Mapping[str, int], requires: Mapping[str, int]) -> bool:
    """Tell whether it says of a component that it is too old; of what it says nothing it judges itself."""
    return any(components.get(name, least) < least for name, least in requires.items())


def _is_too_large(size: int, model: DeviceModel) -> bool:
    firmware = model.firmware
    assert firmware is not None, "looked at before"
    afr = firmware.trust is Signatures.AFR
    return size > firmware.slot_bytes or (afr and size > AFR_BYTES_MAX)
