"""All attacks, and the settings of the service that they are carried out against."""

from typing import Final

from tests.attack import (
    canaries,
    enrolment,
    firmware,
    floods,
    gateways,
    identities,
    images,
    jobs,
    records,
    rights,
    routes,
    sessions,
    tokens,
    topics,
)
from tests.attack.attacks import registered

MODULES: Final = (
    identities,
    topics,
    gateways,
    routes,
    floods,
    rights,
    records,
    sessions,
    enrolment,
    tokens,
    canaries,
    firmware,
    images,
    jobs,
)
"""Importing them registers their attacks."""
ATTACKS: Final = registered()
SETTINGS: Final[dict[str, object]] = {
    "telemetry.traces": "file",
    "telemetry.sample_ratio": 1.0,
    "logs.level": "debug",
}
"""As much is written down as can be, so that what must not be would show."""

LATER: Final[tuple[tuple[str, str, str], ...]] = (
    (
        "B18 to B20, B27, B41",
        "load events, replays, false meter values, webhooks, clocks",
        "programs and events",
    ),
    ("B31", "script in names, CSRF, framing", "pages"),
    (
        "B33, B39, B40",
        "staff browsing, what is not enrolled, resale",
        "an attacker at a running service; `test_door_sensor` and `test_home` show the rules",
    ),
    (
        "B36, B37",
        "look-alike packages, a store open to the network",
        "a build and a second network namespace",
    ),
)
"""Rows of the table without an attack here, each with what has to be there first."""
