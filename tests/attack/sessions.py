"""Attacks by a session that should not be: two holders of one key, one that was revoked. (B8, B25, B38)"""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from tests.attack import joining, wire
from tests.attack.attacks import Score, Size, attack
from tests.attack.field import SETTLED_S, Bystander, Field, happens, percentile
from tests.system.child import Gnomon
from tests.system.mqtt import Thing, connected, shadow_topic, tree_topic

TAKEOVERS_MAX: Final = 3
CONNECTIONS_MAX: Final = 60
WATCHED_S_MAX: Final = 3.0
SILENCE_S_MAX: Final = 2.0
REPORT: Final = b'{"state": {"reported": {"n": 1}}}'
QUARANTINE: Final = "thing.suspend"


def is_suspended(gnomon: Gnomon, name: str) -> bool:
    return bool(gnomon.http.get(f"/v1/things/{name}").json().get("suspended_at"))


@attack("B8", "a cloned key, two live sessions", at_least=Size(12, 6))
def cloned_key(field: Field, score: Score) -> None:
    """Two holders of one key throw each other off; above three times in ten minutes it is quarantined."""
    for clone in field.things(field.size(3, 1)):
        _two_holders(field, score, clone)
    _a_few_are_forgiven(field, score)


def _two_holders(field: Field, score: Score, clone: str) -> None:
    gnomon = field.gnomon
    with Bystander(gnomon) as bystander, ExitStack() as both:
        for _ in range(TAKEOVERS_MAX + 2):
            both.enter_context(wire.session(gnomon, clone))
            time.sleep(0.05)
        noticed = happens(lambda: is_suspended(gnomon, clone), WATCHED_S_MAX)
        score.attempts(f"{clone} goes on in two hands", TAKEOVERS_MAX + 2, int(not noticed))
        for _ in range(3):
            _say(gnomon, clone)
            score.attempt("a clone is believed", succeeded=field.version(clone) > 0)
    score.must("nobody else notices", held=bystander.undisturbed)
    rows = field.audit(lambda row: row["target"] == f"thing/{clone}")
    score.must("the audit says so", held=any(row["action"] == QUARANTINE for row in rows))
    score.must("the log alarms", held=_alarmed(gnomon, clone))


def _a_few_are_forgiven(field: Field, score: Score) -> None:
    """A device that comes back before its old session is gone is no clone."""
    gnomon, honest = field.gnomon, field.gnomon.new()
    with ExitStack() as both:
        for _ in range(TAKEOVERS_MAX):
            both.enter_context(wire.session(gnomon, honest))
            time.sleep(0.05)
    with connected(gnomon, honest) as device:
        device.listen()
        works = device.report({"n": 1})["version"] == 1 and not is_suspended(gnomon, honest)
        score.honest("a device that reconnects a few times goes on", works=works)


def _say(gnomon: Gnomon, name: str) -> None:
    """Publish a report as best one can: a thing that is sent away may not even get that far."""
    try:
        with wire.session(gnomon, name) as connection:
            connection.sendall(wire.publish_packet(f"{shadow_topic(name)}/update", REPORT))
            time.sleep(0.1)
    except (OSError, AssertionError):
        return


def _alarmed(gnomon: Gnomon, name: str) -> bool:
    return any("thing_quarantined" in line and name in line for line in gnomon.log_text().splitlines())


@attack("B25/flap", "a will spoken again and again", at_least=Size(62, 62))
def flapping(field: Field, score: Score) -> None:
    """Come, leave a will, and break off, more often than any honest device does."""
    gnomon, flapper, honest = field.gnomon, field.gnomon.new(), field.gnomon.new()
    topic = f"{shadow_topic(flapper)}/update"
    with Bystander(gnomon) as bystander:
        for _ in range(CONNECTIONS_MAX + 2):
            try:
                wire.die(gnomon, flapper, (topic, REPORT), wire.V311)
            except (OSError, AssertionError):
                break  # it is sent away already
        noticed = happens(lambda: is_suspended(gnomon, flapper), WATCHED_S_MAX)
        score.attempts("it flaps on", CONNECTIONS_MAX + 2, int(not noticed))
    score.must("the log alarms", held=_alarmed(gnomon, flapper))
    score.must("nobody else notices", held=bystander.undisturbed)
    for _ in range(CONNECTIONS_MAX // 3):
        wire.die(gnomon, honest, (f"{shadow_topic(honest)}/update", REPORT), wire.V311)
    time.sleep(SETTLED_S)
    score.honest("who comes back a few times goes on", works=not is_suspended(gnomon, honest))


# ---------------------------------------------------------------------- revocation


@dataclass(slots=True)
class Talker:
    """A device that goes on reporting, whatever is done to it, and notes what was accepted."""

    thing: Thing
    accepted_s: list[float] = field(default_factory=list)

    @property
    def last_s(self) -> float:
        """When its last report was accepted."""
        topic = f"{shadow_topic(self.thing.name)}/update/accepted"
        return max((one.at_s for one in self.thing.received if one.topic == topic), default=0.0)


@contextmanager
def talking(field: Field, names: list[str], pause_s: float = 0.05, says: str = "x") -> Iterator[list[Talker]]:
    """Connect devices that report as long as the block lasts, and wait for no answer."""
    over = threading.Event()
    with field.connected(names) as things:
        talkers = [Talker(thing) for thing in things]
        for thing in things:
            thing.listen()

        said = says.encode()

        def talk() -> None:
            for number in count():
                for talker in talkers:
                    body = b'{"state": {"reported": {"n": %d}}, "clientToken": "%s"}' % (number, said)
                    talker.thing.send(f"{shadow_topic(talker.thing.name)}/update", body)
                if over.wait(pause_s):
                    return

        thread = threading.Thread(target=talk, name="talkers", daemon=True)
        thread.start()
        yield talkers
        over.set()
        thread.join(5)


@attack("B38", "a revoked device keeps its session", at_least=Size(100, 10))
def revoked_session(field: Field, score: Score) -> None:
    """Devices that report all the time are revoked; measured is when the last word of each was accepted."""
    gnomon = field.gnomon
    # They have joined as devices do: only what was issued is on the revocation list.
    victims = [joining.enrolled(field)[0] for _ in range(field.size(100, 10))]
    others = field.things(field.size(5, 3))
    silent_s: list[float] = []
    with talking(field, [*victims, *others]) as talkers:
        happens(lambda: all(talker.last_s for talker in talkers), 20)
        revoked_at = {name: _revoke(gnomon, name) for name in victims}
        time.sleep(SILENCE_S_MAX + 0.5)
        ended = time.monotonic()
        by_name = {talker.thing.name: talker for talker in talkers}
        for name in victims:
            silent_s.append(max(0.0, by_name[name].last_s - revoked_at[name]))
            score.attempt(f"{name} is still there", succeeded=by_name[name].thing.is_connected)
        score.honest("others go on", works=all(ended - by_name[name].last_s < 1.0 for name in others))
        score.must(
            "others are not disturbed", held=all(by_name[name].thing.connections == 1 for name in others)
        )
    p99_s = percentile(silent_s, 0.99)
    score.attempt(f"the last word comes {p99_s:.2f} s after (p99)", succeeded=p99_s > SILENCE_S_MAX)
    _after_that(field, score, victims)
    score.measure(
        revoked=len(victims), p99_ms=round(p99_s * 1_000), p50_ms=round(percentile(silent_s, 0.5) * 1_000)
    )


def _revoke(gnomon: Gnomon, name: str) -> float:
    """Revoke a thing; return when it was asked."""
    began = time.monotonic()
    answer = gnomon.http.post(f"/v1/things/{name}/revoke")
    assert answer.status_code == 200, answer.text
    return began


def _after_that(field: Field, score: Score, victims: list[str]) -> None:
    """Come back, and be spoken for by a gateway: nothing of it is believed."""
    gnomon = field.gnomon
    versions = field.versions(victims[:5])
    for name in victims[:5]:
        _say(gnomon, name)
    changed = [name for name, version in field.versions(victims[:5]).items() if version != versions[name]]
    score.attempts(f"believed when they came back: {changed}", 5, len(changed))
    name, files = joining.enrolled(field)
    score.honest("before, TLS lets it in", works=wire.greet(gnomon, files).let_in)
    _revoke(gnomon, name)
    score.attempt("TLS lets it in after that", succeeded=wire.greet(gnomon, files).let_in)
    home: dict[str, Any] = {"premises": f"home-{gnomon.new()}"}
    gateway, lamp = gnomon.new("gateway", **home), gnomon.new(has_certificate=False, **home)
    gnomon.attach(gateway, lamp)
    with connected(gnomon, gateway) as relay:
        relay.subscribe(f"gnomon/gateways/{gateway}/down/#")
        before = relay.ask("update", {"state": {"reported": {"n": 1}}}, tree=gateway, thing=lamp)
        score.honest("before, its gateway speaks for it", works=before.topic.endswith("/accepted"))
        _revoke(gnomon, lamp)
        after = relay.ask("update", {"state": {"reported": {"n": 2}}}, tree=gateway, thing=lamp)
        score.attempt("its gateway still speaks for it", succeeded=after.topic.endswith("/accepted"))
        assert after.topic.startswith(tree_topic(gateway, "down", lamp)), after.topic
