"""The Provisioning Tool's side of the API: what a representative does in a session, call by call.

One method a call of the specification's table, with nothing decided here: who asks (a person at a terminal, a
scenario that runs by itself) decides what comes next. (spec: han, 5.2 and 5.3)
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from gnomon.access import Access
from provisioning.states import SessionState

Document = dict[str, Any]

LOOK_S: Final = 0.5
"""Between two looks at a session that moves by itself."""
MOVING: Final = frozenset({SessionState.DISCOVERING, SessionState.PROVISIONING})
"""States that somebody else than the representative ends."""


class Tool:
    """Calls the service as one representative."""

    def __init__(self, access: Access, wait: Callable[[float], None]) -> None:
        self._access = access
        self._wait = wait

    def search(self, by: str, value: str, case: str) -> list[Document]:
        """Return who it may be, masked; at most five (steps 4 and 5)."""
        return self._items("POST", "/v1/customer-searches", {"by": by, "value": value, "case": case})

    def verify(self, customer: str, method: str, case: str) -> Document:
        """Record that the caller was verified; return the verification with the accounts that it opens."""
        body = {"customer": customer, "method": method, "outcome": "passed", "case": case}
        return self._call("POST", "/v1/verifications", body)

    def open(self, account: Document, verification: str, case: str, *, take_over: bool = False) -> Document:
        """Open the session of one account's premises (step 6)."""
        body = {
            "premises": account["premises"],
            "account": account["account"],
            "verification": verification,
            "case": case,
            "take_over": take_over,
        }
        return self._call("POST", "/v1/provisioning-sessions", body)

    def session(self, id: str) -> Document:
        """Return the session as it is."""
        return self._call("GET", _path(id))

    def renew_verification(self, id: str, verification: str) -> Document:
        """Go on in a session, days later, under another call's verification."""
        return self._change("PUT", id, "verification", {"verification": verification})

    def discover(self, id: str, grants: Sequence[Document], gateway: str = "") -> Document:
        """Look for equipment; each grant is a device's EUI-64 and the code on its label (step 7)."""
        return self._change("POST", id, "discovery", {"grants": list(grants), "gateway": gateway})

    def stop_discovery(self, id: str) -> Document:
        """Close the window."""
        return self._change("DELETE", id, "discovery")

    def devices(self, id: str) -> Document:
        """Return the devices with state and reason, and how much else was seen."""
        return self._call("GET", _path(id, "devices"))

    def select(self, id: str, devices: Sequence[Document]) -> Document:
        """Note which devices take part, and what the customer calls them (steps 8 to 10)."""
        return self._change("PUT", id, "selection", {"devices": list(devices)})

    def options(self, id: str) -> list[Document]:
        """Return each device with each program: that it fits, or all that speaks against it (step 11)."""
        return self._items("GET", _path(id, "options"))

    def programs(self) -> dict[str, Document]:
        """Return the catalogue by id."""
        return {one["id"]: one for one in self._items("GET", "/v1/programs")}

    def choose(self, id: str, assignments: Sequence[Document]) -> Document:
        """Note the programs of each device (step 11)."""
        return self._change("PUT", id, "programs", {"assignments": list(assignments)})

    def consent(self, id: str, given_by: str, relation: str, pairs: Sequence[Document]) -> Document:
        """Record who said yes to which text, on the telephone (step 9)."""
        body = {"given_by": given_by, "relation": relation, "channel": "phone", "for": list(pairs)}
        return self._change("PUT", id, "consent", body)

    def provision(self, id: str) -> Document:
        """Send (step 12)."""
        return self._change("POST", id, "provision")

    def retry(self, id: str) -> Document:
        """Send again to those that failed or are late."""
        return self._change("POST", id, "retry", {})

    def accept_partial(self, id: str) -> Document:
        """Be content with those that are ready."""
        return self._change("POST", id, "accept-partial")

    def records(self, id: str) -> list[Document]:
        """Return what the customer care system is told (step 14)."""
        return self._items("GET", _path(id, "records"))

    def confirm(self, id: str) -> Document:
        """Note that the customer has been told (step 15)."""
        return self._change("POST", id, "confirm", {"method": "phone"})

    def abort(self, id: str, reason: str) -> Document:
        """End the session."""
        return self._change("POST", id, "abort", {"reason": reason})

    def remedies(self, id: str) -> list[Document]:
        """Return what would help (3.3, 6.1)."""
        return self._items("GET", _path(id, "remedies"))

    def tell(self, id: str, remedies: Sequence[str], answer: str, chosen: str = "") -> Document:
        """Note what the customer was told, and what they said (3.3, 6.2)."""
        body = {"remedies": list(remedies), "answer": answer, "chosen": chosen}
        return self._change("POST", id, "remedy-notice", body)

    def shadow(self, thing: str, shadow: str) -> Document:
        """Return a shadow of a device of the customer who is verified."""
        return self._call("GET", f"/v1/things/{thing}/shadows/{shadow}")

    def pause(self) -> None:
        """Let a moment pass before the next look."""
        self._wait(LOOK_S)

    def wait_while_moving(
        self, id: str, seconds_max: float, look: Callable[[Document], bool] = lambda _: False
    ) -> Document:
        """Return the session once its state is one that waits for people, ``look`` is content, or time is up.

        ``look`` is given the list of devices at each look.
        """
        waited = 0.0
        while True:
            session = self.session(id)
            if session["state"] not in MOVING or look(self.devices(id)) or waited >= seconds_max:
                return session
            self.pause()
            waited += LOOK_S

    def _change(self, method: str, id: str, part: str, body: Document | None = None) -> Document:
        session: Document = self._access.change(method, _path(id, part), body, _path(id))
        return session

    def _items(self, method: str, path: str, body: Document | None = None) -> list[Document]:
        items: list[Document] = self._call(method, path, body)["items"]
        return items

    def _call(self, method: str, path: str, body: Document | None = None) -> Document:
        answer: Document = self._access.request(method, path, body)
        return answer


def _path(id: str, part: str = "") -> str:
    return f"/v1/provisioning-sessions/{id}{'/' if part else ''}{part}"
