"""Whether premises are ready for a session: the preconditions of scenario 3.2. Pure."""

from collections.abc import Collection, Sequence
from typing import Final

from infra.settings.model import ProvisioningSettings
from registry.gateways import Gateway, GatewayKind
from registry.meters import Meter

METER_NOT_INSTALLED: Final = "METER_NOT_INSTALLED"
AMI_NOT_OPERATIONAL: Final = "AMI_NOT_OPERATIONAL"
METER_NOT_COMMUNICATING: Final = "METER_NOT_COMMUNICATING"
SILENT_MS: Final = 24 * 3_600_000
"""A meter of which nothing was heard for so long does not communicate."""


def failing(
    gateways: Sequence[Gateway], meters: Sequence[Meter], settings: ProvisioningSettings, now_ms: int
) -> tuple[str, ...]:
    """Return everything that is missing; nothing where one way in is ready.

    Premises without any gateway are let in: that nothing connects them is found, and cured, in the session.
    """
    missing = _missing(meters, settings, now_ms)
    by_route = [tuple(code for code in _asked(gateway, settings) if code in missing) for gateway in gateways]
    if not by_route or () in by_route:
        return ()
    return tuple(sorted({code for codes in by_route for code in codes}))


def _asked(gateway: Gateway, settings: ProvisioningSettings) -> Collection[str]:
    if gateway.kind is GatewayKind.METER:
        return settings.preconditions_meter
    return settings.preconditions_other


def _missing(meters: Sequence[Meter], settings: ProvisioningSettings, now_ms: int) -> set[str]:
    installed = [one for one in meters if one.installed_at_ms is not None]
    heard = [
        one
        for one in installed
        if one.comms_seen_at_ms is not None and now_ms - one.comms_seen_at_ms <= SILENT_MS
    ]
    missing = set() if settings.ami_operational else {AMI_NOT_OPERATIONAL}
    if not installed:
        missing.add(METER_NOT_INSTALLED)
    if not heard:
        missing.add(METER_NOT_COMMUNICATING)
    return missing
