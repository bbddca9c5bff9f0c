"""A gateway's home area network, the named shadow ``han``: who may join, who is seen, who is attached.

The join window is opened by a wish with a higher number and closes by the gateway's own clock, whether or not
the service is there. For each window the gateway makes a key; what comes sealed to it can be read by nobody
else and, once the window is closed, by nobody at all. Times are seconds since 1970 and come in as arguments.
"""

import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fleet.plan import Boxed
from fleet.trees import Tree

SEEN_MAX: Final = 16
"""Devices in sight that are not attached; the oldest leave first."""
DEVICES_MAX, LOAD_CONTROL_MAX = 10, 8
OPEN, CLOSED, ON, GONE = "open", "closed", "on", "gone"
SUITE: Final = hpke.Suite(hpke.KEM.P256, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_128_GCM)
ANSWER_S: Final = 0.3
"""From a grant to knowing whether the device could join with its key."""

Moved = Callable[[str, str, bool], None]
"""Is told the thing, its EUI-64, and whether this gateway is to speak for it."""


@dataclass(slots=True)
class _Sight:
    """A device that is seen in this window."""

    boxed: Boxed
    at: float
    grant: object = None
    """The id of the grant it was given last."""
    auth: str = ""
    key: bytes = b""
    answers_at: float = math.inf


def grant_info(id: str, eui64: str, until: int) -> bytes:
    """Return what a sealed key is bound to."""
    return f"gnomon-grant{id}{eui64}{until}".encode()


class Network:
    """The subject of the shadow ``han``."""

    def __init__(
        self,
        boxed: Iterable[Boxed] = (),
        *,
        moved: Moved,
        attached: int = 0,
        technology: str = "zigbee-se1",
        devices_max: int = DEVICES_MAX,
    ) -> None:
        self.settings: Tree = {}
        self.net_state = "NORMAL"
        self._boxed = {one.eui64: one for one in boxed}
        self._moved = moved
        self._technology, self._devices_max = technology, devices_max
        self._others = attached  # of the plan: they were attached long ago
        self._seen: dict[str, _Sight] = {}
        self._coming: dict[str, float] = {}
        self._key: ec.EllipticCurvePrivateKey | None = None
        self._closes_at = -math.inf
        self._now = 0.0

    @property
    def attached(self) -> dict[str, str]:
        """Return the EUI-64 of each thing that this gateway speaks for."""
        return {
            thing: entry["eui64"]
            for thing, entry in self.settings.get("attach", {}).items()
            if entry.get("state") == ON
        }

    @property
    def is_open(self) -> bool:
        """Whether devices may join now."""
        return self._key is not None

    def active(self, thing: str) -> bool:
        """Tell whether the service wants this thing to speak through this gateway."""
        return bool(self.settings.get("attach", {}).get(thing, {}).get("active"))

    def obey(self, wish: Tree) -> Tree:
        """Open or close the window, look at grants, attach and detach."""
        if isinstance(window := wish.get("permitJoin"), dict):
            self._window(window)
        for thing, entry in _entries(wish.get("attach")):
            self._attach(thing, entry)
        for eui64, grant in _entries(wish.get("grants")):
            self._grant(eui64, grant)
        return {}

    def readings(self) -> Tree:
        told: Tree = {
            "net": {"state": self.net_state, "tech": self._technology, "channel": 20, "panId": "1A62"},
            "capacity": {
                "devices": self._devices_max,
                "used": self._others + len(self.attached),
                "loadControl": LOAD_CONTROL_MAX,
                "usedLoadControl": sum(self._controls_load(eui64) for eui64 in self.attached.values()),
            },
        }
        if "permitJoin" in self.settings:
            told["permitJoin"] = self.settings["permitJoin"] | {"state": OPEN if self.is_open else CLOSED}
            if self._key is not None:
                point = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
                told["permitJoin"]["sealKey"] = urlsafe_b64encode(point).rstrip(b"=").decode()
        if self._seen:
            told["seen"] = {eui64: _sight(one) for eui64, one in self._seen.items()}
        if attached := self.settings.get("attach"):
            told["attach"] = {
                thing: entry | {"online": entry.get("state") == ON} for thing, entry in attached.items()
            }
        return told

    def document(self, desired: Tree, reported: Tree) -> None:  # noqa: ARG002 - the port's signature
        """Forget attachments that nobody names any more."""
        held, wished = self.settings.get("attach", {}), desired.get("attach", {})
        for thing in [thing for thing in held if thing not in wished]:
            self._detach(thing)
            del held[thing]
        if "permitJoin" not in desired:
            self.settings.pop("permitJoin", None)

    def pass_time(self, now: float) -> None:
        """Let devices come into sight, try granted keys, close the window in time."""
        self._now = now
        if self._key is not None and now >= self._closes_at:
            self._close()
        for eui64 in [eui64 for eui64, at in self._coming.items() if at <= now]:
            del self._coming[eui64]
            self._see(self._boxed[eui64])
        for one in self._seen.values():
            if one.answers_at <= now:
                one.answers_at = math.inf
                one.auth = "ok" if one.key == one.boxed.link_key else "failed"

    def wake_at(self) -> float:
        """Return when :meth:`pass_time` has something to do."""
        waiting = [*self._coming.values(), *(one.answers_at for one in self._seen.values())]
        return min([*waiting, self._closes_at if self.is_open else math.inf])

    # -- the window -------------------------------------------------------------

    def _window(self, wish: Tree) -> None:
        held = self.settings.get("permitJoin", {})
        wished = held | wish
        newer = wished.get("seq", 0) > held.get("seq", 0)
        self.settings["permitJoin"] = wished
        if newer:
            self._close()
        self._closes_at = wished.get("until", 0)
        if self._closes_at <= self._now:
            self._close()  # heard too late, or taken back
        elif newer:
            self._key = ec.generate_private_key(ec.SECP256R1())
            joined = set(self.attached.values())
            self._coming = {
                eui64: self._now + one.appears_s for eui64, one in self._boxed.items() if eui64 not in joined
            }

    def _close(self) -> None:
        self._key = None
        self._seen.clear()
        self._coming.clear()

    def _see(self, boxed: Boxed) -> None:
        while len(self._seen) >= SEEN_MAX:
            del self._seen[min(self._seen, key=lambda eui64: self._seen[eui64].at)]
        self._seen[boxed.eui64] = _Sight(boxed, self._now)

    def _grant(self, eui64: str, grant: Tree) -> None:
        one = self._seen.get(eui64)
        if one is None or self._key is None or one.grant == grant.get("id"):
            return
        one.grant, one.auth = grant.get("id"), ""  # a new code: what came of the last one no longer counts
        try:
            sealed = urlsafe_b64decode(grant["sealed"] + "==")
            info = grant_info(grant["id"], eui64, grant["until"])
            one.key = SUITE.decrypt(sealed, self._key, info=info)
        except (KeyError, TypeError, ValueError, InvalidTag):
            one.key = b"unreadable"
        one.answers_at = self._now + ANSWER_S

    # -- attachments --------------------------------------------------------------

    def _attach(self, thing: str, wish: Tree) -> None:
        held = self.settings.setdefault("attach", {})
        was_on = held.get(thing, {}).get("state") == ON
        entry = held[thing] = held.get(thing, {}) | wish
        if entry.get("state") == ON and not was_on:
            self._seen.pop(entry.get("eui64", ""), None)
            self._moved(thing, entry.get("eui64", ""), True)
        elif entry.get("state") != ON:
            self._detach(thing, was_on=was_on)
        else:
            self._moved(thing, entry.get("eui64", ""), True)  # perhaps another route is the active one

    def _detach(self, thing: str, *, was_on: bool = True) -> None:
        if was_on:
            self._moved(thing, self.settings["attach"][thing].get("eui64", ""), False)

    def _controls_load(self, eui64: str) -> bool:
        return eui64 in self._boxed and self._boxed[eui64].controls_load


def _sight(one: _Sight) -> Tree:
    boxed = one.boxed
    told: Tree = {
        "at": int(one.at),
        "maker": boxed.maker,
        "model": boxed.model,
        "hw": boxed.hw,
        "fw": boxed.fw,
        "cat": boxed.categories,
        "caps": list(boxed.capabilities),
        "rssi": boxed.rssi,
    }
    return told | ({"auth": one.auth} if one.auth else {})


def _entries(tree: object) -> list[tuple[str, Tree]]:
    if not isinstance(tree, dict):
        return []
    return [(name, entry) for name, entry in tree.items() if isinstance(entry, dict)]
