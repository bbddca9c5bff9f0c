"""Attacks on what is written down beside the audit: secrets that leak, lines that are forged. (B35)"""

import base64
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from security.policy import Role
from security.trust import keys
from tests.attack import joining, tokens, wire
from tests.attack.attacks import Score, attack
from tests.attack.enrolment import PIN
from tests.attack.field import REFUSALS_WRITTEN_S_MAX, Field, happens
from tests.attack.joining import ADDRESSES, Joiner
from tests.system.child import Gnomon
from tests.system.mqtt import connected, shadow_topic

FORGED: Final = "2001-01-01T00:00:00.000000Z [critical ] forged_event"
"""Begins a line of the log, if somebody can make one."""
ESCAPE: Final = "\x1b[31m"


@dataclass(slots=True)
class Canaries:
    """Values that must be found nowhere, each by where it was put."""

    seed: int
    known: dict[str, str] = field(default_factory=dict)
    answers: list[tuple[str, str]] = field(default_factory=list)
    """What was answered, by where the canary was."""

    def new(self, where: str) -> str:
        value = f"canary{self.seed:x}{len(self.known):03d}yranac"
        self.known[where] = value
        return value

    def note(self, where: str, value: str) -> None:
        """Let a real secret be a canary, too."""
        self.known[where] = value

    def hear(self, where: str, answer: httpx.Response) -> None:
        self.answers.append((where, answer.text))


@attack("B35", "secrets in logs, errors, metrics and traces; forged lines", at_least=100)
def leaks(field: Field, score: Score) -> None:
    """Put canaries wherever a secret can be, and look for them wherever something is written."""
    gnomon = field.gnomon
    canaries = Canaries(field.rng.getrandbits(40))
    name = gnomon.new()
    _in_shadows(gnomon, canaries, name)
    _in_requests(gnomon, canaries, name)
    _in_logins(gnomon, canaries)
    _in_joining(field, canaries)
    _in_files(gnomon, canaries)
    _forge_lines(field, name)
    places = dict(_written(field))
    for place, text in places.items():
        for where, value in canaries.known.items():
            score.attempt(f"{where} is in {place}", succeeded=value in text)
    for where, text in canaries.answers:
        score.attempt(f"the answer tells {where}", succeeded=canaries.known[where] in text)
    lines = places["log"].splitlines()
    score.attempt("a line of the log is forged", succeeded=any(line.startswith(FORGED) for line in lines))
    score.attempt("the log changes its colour", succeeded=ESCAPE in places["log"])
    score.honest("the log has lines", works=len(lines) > 3)
    score.honest(
        "what may be told is found in the same way", works=name in places["traces"] + places["audit"]
    )
    score.measure(canaries=len(canaries.known), places=len(places), bytes=sum(map(len, places.values())))


def _in_shadows(gnomon: Gnomon, canaries: Canaries, name: str) -> None:
    gnomon.desire(name, {"wish": canaries.new("a desired value")})
    with connected(gnomon, name) as device:
        device.listen()
        device.report({"value": canaries.new("a reported value"), canaries.new("a reported key"): 1})
        token = canaries.new("a client token")
        device.ask_bytes(
            "update", b'{"state": {"reported": {"x": 1}}, "clientToken": "%s"}' % token.encode(), token
        )
        broken = b'{"state": {"reported": {"x": "%s"' % canaries.new("a broken request").encode()
        device.ask_bytes("update", broken, None)
        device.send(f"{shadow_topic(name)}/nowhere", canaries.new("a payload nobody reads"))
    wire.die(gnomon, name, (f"{shadow_topic(name)}/update", canaries.new("a will").encode()), wire.V311)


def _in_requests(gnomon: Gnomon, canaries: Canaries, name: str) -> None:
    for where, fields in {
        "a bearer token": {"Authorization": f"Bearer {canaries.new('a bearer token')}"},
        "a basic password": {"Authorization": _basic("x", canaries.new("a basic password"))},
        "a cookie": {"Cookie": f"session={canaries.new('a cookie')}"},
        "a step-up token": {"Gnomon-Step-Up": canaries.new("a step-up token")},
    }.items():
        canaries.hear(where, httpx.get(f"{gnomon.api_url}/v1/things/{name}", headers=fields))
    for where in ("a token in the query", "a broken body"):
        value = canaries.new(where)
        answer = gnomon.http.patch(
            f"/v1/things/{name}/shadows/@classic" + (f"?access_token={value}" if "query" in where else ""),
            content=b'{"desired": {"x": "%s"' % (value.encode() if "body" in where else b"y"),
            headers={"Content-Type": "application/merge-patch+json"},
        )
        canaries.hear(where, answer)


def _basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def _in_logins(gnomon: Gnomon, canaries: Canaries) -> None:
    password, refresh = canaries.new("a password"), canaries.new("a refresh token")
    body = {"login": "ann", "password": password, "code": "000000"}
    canaries.hear("a password", httpx.post(f"{gnomon.api_url}/v1/login", json=body))
    canaries.hear("a refresh token", tokens.refresh(gnomon, f"gnomon_rt_{refresh}"))
    secret = canaries.new("a client secret")
    form = {"grant_type": "client_credentials", "client_id": "c-aaaaaaaaaaaaaaaa", "client_secret": secret}
    canaries.hear("a client secret", httpx.post(f"{gnomon.api_url}/v1/token", data=form))
    pair = tokens.log_in(gnomon, Role.OPERATOR)
    canaries.note("a real access token", pair.access)
    canaries.note("a real refresh token", pair.refresh)


def _in_joining(field: Field, canaries: Canaries) -> None:
    one, key = joining.voucher(field), keys.make_key()
    canaries.note("a voucher", one.code)
    canaries.note("a voucher without hyphens", one.code.replace("-", ""))
    with Joiner(field.gnomon, next(ADDRESSES)) as joiner:
        canaries.hear("a voucher", joiner.enrol(one.id, one.code, joining.request(key)))
        wrong = canaries.new("a wrong code")
        canaries.hear("a wrong code", joiner.enrol(one.id, wrong, joining.request(key)))
        named = canaries.new("a name in a request")
        joiner.enrol(one.id, one.code, joining.request(keys.make_key(), named))
    joining.keep_pin(field.gnomon, one.thing, PIN)
    canaries.note("a PIN", f'"{PIN}"')


def _in_files(gnomon: Gnomon, canaries: Canaries) -> None:
    """Every secret that lies in a file of its own."""
    for path in (gnomon.var / "demo" / "credentials").glob("*.toml"):
        for name, value in tomllib.loads(path.read_text()).items():
            if name in {"password", "totp_seed", "client_secret"}:
                canaries.note(f"{name} of {path.stem}", value)
    for line in (gnomon.var / "secrets" / "master.key").read_text().splitlines():
        canaries.note("the master key", line.rpartition(" ")[2].strip('{}"'))


def _forge_lines(field: Field, name: str) -> None:
    """Put a line end and what looks like a line into whatever might be logged."""
    gnomon, forged = field.gnomon, f"x\n{FORGED} {ESCAPE}\n"
    quoted = "".join(f"%{byte:02x}" for byte in forged.encode())
    with httpx.Client(base_url=gnomon.api_url, timeout=10) as http:
        http.get(f"/v1/things/{quoted}")
        gnomon.http.get(f"/v1/things/{quoted}")
        http.post("/v1/login", json={"login": forged, "password": forged, "code": "0"})
        http.get("/v1/me", headers={"User-Agent": f"{ESCAPE}x"})
    with Joiner(gnomon, next(ADDRESSES)) as joiner:
        joiner.enrol(forged, forged, joining.request(keys.make_key()))
    with suppress(OSError, AssertionError), wire.session(gnomon, name) as connection:
        connection.sendall(wire.subscribe_packet(f"$aws/things/{name}/{forged}"))
        connection.sendall(wire.publish_packet(f"gnomon/gateways/{name}/up/things/{forged}", b""))


def _written(field: Field) -> Iterator[tuple[str, str]]:
    gnomon = field.gnomon
    happens(lambda: bool(field.audit(lambda row: row["decision"] == "refused")), REFUSALS_WRITTEN_S_MAX)
    yield "audit", str(field.audit())
    yield "log", gnomon.log_text()
    yield "metrics", gnomon.http.get("/v1/metrics").text
    yield "traces", _text(gnomon.var / "traces.jsonl")
    yield "the broker's log", "".join(_text(path) for path in (gnomon.var / "broker").glob("*.log"))
    yield "the broker's configuration", _text(gnomon.broker_configuration)
    yield "the command line", Path(f"/proc/{gnomon.pid}/cmdline").read_text()
    yield "the environment", Path(f"/proc/{gnomon.pid}/environ").read_text()


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
