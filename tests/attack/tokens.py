"""Attacks with tokens: stolen ones, forged ones, ones that should be over. (B13, B14)"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Final

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gnomon.credentials import read_credentials
from infra.clock import SystemClock
from infra.documents.opening import open_store
from infra.ids import RandomIds
from security.audit import LOG
from security.people import totp
from security.people.keys import TokenKeys
from security.people.records import COLLECTIONS
from security.policy import Action, Role
from security.secretbox import SecretBox
from tests.attack.attacks import Score, attack
from tests.attack.field import Field, happens
from tests.system.child import Gnomon
from tests.token_corpus import BAD, Forge

DEAD_S_MAX: Final = 5.0
LOGINS_MAX: Final = 3
REVOKE_ALL: Final = "/v1/revoke-all"


@dataclass(frozen=True, slots=True)
class Pair:
    """Tokens of one session."""

    access: str
    refresh: str


def log_in(gnomon: Gnomon, role: Role) -> Pair:
    """Open one more session for a demo account; a code counts once in its half minute, so it may take one."""
    own = read_credentials(gnomon.var / "demo" / "credentials" / f"{role}.toml")
    assert own.password is not None
    said = ""
    for _ in range(LOGINS_MAX):
        step = totp.step_of(SystemClock().now_ms())
        code = "" if own.totp_seed is None else totp.code_at(own.totp_seed.reveal(), step)
        body = {"login": own.login, "password": own.password.reveal(), "code": code}
        answer = httpx.post(f"{gnomon.api_url}/v1/login", json=body, timeout=10)
        if answer.status_code == 200:
            return Pair(answer.json()["access_token"], answer.json()["refresh_token"])
        said = answer.text
        time.sleep(totp.STEP_S - time.time() % totp.STEP_S + 0.1)
    raise AssertionError(said)


def refresh(gnomon: Gnomon, token: str) -> httpx.Response:
    return httpx.post(f"{gnomon.api_url}/v1/token/refresh", json={"refresh_token": token}, timeout=10)


def is_let_in(gnomon: Gnomon, access: str) -> bool:
    answer = httpx.get(f"{gnomon.api_url}/v1/me", headers={"Authorization": f"Bearer {access}"}, timeout=10)
    assert answer.status_code in {200, 401}, answer.text
    return answer.status_code == 200


def pair_in(answer: httpx.Response) -> Pair:
    assert answer.status_code == 200, answer.text
    return Pair(answer.json()["access_token"], answer.json()["refresh_token"])


@attack("B13", "stolen access and refresh tokens", at_least=8)
def stolen_tokens(field: Field, score: Score) -> None:
    """Use a refresh token again, its family after that, and every token after everything was revoked."""
    gnomon = field.gnomon
    first = log_in(gnomon, Role.INSTALLER)
    second = pair_in(refresh(gnomon, first.refresh))
    third = pair_in(refresh(gnomon, second.refresh))
    score.honest("a session goes on by its newest token", works=is_let_in(gnomon, third.access))
    score.attempt(
        "a used refresh token is taken", succeeded=refresh(gnomon, first.refresh).status_code == 200
    )
    for what, token in (("newest", third.refresh), ("last", second.refresh), ("first", first.refresh)):
        taken = refresh(gnomon, token).status_code == 200
        score.attempt(f"the {what} refresh token counts after its family was stolen", succeeded=taken)
    reuse = field.audit(lambda row: row["action"] == "session.reuse")
    score.must("the audit says that a token was stolen", held=bool(reuse))
    score.must("the log alarms", held="session_stolen" in gnomon.log_text())
    for other in ("", "gnomon_rt_", third.access, third.refresh[:-1], third.refresh + "x"):
        score.attempt(f"{other[:20]} is taken", succeeded=refresh(gnomon, other).status_code == 200)
    _everything_revoked(field, score)


def _everything_revoked(field: Field, score: Score) -> None:
    """Raise the epoch: all tokens of before are nothing within five seconds."""
    gnomon = field.gnomon
    stolen = log_in(gnomon, Role.REP)
    score.honest("before, it lets one in", works=is_let_in(gnomon, stolen.access))
    officer = gnomon.accounts.bearer(Role.SECURITY)
    confirmed = gnomon.accounts.step_up(Role.SECURITY, Action.REVOKE_ALL, "POST", REVOKE_ALL)
    done = httpx.post(f"{gnomon.api_url}{REVOKE_ALL}", headers={**officer, **confirmed}, timeout=10)
    assert done.is_success, done.text
    began = time.monotonic()
    dead = happens(lambda: not is_let_in(gnomon, stolen.access), DEAD_S_MAX + 1)
    took_s = time.monotonic() - began
    score.attempt(f"an access token lives on after {took_s:.1f} s", succeeded=not dead or took_s > DEAD_S_MAX)
    taken = refresh(gnomon, stolen.refresh).status_code == 200
    score.attempt("a refresh token lives on", succeeded=taken)
    if not field.quick:  # it may have to wait for the next code
        again = log_in(gnomon, Role.REP)
        score.honest("one can log in again", works=is_let_in(gnomon, again.access))
    score.measure(dead_after_ms=round(took_s * 1_000))


@attack("B14", "token tricks", at_least=40)
def token_tricks(field: Field, score: Score) -> None:
    """Send every forged token there is, some with our own key's signature; each is the same 401."""
    gnomon = field.gnomon
    gnomon.stop()
    key = asyncio.run(_signing_key(gnomon))
    gnomon.start()
    good = log_in(gnomon, Role.AUDITOR).access
    forge = Forge.of(good, key)
    score.honest("the same forge makes a good one", works=is_let_in(gnomon, forge.good()))
    answers: dict[str, int] = {}
    bodies: set[str] = set()
    with httpx.Client(base_url=gnomon.api_url, timeout=10) as nobody:
        for name, make in BAD.items():
            status, body = _sent(nobody, make(forge))
            answers[name] = status
            score.attempt(f"{name}: {status}", succeeded=status not in {400, 401, 431})
            score.attempts("", 0, 0)
            if status == 401:
                bodies.add(body)
    score.must(f"all hear one and the same 401: {bodies}", held=len(bodies) == 1)
    not_asked = sorted(name for name, status in answers.items() if status != 401)
    score.measure(tokens=len(BAD), refused_before=not_asked)


def _sent(nobody: httpx.Client, token: str) -> tuple[int, str]:
    """Return what is answered; a field that no client sends is refused before anybody reads a token."""
    value = b"Bearer " + token.encode("utf-8", errors="surrogatepass")
    try:
        answer = nobody.get("/v1/me", headers=[(b"authorization", value)])
    except httpx.HTTPError:
        return 400, ""
    told = answer.json() if "json" in answer.headers.get("content-type", "") else {}
    told.pop("requestId", None)
    return answer.status_code, str(told)


async def _signing_key(gnomon: Gnomon) -> Ed25519PrivateKey:
    """Read the real key out of the store and the secret box, as only root on the host could."""
    box = SecretBox.open(gnomon.var / "secrets" / "master.key", RandomIds())
    store: Any = await open_store(f"sqlite:{gnomon.var / 'gnomon.db'}", list(COLLECTIONS), [LOG])
    try:
        keys = TokenKeys(store, box, SystemClock(), RandomIds())
        await keys.open()
        return keys.sign_with()[1]
    finally:
        await store.close()
