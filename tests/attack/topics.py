"""Attacks by topics: what a thing may write, read, retain, and leave behind. (B2, B3, B24, B25)"""

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final

from tests.attack import wire
from tests.attack.attacks import Score, Size, attack
from tests.attack.field import SETTLED_S, Field, happens
from tests.attack.sessions import talking
from tests.system.mqtt import Message, connected, shadow_topic, tree_topic

WISH: Final = b'{"state": {"desired": {"forged": true}, "reported": {"forged": true}}}'
FOREIGN_MAX: Final = 3
KICKED_S_MAX: Final = 2.0
LAST_WORDS: Final = b'{"state": {"reported": {"gone": 1}}}'
SHADOWS: Final = ("@classic", "config", "program")

KINDS: Final[dict[str, Callable[[str, str], str]]] = {
    "update": lambda _, victim: f"{shadow_topic(victim)}/update",
    "get": lambda _, victim: f"{shadow_topic(victim)}/get",
    "delete": lambda _, victim: f"{shadow_topic(victim)}/delete",
    "named update": lambda _, victim: f"{shadow_topic(victim, 'config')}/update",
    "named delete": lambda _, victim: f"{shadow_topic(victim, 'program')}/delete",
    "forged accepted": lambda _, victim: f"{shadow_topic(victim)}/update/accepted",
    "forged delta": lambda _, victim: f"{shadow_topic(victim)}/update/delta",
    "forged answer to itself": lambda self, _: f"{shadow_topic(self)}/update/delta",
    "another's tree": lambda _, victim: f"{tree_topic(victim, 'up', victim)}/update",
    "down in another's tree": lambda _, victim: f"{tree_topic(victim, 'down', victim)}/update/delta",
    "its own tree, not attached": lambda self, victim: f"{tree_topic(self, 'up', victim)}/update",
    "its own tree, a named shadow": lambda self, victim: f"{tree_topic(self, 'up', victim, 'config')}/update",
}
"""Twelve kinds of topics, by who publishes and whom it is meant to hit."""
AUDITED: Final = 2
"""The last two kinds are the intruder's own topics: the broker lets them pass, and only we say no."""


@attack("B2", "publish for another thing", at_least=Size(2_000, 200))
def foreign_publishes(field: Field, score: Score) -> None:
    """Every thing of a house publishes on twelve kinds of topics for every other one."""
    gnomon = field.gnomon
    devices, gateways = field.things(field.size(10, 3)), field.things(field.size(4, 2), "gateway")
    everybody = [*devices, *gateways]
    for name in everybody:
        gnomon.desire(name, {"n": 1})
    pairs = list(itertools.permutations(everybody, 2))
    with field.connected(everybody) as victims:
        for thing in victims:
            thing.subscribe(f"{shadow_topic(thing.name)}/+/+", f"gnomon/gateways/{thing.name}/down/#")
            thing.wait_on(f"{shadow_topic(thing.name)}/update/delta")
        time.sleep(SETTLED_S)
        for thing in victims:
            thing.forget()
        senders = {thing.name: thing for thing in victims}
        before = field.versions(everybody, SHADOWS)
        for one, victim in pairs:
            senders[one].publish_all([(topic(one, victim), WISH) for topic in KINDS.values()])
            score.attempts("", len(KINDS), 0)
        time.sleep(SETTLED_S)
        changed = [
            name for name, version in field.versions(everybody, SHADOWS).items() if version != before[name]
        ]
        score.attempts(f"changed: {changed}", 0, len(changed))
        for thing in victims:
            foreign = [one.topic for one in thing.received if not _is_own(one, thing.name)]
            score.attempts(f"{thing.name} got {foreign[:3]}", 0, len(foreign))
        own = victims[0].report({"own": 1})
        score.honest("each may write its own", works=own["state"]["reported"] == {"own": 1})
    ours = AUDITED * len(pairs)
    refused = field.refusals_written(ours, lambda row: row["via"] == "mqtt" and row["actor"] in everybody)
    score.must(f"the audit counts the {ours} tries that reach us (it has {refused})", held=refused == ours)
    score.measure(pairs=len(pairs), kinds=len(KINDS), changes=len(changed), audited=refused)


def _is_own(message: Message, own: str) -> bool:
    """Tell whether we said this, and to whom it is for: a refusal, or its own wish once more."""
    refusal = message.topic.startswith(f"gnomon/gateways/{own}/down/") and message.topic.endswith("/rejected")
    # What is not known to have arrived is said again, at any time.
    wish = message.topic == f"{shadow_topic(own)}/update/delta" and b"forged" not in message.payload
    return refusal or wish


def spying(victim: str, gateway: str) -> tuple[str, ...]:
    """Return twenty filters that would bring others' messages to whoever may read them."""
    return (
        "#",
        "+/#",
        "$aws/#",
        "$aws/things/#",
        "$aws/things/+/shadow/#",
        "$aws/things/+/shadow/update",
        "$aws/things/+/shadow/update/+",
        "$aws/things/+/shadow/name/+/update/delta",
        f"$aws/things/{victim}/#",
        f"{shadow_topic(victim)}/update/accepted",
        f"{shadow_topic(victim)}/update/documents",
        "$share/group/$aws/things/+/shadow/#",
        f"$share/group/{shadow_topic(victim)}/update/+",
        "gnomon/#",
        "gnomon/gateways/+/up/#",
        f"gnomon/gateways/{gateway}/down/#",
        "$SYS/#",
        "$SYS/broker/log/#",
        "$CONTROL/#",
        "$CONTROL/dynamic-security/v1/response",
    )


@attack("B3", "wildcard, $share, $SYS and $CONTROL subscriptions", at_least=40)
def spying_subscriptions(field: Field, score: Score) -> None:
    """Subscribe to what is not one's own, while others are told much; nothing of it may come."""
    gnomon, mark = field.gnomon, f"mark-{field.rng.getrandbits(40):x}"
    gateway, lamp = gnomon.new("gateway"), gnomon.new(has_certificate=False)
    gnomon.attach(gateway, lamp)
    kicked = 0
    victims = field.things(3)
    filters = spying(victims[0], gateway)
    with talking(field, victims, pause_s=0.003, says=mark) as talkers:
        gnomon.desire(lamp, {"told": mark})
        for filter, level in itertools.product(filters, (wire.V311, wire.V5)):
            heard, closed = listen(field, gnomon.new(), filter, level)
            kicked += closed
            score.attempt(f"{filter} brought {heard[:80]!r}", succeeded=mark.encode() in heard)
        told = sum(len(talker.thing.received) for talker in talkers)
        score.must("who is spied on does not notice", held=all(one.thing.connections == 1 for one in talkers))
    tries = 2 * len(filters)
    score.must(f"who subscribes to that is thrown off ({kicked} of {tries} were)", held=kicked == tries)
    _again_and_again(field, score, filters)
    honest = gnomon.new()
    delta = f"{shadow_topic(honest)}/update/delta"
    heard, _ = listen(field, honest, delta, wire.V311, lambda: gnomon.desire(honest, {"told": mark}))
    score.honest("one's own comes in the same way", works=mark.encode() in heard)
    score.measure(filters=len(filters), told_meanwhile=told, kicked=kicked)


def listen(
    field: Field, name: str, filter: str, level: int, then: Callable[[], object] = tuple
) -> tuple[bytes, bool]:
    """Subscribe and return all bytes that come, and whether the connection was closed."""
    heard = b""
    with wire.session(field.gnomon, name, level=level) as connection:
        connection.sendall(wire.subscribe_packet(filter, level=level))
        connection.settimeout(KICKED_S_MAX)
        then()
        try:
            while chunk := connection.recv(65_536):
                heard += chunk
        except TimeoutError:
            return heard, False
        except OSError:
            pass  # an end without a goodbye is an end
        return heard, True


def _again_and_again(field: Field, score: Score, filters: Sequence[str]) -> None:
    """Come back and do it again: the fourth time it is put into quarantine."""
    gnomon, spy = field.gnomon, field.gnomon.new()
    for filter in filters[: FOREIGN_MAX + 1]:
        with suppress(OSError, AssertionError), wire.session(gnomon, spy) as connection:
            connection.sendall(wire.subscribe_packet(filter))
            time.sleep(0.2)
    suspended = happens(lambda: bool(gnomon.http.get(f"/v1/things/{spy}").json().get("suspended_at")), 3)
    score.must("who does it again and again is put into quarantine", held=suspended)
    noted = field.refusals_written(1, lambda row: row["actor"] == spy)
    score.must("the audit counts it", held=noted > 0)


@attack("B24", "retained poison", at_least=Size(40, 12))
def retained_poison(field: Field, score: Score) -> None:
    """Leave retained messages wherever one can, for whoever subscribes later: us above all."""
    gnomon = field.gnomon
    one, victim = field.things(2)
    gateway = gnomon.new("gateway")
    topics = [topic(one, victim) for topic in KINDS.values()] + [
        f"{shadow_topic(one)}/update",
        f"{shadow_topic(one)}/get",
        f"{shadow_topic(one, 'config')}/update",
        f"{tree_topic(gateway, 'up', victim)}/update",
    ]
    names, dropped = (one, victim), gnomon.metric('gnomon_messages_dropped_total{reason="retained"}')
    before = field.versions(names, SHADOWS)
    with connected(gnomon, one) as poisoner, connected(gnomon, gateway) as relay:
        for round in range(field.size(3, 1)):
            for topic in topics:
                (relay if topic.startswith(f"gnomon/gateways/{gateway}") else poisoner).publish(
                    topic, WISH + b" " * round, retain=True
                )
                score.attempts("", 1, 0)
    time.sleep(SETTLED_S)
    _nothing_applied(field, score, names, before, "at once")
    with connected(gnomon, victim) as late, connected(gnomon, one) as same:
        late.subscribe(
            f"{shadow_topic(victim)}/+/+", f"gnomon/gateways/{victim}/down/#", "#", "$aws/things/#"
        )
        same.subscribe(f"{shadow_topic(one)}/#")
        time.sleep(SETTLED_S)
        got = [message.topic for message in (*late.received, *same.received)]
        score.attempts(f"delivered: {got[:3]}", 1, len(got))
    dropped = gnomon.metric('gnomon_messages_dropped_total{reason="retained"}') - dropped
    if not field.quick:
        gnomon.stop()
        gnomon.start()
        time.sleep(SETTLED_S)
        _nothing_applied(field, score, names, before, "after a new start")
    with connected(gnomon, one) as honest:
        honest.listen()
        score.honest("the same without retain is applied", works=honest.report({"n": 1})["version"] == 1)
    score.measure(topics=len(topics), dropped=dropped)


def _nothing_applied(
    field: Field, score: Score, names: Iterable[str], before: dict[str, int], when: str
) -> None:
    after = field.versions(list(names), SHADOWS)
    changed = [name for name, version in after.items() if version != before[name]]
    score.attempts(f"applied {when}: {changed}", 1, len(changed))


@attack("B25", "a will on a foreign topic, and a huge one", at_least=24)
def foreign_wills(field: Field, score: Score) -> None:
    """Leave a last will for others, and die."""
    gnomon = field.gnomon
    one, victim = field.things(2)
    before = field.versions([victim], SHADOWS)
    with connected(gnomon, victim) as honest:
        honest.subscribe(f"{shadow_topic(victim)}/+/+", f"gnomon/gateways/{victim}/down/#")
        for level in (wire.V311, wire.V5):
            for topic in KINDS.values():
                wire.die(gnomon, one, (topic(one, victim), WISH), level)
                score.attempts("", 1, 0)
        huge = (f"{shadow_topic(one)}/update", b'{"state": {"reported": {"x": "%s"}}}' % (b"x" * 60_000))
        wire.die(gnomon, one, huge, wire.V311)
        time.sleep(SETTLED_S)
        score.attempts(f"the victim got {honest.topics()[:3]}", 0, len(honest.received))
    changed = [name for name, version in field.versions([victim], SHADOWS).items() if version != before[name]]
    score.attempts(f"changed: {changed}", 0, len(changed))
    score.attempt("a huge will is applied", succeeded=field.version(one) > 0)
    wire.die(gnomon, one, (f"{shadow_topic(one)}/update", LAST_WORDS), wire.V311)
    score.honest("a will for oneself is applied", works=happens(lambda: field.version(one) == 1, 5))
    score.measure(changes=len(changed))
