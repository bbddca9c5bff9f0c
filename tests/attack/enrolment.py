"""Attacks on how a device becomes known: codes used twice, keys brought twice, guessing, PINs. (B5, B6)"""

import base64
import hmac
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from security.audit import REFUSALS_FOLDED_MAX
from security.secret import Secret
from security.trust import codes, keys
from security.trust.identifiers import lfdi
from security.trust.pins import device_answer, server_proof
from tests.attack import joining
from tests.attack.attacks import Score, Size, attack
from tests.attack.certificates import Files
from tests.attack.field import Field, happens, percentile
from tests.attack.joining import ADDRESSES, Joiner, Voucher
from tests.system.child import Gnomon
from tests.system.mqtt import connected

HASHED_MAX: Final = 5
"""Wrong tries of one code that are looked at at all."""
REFUSED_FROM: Final = 300
PIN: Final = "123455"
"""Its digits make a multiple of ten, as they should."""


def _alarmed(field: Field, event: str, what: str) -> bool:
    return happens(
        lambda: any(event in line and what in line for line in field.gnomon.log_text().splitlines()), 2
    )


@attack("B5", "replayed request, voucher, code", at_least=10)
def replays(field: Field, score: Score) -> None:
    """Use a voucher again, bring a key again, leave out the proof, take another's name."""
    gnomon = field.gnomon
    with Joiner(gnomon, next(ADDRESSES)) as thief, Joiner(gnomon, next(ADDRESSES)) as honest:
        one, key = joining.voucher(field), keys.make_key()
        first = honest.enrol(one.id, one.code, joining.request(key))
        score.honest(f"a voucher brings a certificate: {first.status_code}", works=first.status_code == 200)
        again = honest.enrol(one.id, one.code, joining.request(key))
        score.honest("a lost answer is given again, the same", works=again.content == first.content)
        _second_use(field, score, thief, one)
        _second_key(field, score, thief, one, joining.request(key))
        _no_possession(field, score, thief)
        _another_name(field, score, thief, one)
        _wrong_pairs(field, score, thief, one)
    issued = joining.issued_by(field, one)
    score.attempt(f"{issued} certificates were issued", succeeded=issued != 1)


def _second_use(field: Field, score: Score, thief: Joiner, used: Voucher) -> None:
    answer = thief.enrol(used.id, used.code, joining.request(keys.make_key()))
    score.attempt(f"a used voucher, another key: {answer.status_code}", succeeded=answer.status_code != 409)
    score.must("a used voucher raises an alarm", held=_alarmed(field, "enrolment_code_reused", used.thing))
    revoked = joining.voucher(field)
    assert field.gnomon.http.delete(f"/v1/vouchers/{revoked.id}").status_code == 204
    answer = thief.enrol(revoked.id, revoked.code, joining.request(keys.make_key()))
    score.attempt(f"a voucher taken back: {answer.status_code}", succeeded=answer.status_code < REFUSED_FROM)


def _second_key(field: Field, score: Score, thief: Joiner, used: Voucher, request: bytes) -> None:
    """Bring the very request, that is the key, of one thing for another."""
    other = joining.voucher(field)
    answer = thief.enrol(other.id, other.code, request)
    score.attempt(f"a key brought twice: {answer.status_code}", succeeded=answer.status_code != 409)
    score.must(
        "a key brought twice raises an alarm",
        held=_alarmed(field, "enrolment_key_seen_before", other.thing),
    )
    both = [joining.is_suspect(field, thing) for thing in (used.thing, other.thing)]
    score.must(f"both things are under suspicion: {both}", held=all(both))


def _no_possession(field: Field, score: Score, thief: Joiner) -> None:
    """Send the public key of somebody else: the signature of the request does not fit."""
    one = joining.voucher(field)
    good = joining.request(keys.make_key())
    for place in (-1, len(good) // 2):
        bad = bytearray(good)
        bad[place] ^= 1
        answer = thief.enrol(one.id, one.code, bytes(bad))
        score.attempt(
            f"a request changed at {place}: {answer.status_code}", succeeded=answer.status_code != 400
        )
    answer = thief.enrol(one.id, one.code, joining.request(keys.make_key()))
    score.honest("the voucher is not used up by that", works=answer.status_code == 200)


def _another_name(field: Field, score: Score, thief: Joiner, victim: Voucher) -> None:
    """Call oneself in the request like somebody else: the certificate says whose voucher it was."""
    for name in (victim.thing, "svc.bridge", "#"):
        one = joining.voucher(field)
        told = joining.names_in(joining.certificate_in(thief.enrol(one.id, one.code, _named(name))))
        held = one.thing in told and not (name in told.replace(one.thing, "") and name != "#")
        score.attempt(f"a request for {name!r} got {told}", succeeded=not held)


def _named(name: str) -> bytes:
    return joining.request(keys.make_key(), name)


def _wrong_pairs(field: Field, score: Score, thief: Joiner, used: Voucher) -> None:
    one, other = joining.voucher(field), joining.voucher(field)
    for id, code in ((one.id, other.code), (one.thing, one.code), (one.id, ""), (used.thing, PIN)):
        answer = thief.enrol(id, code, joining.request(keys.make_key()))
        score.attempt(f"another's code: {answer.status_code}", succeeded=answer.status_code < REFUSED_FROM)


@attack("B5/race", "one voucher, a hundred at once", at_least=Size(200, 60))
def race(field: Field, score: Score) -> None:
    """A hundred keys at the same moment: one certificate. A hundred times the same key: the same one."""
    count = field.size(100, 30)
    one = joining.voucher(field)
    answers = _at_once(field, one, [joining.request(keys.make_key()) for _ in range(count)])
    good = sum(answer.status_code == 200 for answer in answers)
    issued = joining.issued_by(field, one)
    score.attempts(
        f"{good} of {count} got a certificate, {issued} were issued", count, int((good, issued) != (1, 1))
    )
    refused = sum(answer.status_code == 409 for answer in answers)
    score.must(f"the others hear 409 ({refused} did)", held=refused == count - 1)
    again = joining.voucher(field)
    same = _at_once(field, again, [joining.request(keys.make_key())] * count)
    bodies = {answer.content for answer in same if answer.status_code == 200}
    issued = joining.issued_by(field, again)
    score.attempts(
        f"{len(bodies)} certificates for one key, {issued} issued",
        count,
        int((len(bodies), issued) != (1, 1)),
    )
    served = sum(answer.status_code == 200 for answer in same)
    score.honest(f"the one key gets it ({served} times)", works=served > 0)
    score.measure(at_once=count, first=f"{good} x 200, {refused} x 409", same_key=f"{served} x 200")


def _at_once(field: Field, one: Voucher, requests: list[bytes]) -> list[httpx.Response]:
    """Send all at the same moment, each from an address of its own."""
    gate = threading.Barrier(len(requests))
    where = [next(ADDRESSES) for _ in requests]

    def send(position: int) -> httpx.Response:
        with Joiner(field.gnomon, where[position]) as joiner:
            joiner.get(f"{joining.EST}/cacerts")  # the handshake is done before
            gate.wait(60)
            return joiner.enrol(one.id, one.code, requests[position])

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(send, range(len(requests))))


@attack("B6", "code guessing, mass enrolment", at_least=Size(10_000, 500))
def guessing(field: Field, score: Score) -> None:
    """Guess a code from many addresses, and many codes; honest devices join meanwhile."""
    gnomon, count = field.gnomon, field.size(10_000, 500)
    _begin_anew(gnomon)
    target = joining.voucher(field)
    before = gnomon.metric("gnomon_enrolment_failures_total")
    hits = _guess(field, [target.id] * (count // 2))
    hashed = gnomon.metric("gnomon_enrolment_failures_total") - before
    score.attempts(f"{hits} guesses were right", count // 2, hits)
    score.attempt(f"{hashed:.0f} guesses at one code were looked at", succeeded=hashed > HASHED_MAX)
    waits: list[float] = []
    over = threading.Event()
    joins = threading.Thread(target=_join_meanwhile, args=(field, score, waits, over), daemon=True)
    joins.start()
    began = time.monotonic()
    hits = _guess(field, _unknown_ids(count // 2))
    happens(lambda: len(waits) >= 3, 30)
    over.set()
    joins.join(30)
    score.attempts(f"{hits} guesses at unknown codes were right", count // 2, hits)
    slowest = max(waits, default=99.0)
    score.must(f"honest devices join within 2 s (the slowest took {slowest:.2f} s)", held=slowest < 2.0)
    score.must("guessing raises an alarm", held=_alarmed(field, "enrolment_guessing", "50"))
    score.measure(
        hashed_of_one_code=int(hashed),
        joined_meanwhile=len(waits),
        slowest_join_ms=round(slowest * 1_000),
        p50_ms=round(percentile(waits, 0.5) * 1_000) if waits else None,
        guesses_per_s=round(count / 2 / (time.monotonic() - began)),
    )
    _begin_anew(gnomon)


def _begin_anew(gnomon: Gnomon) -> None:
    """Let what was tried a moment ago not count: limits and folded refusals are of one run."""
    gnomon.stop()
    gnomon.start()


def _unknown_ids(count: int) -> list[str]:
    return [f"v{secrets.token_hex(16).translate(_BASE32)[:16]}" for _ in range(count)]


@attack("B34/blind", "an intruder's refusals lost among a stranger's", at_least=4_000, quick=False)
def blinded_audit(field: Field, score: Score) -> None:
    """Fill the table of refusals with made-up claims, without any identity; then do what would be noted."""
    gnomon = field.gnomon
    _begin_anew(gnomon)
    score.honest("an intruder is named in the audit", works=_is_named(field))
    left_s = SECONDS - time.time() % SECONDS
    if left_s < FLOOD_S_MAX:
        time.sleep(left_s)  # refusals are folded by minutes: all of it has to be in one
    _guess(field, _unknown_ids(STRANGERS))
    score.attempts("an intruder is not named any more", STRANGERS, int(not _is_named(field)))
    _begin_anew(gnomon)


def _is_named(field: Field) -> bool:
    """Have a gateway ask for what is not its own; tell whether the audit says who asked."""
    rogue = field.gnomon.new("gateway")
    with connected(field.gnomon, rogue) as gateway:
        gateway.subscribe(f"gnomon/gateways/{rogue}/down/#")
        gateway.ask("get", tree=rogue, thing="nobody")
        return field.refusals_written(1, lambda row: row["actor"] == rogue) > 0


_BASE32: Final = str.maketrans("0189", "zyxw")
STRANGERS: Final = REFUSALS_FOLDED_MAX + 500
FLOOD_S_MAX: Final = 40
SECONDS: Final = 60
GUESSERS: Final = 25
"""Addresses of each wave: 20 tries a minute of each are looked at, and 1,200 of all."""


def _guess(field: Field, ids: list[str]) -> int:
    """Send guesses from many addresses; return how many were let in."""
    where = [next(ADDRESSES) for _ in range(GUESSERS)]
    request = joining.request(keys.make_key())

    def guess(position: int) -> int:
        hits = 0
        with Joiner(field.gnomon, where[position]) as joiner:
            for id in ids[position::GUESSERS]:
                hits += joiner.enrol(id, _some_code(), request).status_code < REFUSED_FROM
        return hits

    with ThreadPoolExecutor(4) as pool:
        return sum(pool.map(guess, range(GUESSERS)))


def _some_code() -> str:
    """Return a code as it could be: the check at its end is right, or it would cost no try."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    return codes.shown(Secret("".join(secrets.choice(letters) for _ in range(codes.CODE_CHARS)))).reveal()


def _join_meanwhile(field: Field, score: Score, waits: list[float], over: threading.Event) -> None:
    while not over.wait(0.3):
        one, key = joining.voucher(field), keys.make_key()
        with Joiner(field.gnomon, next(ADDRESSES)) as joiner:
            began = time.monotonic()
            answer = joiner.enrol(one.id, one.code, joining.request(key))
            waits.append(time.monotonic() - began)
        score.honest(
            f"an honest device joins: {answer.status_code} {answer.text[:200]}",
            works=answer.status_code == 200,
        )


@attack("B5/pin", "a PIN instead of a code, an answer said again", at_least=8)
def pins(field: Field, score: Score) -> None:
    """A PIN has 100,000 values: it brings no certificate, and an answer to one question answers no other."""
    name, files = _with_pin(field)
    fresh = joining.voucher(field)
    joining.keep_pin(field.gnomon, fresh.thing, PIN)
    with Joiner(field.gnomon, next(ADDRESSES)) as thief:
        for id in (fresh.thing, fresh.id, name):
            answer = thief.enrol(id, PIN, joining.request(keys.make_key()))
            brought = answer.status_code < REFUSED_FROM
            score.attempt(f"a PIN brought a certificate: {answer.status_code}", succeeded=brought)
        answer = thief.pin(nonce=bytes(16))
        score.attempt("a PIN exchange without a certificate", succeeded=answer.status_code != 401)
    with Joiner(field.gnomon, next(ADDRESSES), files) as device:
        proof, right, knows = _ask(device, files, Secret(PIN))
        score.honest("who knows the PIN proves it, and so do we", works=knows and _is_right(device, right))
        score.attempt("the same answer again", succeeded=_is_right(device, right))
        _ask(device, files, Secret(PIN))
        score.attempt("the old answer to a new question", succeeded=_is_right(device, right))
    # Another thing, as three wrong answers stop the first; and one only, as each PIN costs an officer a code.
    _, files = joining.let_in(field, fresh)
    with Joiner(field.gnomon, next(ADDRESSES), files) as device:
        for what in ("our own proof sent back", "a wrong PIN"):
            proof, wrong, _ = _ask(device, files, Secret("000000"))
            score.attempt(what, succeeded=_is_right(device, proof if what.startswith("our") else wrong))
    score.attempts("", 1, 0)


def _with_pin(field: Field) -> tuple[str, Files]:
    """Return a thing with its certificate whose PIN we know."""
    name, files = joining.enrolled(field)
    joining.keep_pin(field.gnomon, name, PIN)
    return name, files


def _ask(device: Joiner, files: Files, pin: Secret) -> tuple[bytes, bytes, bool]:
    """Begin an exchange; return the server's proof, the answer by this PIN, and whether it knew the PIN."""
    theirs = secrets.token_bytes(16)
    asked = device.pin(nonce=theirs).json()
    proof, ours = base64.b64decode(asked["proof"]), base64.b64decode(asked["nonce"])
    der = x509.load_pem_x509_certificate(files[0].read_bytes()).public_bytes(Encoding.DER)
    knows = hmac.compare_digest(proof, server_proof(pin, lfdi(der), theirs))
    return proof, device_answer(pin, lfdi(der), ours, theirs), knows


def _is_right(device: Joiner, answer: bytes) -> bool:
    return device.pin(answer=answer).status_code == 204
