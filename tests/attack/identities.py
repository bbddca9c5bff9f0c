"""Attacks on who somebody is to the broker: certificates, client ids, clones. (B1, B4)"""

import ssl
import time
from dataclasses import replace
from typing import Final

from tests.attack import certificates, joining, wire
from tests.attack.attacks import Score, Size, attack
from tests.attack.field import SETTLED_S, Bystander, Field, happens
from tests.system.mqtt import V5, V311, connected, shadow_topic

VERSIONS: Final = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
"""In the older one the refusal comes in the handshake and says why; in the newer one after it."""
ODD_NAMES: Final = (
    "#", "+", "+/#", "a/b", "lamp/#", "$SYS", "$CONTROL", "svc.bridge", "svc.janitor", "a.b", "la mp",
    "lamp\n", "lamp\0x", "lámp", "лампа", "", "x" * 65, "%u", "../x", "*",
)  # fmt: skip


@attack("B1", "no, foreign or broken certificate", at_least=38)
def broken_certificates(field: Field, score: Score) -> None:
    """Each certificate has one fault and is otherwise a good one, which is let in beside it."""
    gnomon, folder = field.gnomon, field.scratch / "certificates"
    signer = certificates.issuing(gnomon)
    name = gnomon.new()
    cut = certificates.below(certificates.root(gnomon), "Gnomon issuing")
    by_a_thing = certificates.thing_as_signer(name, signer)
    bad: dict[str, certificates.Files | None] = {
        "none": None,
        "rogue authority, same name": certificates.files(
            folder, certificates.good(name), certificates.rogue(signer)
        ),
        "chain cut": certificates.files(folder, certificates.good(name), cut),
        "signed by a thing": certificates.files(
            folder, replace(certificates.good(name), chain=[by_a_thing.certificate]), by_a_thing
        ),
        **{
            fault: certificates.files(folder, leaf, signer)
            for fault, leaf in certificates.spoilt(name).items()
        },
    }
    bad["revoked"] = _revoked(field, score)
    reasons: dict[str, str] = {}
    for fault, shown in bad.items():
        for version in VERSIONS:
            answer = wire.greet(gnomon, shown, version)
            score.attempt(f"{fault}, {version.name}: {answer.said}", succeeded=answer.let_in)
            reasons.setdefault(fault, answer.said)
    for odd in ODD_NAMES:
        score.attempt(f"the authority signs for {odd!r}", succeeded=certificates.authority_signs(gnomon, odd))
    score.measure(kinds=len(bad) + 1, said=reasons)
    _good_ones(field, score, signer)


def _revoked(field: Field, score: Score) -> certificates.Files:
    """Return a certificate that was good until it was revoked."""
    name, files = joining.enrolled(field)
    score.honest("before it is let in", works=wire.greet(field.gnomon, files).let_in)
    assert field.gnomon.http.post(f"/v1/things/{name}/revoke").status_code == 200
    return files


def _good_ones(field: Field, score: Score, signer: certificates.Signer) -> None:
    """Let in a thousand good ones: a broker that refuses everybody would pass all of the above."""
    count, began = field.size(1_000, 50), time.monotonic()
    let_in = sum(
        wire.greet(
            field.gnomon,
            certificates.files(field.scratch / "certificates", certificates.good(f"good-{number}"), signer),
            VERSIONS[number % 2],
        ).let_in
        for number in range(count)
    )
    score.honest(f"{count} good certificates are let in ({let_in} were)", works=let_in == count)
    score.measure(good=let_in, good_per_s=round(count / (time.monotonic() - began)))


@attack("B4", "client-id hijack, session theft", at_least=Size(40, 8))
def client_id_hijack(field: Field, score: Score) -> None:
    """Come with one's own certificate and the victim's client id, while it is there and while it is away."""
    gnomon = field.gnomon
    rounds = field.size(10, 2)
    victim, thief = field.things(2)
    gnomon.desire(victim, {"n": 0})
    thrown_off = 0
    with connected(gnomon, victim) as honest, Bystander(gnomon) as bystander:
        honest.listen()
        for number in range(rounds):
            for protocol in (V311, V5):
                with connected(
                    gnomon, thief, protocol=protocol, clean=bool(number % 2), client_id=victim
                ) as other:
                    gnomon.desire(victim, {"n": number, "p": int(protocol)})
                    time.sleep(0.05)
                    score.attempt(f"thief got {other.topics()}", succeeded=bool(other.received))
                    other.publish(f"{shadow_topic(victim)}/update", b'{"state": {"reported": {"stolen": 1}}}')
        thrown_off = honest.connections - 1
        score.attempts(f"the victim was thrown off {thrown_off} times", 2 * rounds, thrown_off)
        answered = honest.ask("get").json
        score.honest("the victim goes on", works="delta" in answered["state"])
        score.attempt("the thief wrote", succeeded="stolen" in answered["state"].get("reported", {}))
    score.must("others are not disturbed", held=bystander.undisturbed)
    _queue_theft(field, score, victim, thief)


def _queue_theft(field: Field, score: Score, victim: str, thief: str) -> None:
    """Take the session of a victim that is away, with what waits in it."""
    gnomon = field.gnomon
    with connected(gnomon, victim, protocol=V311, clean=False) as honest:
        honest.listen()
    gnomon.desire(victim, {"secret": 1})
    time.sleep(SETTLED_S)
    for protocol in (V311, V5):
        with connected(gnomon, thief, protocol=protocol, clean=False, client_id=victim) as other:
            time.sleep(SETTLED_S)
            score.attempt(f"the thief got {other.topics()}", succeeded=bool(other.received))
    with connected(gnomon, victim, protocol=V311, clean=False) as honest:
        came = happens(lambda: any(b"secret" in one.payload for one in honest.received), 5)
        score.honest("the victim finds its queue when it is back", works=came)
