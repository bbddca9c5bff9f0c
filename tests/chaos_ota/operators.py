"""The people of a run: one makes a campaign, another approves it; they resume what stops by itself.

All of it over REST, as two persons with second factors: a code each half minute, so it takes its time.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from gnomon.refusals import AccessError, NotProvedError, UnreachableError
from gnomon.rollout import Rollout
from security.policy import Role
from tests.chaos_ota.cast import Group
from tests.system.accounts import Accounts

TRIES_S_MAX: Final = 120.0
PAUSE_S: Final = 1.0
OVER: Final = frozenset({"COMPLETED", "ABORTED"})
PER_HOUR: Final = 60_000
DEADLINE_S: Final = 900
HONEST: Final = frozenset({Group.KEEP, Group.WIPE})
OFF: Final = 1_000_000
"""Nothing counts before so many ended: the thresholds are off."""


def terms(group: Group, release: str, things: list[str], *, hurry: bool) -> dict[str, Any]:
    """Return what is asked for.

    Thresholds are for other tests: here every device must come to its end. Whoever is in a hurry has one
    wave only where devices are honest.
    """
    first_one = [{"devices": 1}, {"percent": 100}]
    own: dict[Group, dict[str, Any]] = {
        Group.KEEP: {"waves": first_one},
        Group.WIPE: {"waves": first_one},
        Group.SICK: {"waves": first_one, "retries": 1, "retry_rolled_back": False},
        Group.TRAP: {"waves": first_one, "retries": 1},
    }
    return {
        "release": release,
        "selector": {"things": things},
        "data": "reset" if group is Group.WIPE else "preserve",
        "per_hour": PER_HOUR,
        "deadline_s": DEADLINE_S,
        "soak_s": 0,
        "retries": 8,
        "retry_rolled_back": True,
        "thresholds": {"least": OFF},
        "waves": [{"percent": 100}],
        **({} if hurry and group in HONEST else own.get(group, {})),
    }


class Operators:
    """Two persons; each call is tried again while the service is away."""

    def __init__(self, accounts: Accounts, *, hurry: bool = False) -> None:
        self._hurry = hurry
        self._accesses = [accounts.access(Role.OPERATOR, number) for number in (1, 2)]
        self._persons = [Rollout(access) for access in self._accesses]
        self._watching = accounts.access(Role.SECURITY)
        self._watcher = Rollout(self._watching)
        self._turns = [threading.Lock(), threading.Lock()]

    def start(self, number: int, group: Group, release: str, things: list[str]) -> str:
        """Have one make a campaign and the other approve it, taking turns; return its id."""
        author, second = number % 2, 1 - number % 2
        body = terms(group, release, things, hurry=self._hurry)
        made: str = self._as(author, lambda one: one.create(body))["id"]
        self._as(author, lambda one: one.submit(made))
        self._as(second, lambda one: one.approve(made))
        return made

    def dry_run(self, release: str) -> int:
        """Return how many devices need the release."""
        made = self._as(0, lambda one: one.create({"release": release}))["id"]
        return int(self._as(0, lambda one: one.dry_run(made))["included"])

    def abort(self, id: str) -> None:
        self._persons[0].abort(id, "chaos")

    def resume(self, number: int, id: str) -> None:
        """Let a campaign go on that stopped by itself: by whoever did not write it."""
        self._as(1 - number % 2, lambda one: one.resume(id, "seen"))

    def look(self, id: str) -> dict[str, Any] | None:
        """Return a campaign as it is; None while the service is away."""
        try:
            return self._watcher.campaign(id)
        except NotProvedError:
            self._watching.forget()
        except AccessError:
            pass
        return None

    def _as(self, person: int, act: Callable[[Rollout], Any]) -> Any:
        with self._turns[person]:
            ends_s = time.monotonic() + TRIES_S_MAX
            while True:
                try:
                    return act(self._persons[person])
                except AccessError as error:
                    if time.monotonic() > ends_s or not isinstance(error, UnreachableError | NotProvedError):
                        raise
                    self._accesses[person].forget()
                    time.sleep(PAUSE_S)
