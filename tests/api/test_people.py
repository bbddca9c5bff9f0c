"""People and systems over HTTP: one answer to who proves nothing, two persons for what starts something."""

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import jwt
import msgspec
import pytest

from api.app import all_routes
from api.logins import FORM
from security.people import totp
from security.people.tokens import Epochs
from security.policy import Action, Role
from security.secret import Secret
from security.tries import MINUTE_S, TRIES_PER_ADDRESS_MAX
from tests.api.rig import Rig, api, slug
from tests.people_rig import PASSWORD, SYSTEM, VIA
from tests.token_corpus import BAD, Forge

WRONG = "not the one at all"
ASKED = {"grant_type": "client_credentials"}


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with api(tmp_path) as rig:
        yield rig


@dataclass
class Someone:
    """A person who uses the API alone."""

    rig: Rig
    login: str
    id: str
    seed: str
    tokens: dict[str, Any]
    step: int

    def code(self) -> str:
        if self.step >= totp.step_of(self.rig.clock.now_ms()):
            self.rig.clock.advance(totp.STEP_S)
        self.step = totp.step_of(self.rig.clock.now_ms())
        return totp.code_at(self.seed, self.step)

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens['access_token']}"}

    async def log_in(self) -> httpx.Response:
        body = {"login": self.login, "password": PASSWORD.reveal(), "code": self.code()}
        answer = await self.rig.stranger.post("/v1/login", json=body)
        if answer.status_code == 200:
            self.tokens = answer.json()
        return answer

    async def get(self, path: str) -> httpx.Response:
        return await self.rig.stranger.get(path, headers=self.bearer)

    async def send(self, method: str, path: str, action: Action, body: Any = None) -> httpx.Response:
        """Send a request with the second factor shown for it."""
        content = b"" if body is None else msgspec.json.encode(body)
        asked = {
            "code": self.code(),
            "action": action.value,
            "target": f"{method} {path}",
            "body_sha256": sha256(content).hexdigest(),
        }
        shown = await self.rig.stranger.post("/v1/step-up", json=asked, headers=self.bearer)
        assert shown.status_code == 200, shown.text
        fields = {"Gnomon-Step-Up": shown.json()["step_up"]}
        if body is not None:
            fields["Content-Type"] = "application/json"
        return await self.rig.stranger.request(method, path, content=content, headers=self.bearer | fields)


async def someone(rig: Rig, login: str, role: Role) -> Someone:
    person, invitation = await rig.services.people.accounts.add(login, role, "", SYSTEM, held=False)
    return await accepted(rig, login, person.id, invitation.reveal())


async def accepted(rig: Rig, login: str, id: str, invitation: str) -> Someone:
    body = {"invitation": invitation, "password": PASSWORD.reveal()}
    answer = await rig.stranger.post("/v1/invitations/accept", json=body)
    assert answer.status_code == 200, answer.text
    one = Someone(rig, login, id, answer.json()["totp_seed"], {}, 0)
    assert (await one.log_in()).status_code == 200
    return one


async def test_who_logs_in_may_do_what_the_role_may(rig: Rig):
    ann = await someone(rig, "ann", Role.OPERATOR)
    assert ann.tokens["token_type"] == "Bearer"
    assert ann.tokens["expires_in"] == 300
    assert (await ann.get("/v1/status")).status_code == 200
    assert (await ann.get("/v1/people")).status_code == 403
    me = (await ann.get("/v1/me")).json()
    assert (me["id"], me["login"], me["role"], me["factor"]) == (ann.id, "ann", "operator", True)


async def test_answers_with_secrets_are_stored_by_nobody(rig: Rig):
    ann = await someone(rig, "ann", Role.OPERATOR)
    assert (await ann.log_in()).headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "body",
    [
        {"login": "ann", "password": WRONG},
        {"login": "ann", "password": WRONG, "code": "000000"},
        {"login": "ann", "password": PASSWORD.reveal()},
        {"login": "ann", "password": PASSWORD.reveal(), "code": "000000"},
        {"login": "nobody", "password": WRONG},
        {"login": "#first", "password": WRONG},
        {"login": "\0", "password": "\0", "code": "\0"},
    ],
)
async def test_every_login_that_proves_nothing_is_one_answer(rig: Rig, body: dict[str, str]):
    await someone(rig, "ann", Role.OPERATOR)
    answer = await rig.stranger.post("/v1/login", json=body)
    bare = await rig.stranger.get("/v1/status")
    assert (answer.status_code, answer.content) == (401, bare.content)
    assert answer.headers["www-authenticate"] == bare.headers["www-authenticate"]


async def test_an_address_that_guesses_is_told_when_to_come_back(rig: Rig):
    body = {"login": "", "password": WRONG}
    for number in range(TRIES_PER_ADDRESS_MAX):
        body["login"] = f"nobody-{number}"
        assert (await rig.stranger.post("/v1/login", json=body)).status_code == 401
    answer = await rig.stranger.post("/v1/login", json=body)
    assert (answer.status_code, slug(answer)) == (429, "too-many-tries")
    assert answer.headers.get_list("retry-after") == [f"{MINUTE_S:g}"]
    assert (await rig.by[Role.OPERATOR].get("/v1/status")).status_code == 200


async def test_every_bad_token_is_401_and_one_body(rig: Rig):
    ann = await someone(rig, "ann", Role.REP)
    _, key = rig.services.people.keys.sign_with()
    forge = Forge.of(ann.tokens["access_token"], key)
    good = await rig.stranger.get("/v1/me", headers={"Authorization": f"Bearer {forge.good()}"})
    assert good.status_code == 200
    nothing = await rig.stranger.get("/v1/me")
    let_through = []
    for name, make in BAD.items():
        bad = make(forge).encode(errors="surrogatepass")
        answer = await rig.stranger.get("/v1/me", headers=[(b"Authorization", b"Bearer " + bad)])
        if (answer.status_code, answer.content) != (401, nothing.content):
            let_through.append(name)
    assert let_through == []


async def test_the_published_keys_verify_a_token(rig: Rig):
    ann = await someone(rig, "ann", Role.REP)
    (key,) = (await rig.stranger.get("/.well-known/jwks.json")).json()["keys"]
    claims = jwt.decode(
        ann.tokens["access_token"],
        jwt.PyJWK(key),
        algorithms=["EdDSA"],
        audience="gnomon-api",
        options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
    )
    assert claims["sub"] == ann.id


# Sessions


async def refresh(rig: Rig, tokens: dict[str, Any]) -> httpx.Response:
    return await rig.stranger.post("/v1/token/refresh", json={"refresh_token": tokens["refresh_token"]})


async def test_a_stolen_refresh_token_ends_the_session_and_its_person_is_told(rig: Rig):
    ann = await someone(rig, "ann", Role.OPERATOR)
    second = (await refresh(rig, ann.tokens)).json()
    third = (await refresh(rig, second)).json()
    assert (await refresh(rig, ann.tokens)).status_code == 401
    assert (await refresh(rig, third)).status_code == 401
    notices = (await ann.log_in()).json()["notices"]
    assert [one["notice"] for one in notices] == ["session-stolen"]
    assert "notices" not in (await ann.log_in()).json()


async def test_who_logs_out_is_out(rig: Rig):
    ann = await someone(rig, "ann", Role.OPERATOR)
    body = {"refresh_token": ann.tokens["refresh_token"]}
    for _ in range(2):
        assert (await rig.stranger.post("/v1/logout", json=body)).status_code == 204
    assert (await refresh(rig, ann.tokens)).status_code == 401


async def test_one_changes_ones_own_password_and_factor(rig: Rig):
    ann = await someone(rig, "ann", Role.OPERATOR)
    weak = {"password": PASSWORD.reveal(), "new_password": "password1234", "code": ann.code()}
    answer = await rig.stranger.put("/v1/me/password", json=weak, headers=ann.bearer)
    assert (answer.status_code, slug(answer)) == (400, "weak-password")
    proof = {"password": PASSWORD.reveal(), "code": ann.code()}
    seed = (await rig.stranger.post("/v1/me/factor", json=proof, headers=ann.bearer)).json()["totp_seed"]
    code = totp.code_at(seed, totp.step_of(rig.clock.now_ms()))
    done = await rig.stranger.post("/v1/me/factor/confirm", json={"code": code}, headers=ann.bearer)
    assert len(done.json()["recovery_codes"]) == 10
    ann.seed = seed
    change = {"password": PASSWORD.reveal(), "new_password": "heather over granite wind", "code": ann.code()}
    assert (await rig.stranger.put("/v1/me/password", json=change, headers=ann.bearer)).status_code == 204
    assert (await ann.get("/v1/me")).status_code == 401


async def test_each_recovery_code_opens_another_factor_once_however_it_is_typed(rig: Rig):
    ann = await someone(rig, "ann", Role.OPERATOR)
    proof = {"password": PASSWORD.reveal(), "code": ann.code()}
    begun = (await rig.stranger.post("/v1/me/factor", json=proof, headers=ann.bearer)).json()
    ann.seed, ann.step = begun["totp_seed"], 0
    done = await rig.stranger.post("/v1/me/factor/confirm", json={"code": ann.code()}, headers=ann.bearer)
    spell = (str, str.upper, "-".join, " ".join, lambda code: f" {code}\n")
    for number, code in enumerate(done.json()["recovery_codes"]):
        body = {"password": PASSWORD.reveal(), "code": spell[number % len(spell)](code)}
        answers = [
            (await rig.stranger.post("/v1/me/factor", json=body, headers=ann.bearer)).status_code
            for _ in range(2)
        ]
        assert answers == [200, 401]
    assert (await ann.get("/v1/me")).json()["recovery_codes_left"] == 0


# Systems


async def client_of(rig: Rig, role: Role = Role.CCS) -> tuple[str, str]:
    client, secret = await rig.services.people.clients.add("care", role, SYSTEM, held=False)
    return client.id, secret.reveal()


@pytest.mark.parametrize("way", ["form", "basic"])
async def test_a_service_gets_a_token_either_way(rig: Rig, way: str):
    id, secret = await client_of(rig)
    form = {"grant_type": "client_credentials", "scope": "premises everything"}
    if way == "form":
        answer = await rig.stranger.post("/v1/token", data=form | {"client_id": id, "client_secret": secret})
    else:
        answer = await rig.stranger.post("/v1/token", data=form, auth=(id, secret))
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    token = answer.json()
    assert (token["token_type"], token["expires_in"], token["scope"]) == ("Bearer", 600, "premises")
    assert "refresh_token" not in token
    headers = {"Authorization": f"Bearer {token['access_token']}"}
    assert (await rig.stranger.get("/v1/premises/home-7", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("form", "fields", "status", "error"),
    [
        ({}, {}, 400, "invalid_request"),
        ({"grant_type": "password"}, {}, 400, "unsupported_grant_type"),
        (ASKED, {}, 401, "invalid_client"),
        (ASKED | {"client_id": "c-x", "client_secret": "y"}, {}, 401, "invalid_client"),
        (ASKED, {"Authorization": "Basic !!!"}, 401, "invalid_client"),
        (ASKED, {"Authorization": "Basic eA=="}, 401, "invalid_client"),
        (ASKED | {"client_secret": "y"}, {"Authorization": "Basic eDp5"}, 400, "invalid_request"),
        (ASKED, {"Content-Type": "application/json"}, 400, "invalid_request"),
    ],
)
async def test_the_token_endpoint_refuses_as_oauth_has_it(
    rig: Rig, form: dict[str, str], fields: dict[str, str], status: int, error: str
):
    answer = await rig.stranger.post("/v1/token", data=form, headers={"Content-Type": FORM} | fields)
    assert (answer.status_code, answer.json()) == (status, {"error": error})
    assert ("www-authenticate" in answer.headers) is (status == 401)


async def test_a_parameter_sent_twice_is_refused_and_one_unknown_ignored(rig: Rig):
    id, secret = await client_of(rig)
    body = f"grant_type=client_credentials&client_id={id}&client_secret={secret}"
    headers = {"Content-Type": FORM}
    twice = await rig.stranger.post("/v1/token", content=body + "&client_id=c-x", headers=headers)
    assert twice.json() == {"error": "invalid_request"}
    assert (await rig.stranger.post("/v1/token", content=body + "&audience=x", headers=headers)).is_success


async def test_basic_credentials_are_percent_decoded(rig: Rig):
    id, secret = await client_of(rig)
    spelled = base64.b64encode(f"{id.replace('-', '%2D')}:{secret.replace('_', '%5F')}".encode()).decode()
    answer = await rig.stranger.post(
        "/v1/token", data={"grant_type": "client_credentials"}, headers={"Authorization": f"Basic {spelled}"}
    )
    assert answer.status_code == 200


# Officers


async def officers(rig: Rig) -> tuple[Someone, Someone]:
    return await someone(rig, "ann", Role.SECURITY), await someone(rig, "bob", Role.SECURITY)


async def test_a_weighty_act_needs_a_fresh_factor_for_exactly_this(rig: Rig):
    ann, _ = await officers(rig)
    body = {"login": "eve", "role": "operator"}
    missing = await rig.stranger.post("/v1/people", json=body, headers=ann.bearer)
    assert (missing.status_code, slug(missing)) == (401, "insufficient-user-authentication")
    answer = await ann.send("POST", "/v1/people", Action.ROLE_GRANT, body)
    assert slug(answer) == "insufficient-user-authentication"
    assert (await ann.send("POST", "/v1/people", Action.PRINCIPAL_WRITE, body)).status_code == 201


@pytest.mark.parametrize("action", ["revoke", "event.approve", "thing.read"])
async def test_a_word_that_confirms_nothing_is_refused_with_those_that_do(rig: Rig, action: str):
    ann, _ = await officers(rig)
    asked = {"code": "000000", "action": action, "target": "POST /x", "body_sha256": "0" * 64}
    answer = await rig.stranger.post("/v1/step-up", json=asked, headers=ann.bearer)
    assert (answer.status_code, slug(answer)) == (400, "invalid-request")
    words = answer.json()["detail"].partition(": ")[2].split(", ")
    declared = {route.operation.action for route in all_routes(rig.services) if route.operation.confirmed}
    assert words == sorted(declared)
    assert {"certificate.revoke", "revoke_all"} < declared
    assert Action.EVENT_APPROVE not in declared


async def test_an_account_is_made_by_one_and_approved_by_another(rig: Rig):
    ann, bob = await officers(rig)
    made = await ann.send("POST", "/v1/people", Action.PRINCIPAL_WRITE, {"login": "eve", "role": "operator"})
    new = made.json()
    assert made.headers["location"] == f"/v1/people/{new['person']['id']}"
    assert new["person"]["state"] == "held"
    body = {"invitation": new["invitation"], "password": PASSWORD.reveal()}
    early = await rig.stranger.post("/v1/invitations/accept", json=body)
    assert (early.status_code, slug(early)) == (409, "approval-needed")
    waiting = (await bob.get("/v1/approvals")).json()["items"]
    assert [one["id"] for one in waiting] == [new["approval"]["id"]]
    path = f"/v1/approvals/{new['approval']['id']}/approve"
    assert slug(await ann.send("POST", path, Action.APPROVAL_WRITE)) == "forbidden"
    done = await bob.send("POST", path, Action.APPROVAL_WRITE)
    assert (done.status_code, done.json()["decision"]) == (200, "done")
    assert slug(await bob.send("POST", path, Action.APPROVAL_WRITE)) == "approval-closed"
    eve = await accepted(rig, "eve", new["person"]["id"], new["invitation"])
    assert (await eve.get("/v1/status")).status_code == 200
    assert (await eve.get("/v1/approvals")).json()["items"] == []
    taken = await ann.send("POST", "/v1/people", Action.PRINCIPAL_WRITE, {"login": "EVE", "role": "rep"})
    assert slug(taken) == "login-taken"


async def test_a_role_a_reset_and_a_client_wait_and_stopping_does_not(rig: Rig):
    ann, bob = await officers(rig)
    eve = await someone(rig, "eve", Role.OPERATOR)
    person = f"/v1/people/{eve.id}"
    role = await ann.send("PUT", f"{person}/role", Action.ROLE_GRANT, {"role": "auditor"})
    assert (role.status_code, role.json()["done"]) == (202, False)
    assert (await eve.get("/v1/status")).status_code == 200
    await bob.send("POST", f"/v1/approvals/{role.json()['approval']['id']}/approve", Action.APPROVAL_WRITE)
    assert (await eve.get("/v1/me")).status_code == 401, "the sessions of the old role are over"
    await eve.log_in()
    assert (await eve.get("/v1/audit")).status_code == 200
    reset = await ann.send("POST", f"{person}/reset", Action.PRINCIPAL_WRITE)
    assert reset.status_code == 202
    refused = f"/v1/approvals/{reset.json()['approval']['id']}/refuse"
    assert (await bob.send("POST", refused, Action.APPROVAL_WRITE)).json()["decision"] == "refused"
    made = await ann.send("POST", "/v1/clients", Action.PRINCIPAL_WRITE, {"name": "care", "role": "ccs"})
    assert made.status_code == 201
    await bob.send("POST", f"/v1/approvals/{made.json()['approval']['id']}/approve", Action.APPROVAL_WRITE)
    client = made.json()["client"]["id"]
    more = await bob.send("POST", f"/v1/clients/{client}/secrets", Action.PRINCIPAL_WRITE)
    assert more.status_code == 202
    for method, path in (
        ("DELETE", f"/v1/clients/{client}/secrets/old"),
        ("POST", f"/v1/clients/{client}/disable"),
        ("POST", f"{person}/revoke"),
        ("POST", f"{person}/disable"),
    ):
        assert (await ann.send(method, path, Action.PRINCIPAL_WRITE)).status_code == 200
    assert (await ann.get("/v1/clients")).json()["items"][0]["state"] == "disabled"
    assert (await ann.get(person)).json()["state"] == "disabled"
    assert (await eve.log_in()).status_code == 401


async def test_revoke_all_by_two_ends_every_token(rig: Rig):
    ann, bob = await officers(rig)
    asked = await ann.send("POST", "/v1/revoke-all", Action.REVOKE_ALL)
    assert asked.status_code == 202
    path = f"/v1/approvals/{asked.json()['approval']['id']}/approve"
    assert (await bob.send("POST", path, Action.APPROVAL_WRITE)).status_code == 200
    assert [(await one.get("/v1/me")).status_code for one in (ann, bob)] == [401, 401]
    assert (await refresh(rig, ann.tokens)).status_code == 401
    await ann.log_in()
    assert (await ann.get("/v1/me")).status_code == 200


async def test_a_new_signing_key_takes_two_as_well(rig: Rig):
    ann, bob = await officers(rig)
    body = {"at_once": True}
    asked = await ann.send("POST", "/v1/token-keys/rotate", Action.SIGNING_KEY_WRITE, body)
    path = f"/v1/approvals/{asked.json()['approval']['id']}/approve"
    assert (await bob.send("POST", path, Action.APPROVAL_WRITE)).status_code == 200
    assert (await ann.get("/v1/me")).status_code == 401


async def test_the_first_officer_comes_from_the_secret_that_the_host_printed(rig: Rig):
    secret = rig.services.people.first_secret
    assert secret is not None
    body = {"secret": WRONG, "login": "ann", "password": PASSWORD.reveal()}
    assert (await rig.stranger.post("/v1/people/first", json=body)).status_code == 401
    body["secret"] = secret.reveal()
    made = await rig.stranger.post("/v1/people/first", json=body)
    ann = Someone(rig, "ann", "", made.json()["totp_seed"], {}, 0)
    assert (await ann.log_in()).status_code == 200
    assert (await rig.stranger.post("/v1/people/first", json=body)).status_code == 401
    second = await ann.send(
        "POST", "/v1/people", Action.PRINCIPAL_WRITE, {"login": "bob", "role": "security"}
    )
    assert "approval" not in second.json()


@pytest.mark.parametrize("role", sorted(set(Role) - {Role.SECURITY}))
async def test_nobody_else_reads_or_changes_people(rig: Rig, role: Role):
    caller = rig.by[role]
    for method, path in (
        ("GET", "/v1/people"),
        ("POST", "/v1/people"),
        ("GET", "/v1/people/p-abcdefghij234567"),
        ("POST", "/v1/people/p-abcdefghij234567/disable"),
        ("GET", "/v1/clients"),
        ("POST", "/v1/clients"),
        ("POST", "/v1/revoke-all"),
        ("POST", "/v1/token-keys/rotate"),
    ):
        assert (await caller.request(method, path)).status_code == 403, (method, path)


async def test_what_is_not_there_is_404_to_an_officer(rig: Rig):
    ann, _ = await officers(rig)
    assert slug(await ann.get("/v1/people/p-abcdefghij234567")) == "person-not-found"
    assert slug(await ann.get("/v1/people/nobody")) == "person-not-found"
    assert slug(await ann.get("/v1/approvals/a-nothing")) == "approval-not-found"
    gone = await ann.send("POST", "/v1/clients/c-nothing/disable", Action.PRINCIPAL_WRITE)
    assert slug(gone) == "client-not-found"


async def test_a_token_of_an_older_epoch_is_nothing(rig: Rig):
    ann = await someone(rig, "ann", Role.REP)
    for epochs in (Epochs(0, 1), Epochs(1, 0), Epochs(2, 1), Epochs(1, 2)):
        token = rig.services.people.tokens.issue(ann.id, Role.REP, epochs).token
        answer = await rig.stranger.get("/v1/me", headers={"Authorization": f"Bearer {token.reveal()}"})
        assert answer.status_code == 401


async def test_no_answer_but_the_first_holds_a_secret(rig: Rig):
    ann, _ = await officers(rig)
    made = await ann.send("POST", "/v1/people", Action.PRINCIPAL_WRITE, {"login": "eve", "role": "rep"})
    secret = Secret(made.json()["invitation"])
    for path in ("/v1/people", f"/v1/people/{made.json()['person']['id']}", "/v1/approvals", "/v1/audit"):
        reader = rig.http if path == "/v1/audit" else rig.stranger
        answer = await reader.get(path, headers={} if path == "/v1/audit" else ann.bearer)
        assert secret.reveal() not in answer.text
        assert "argon2" not in answer.text
    assert VIA.channel == "http"
