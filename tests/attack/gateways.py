"""Attacks by a gateway: on things of others, on things that are not there, on its own answers. (B7)"""

import time
from functools import partial
from itertools import product
from typing import Any, Final

from tests.attack.attacks import Score, Size, attack
from tests.attack.field import SETTLED_S, Field
from tests.system.mqtt import Message, Thing, connected, tree_topic

ROGUE_REPORT: Final = {"state": {"reported": {"forged": 1}}}
OPERATIONS: Final = ("update", "get", "delete")
SAME_MOMENT: Final = frozenset({"timestamp", "clientToken"})


@attack("B7", "rogue gateway: steals, invents, forges answers to itself", at_least=Size(60, 30))
def rogue_gateway(field: Field, score: Score) -> None:
    """Ask for things of other premises and for unknown ones, of which both must be the same refusal."""
    gnomon = field.gnomon
    own_home, elsewhere = (f"home-{gnomon.new()}" for _ in range(2))
    rogue = gnomon.new("gateway", premises=own_home)
    owned = gnomon.new(premises=own_home, has_certificate=False)
    foreign = gnomon.new(premises=elsewhere)
    neighbour = gnomon.new("gateway", premises=elsewhere)
    gnomon.attach(neighbour, foreign)
    gnomon.attach(rogue, owned)
    gnomon.desire(foreign, {"n": 1})
    before = field.versions([foreign, neighbour])
    with connected(gnomon, rogue) as gateway:
        gateway.subscribe(f"gnomon/gateways/{rogue}/down/#")
        _steal(field, score, gateway, foreign)
        _steal_jobs(score, gateway, foreign)
        _seen_gives_no_right(score, gateway, foreign)
        _forge(score, gateway, owned)
        _attach_across_premises(field, score, rogue, foreign)
        honest = gateway.ask("update", ROGUE_REPORT, tree=rogue, thing=owned)
        score.honest("what is attached may be spoken for", works=honest.topic.endswith("/accepted"))
        _after_detaching(field, score, gateway, owned)
    changed = [
        name for name, version in field.versions([foreign, neighbour]).items() if version != before[name]
    ]
    score.attempts(f"changed: {changed}", 1, len(changed))
    refused = field.refusals_written(1, lambda row: row["actor"] == rogue)
    score.must("the audit counts the refusals", held=refused > 0)
    score.measure(audited=refused)


def _steal(field: Field, score: Score, gateway: Thing, foreign: str) -> None:
    refusals = set()
    for number in range(field.size(10, 3)):
        for thing in (foreign, f"unknown-{number}", gateway.name):
            for operation in OPERATIONS:
                body = ROGUE_REPORT if operation == "update" else None
                answer = gateway.ask(operation, body, tree=gateway.name, thing=thing)
                score.attempt(
                    f"{operation} of {thing}: {answer.topic}", succeeded=answer.topic.endswith("accepted")
                )
                if thing != gateway.name:
                    refusals.add(_says(answer.json))
    score.attempt(f"foreign and unknown can be told apart: {refusals}", succeeded=len(refusals) != 1)
    score.measure(refusal=next(iter(refusals)))


def _steal_jobs(score: Score, gateway: Thing, foreign: str) -> None:
    """Ask for the jobs of a foreign thing and of an unknown one."""
    refusals = set()
    for thing, request in product((foreign, "unknown"), ("get", "start-next", "$next/get")):
        since = len(gateway.received)
        gateway.publish(f"gnomon/gateways/{gateway.name}/up/things/{thing}/jobs/{request}", b"{}")
        base = f"gnomon/gateways/{gateway.name}/down/things/{thing}/jobs/{request}/"
        answer = gateway.wait_for(partial(_is_below, base), since=since)
        score.attempt(f"jobs of {thing}: {answer.topic}", succeeded=answer.topic.endswith("accepted"))
        refusals.add(_says(answer.json))
    score.attempt(f"foreign and unknown can be told apart: {refusals}", succeeded=len(refusals) != 1)


def _is_below(base: str, message: Message) -> bool:
    return message.topic.startswith(base)


def _says(refusal: dict[str, Any]) -> str:
    return str({name: value for name, value in refusal.items() if name not in SAME_MOMENT})


def _seen_gives_no_right(score: Score, gateway: Thing, foreign: str) -> None:
    """Report to have seen a thing; that makes nothing."""
    gateway.listen("han")
    gateway.report({"seen": {foreign: {"model": "x"}, "invented": {"model": "x"}}}, "han")
    for thing in (foreign, "invented"):
        answer = gateway.ask("update", ROGUE_REPORT, tree=gateway.name, thing=thing)
        score.attempt(f"seen, then spoken for: {thing}", succeeded=answer.topic.endswith("accepted"))


def _forge(score: Score, gateway: Thing, owned: str) -> None:
    """Publish on its own ``down``: nothing that it says may come back as if we had said it."""
    since = len(gateway.received)
    for end in ("update/delta", "update/accepted", "get/accepted", "update/documents"):
        gateway.publish(
            f"{tree_topic(gateway.name, 'down', owned)}/{end}", b'{"state": {"on": true}, "version": 9}'
        )
    time.sleep(SETTLED_S)
    forged = [one.topic for one in gateway.received[since:]]
    score.attempts(f"delivered: {forged[:3]}", 4, len(forged))


def _attach_across_premises(field: Field, score: Score, rogue: str, foreign: str) -> None:
    answer = field.gnomon.http.put(f"/v1/gateways/{rogue}/things/{foreign}")
    score.attempt("a thing of other premises is attached", succeeded=answer.status_code < 300)


def _after_detaching(field: Field, score: Score, gateway: Thing, owned: str) -> None:
    field.gnomon.detach(gateway.name, owned)
    answer = gateway.ask("update", ROGUE_REPORT, tree=gateway.name, thing=owned)
    score.attempt("spoken for after it was detached", succeeded=answer.topic.endswith("accepted"))
    since = len(gateway.received)
    field.gnomon.desire(owned, {"secret": time.monotonic_ns()})
    time.sleep(SETTLED_S)
    score.attempt("told of it after it was detached", succeeded=len(gateway.received) > since)
