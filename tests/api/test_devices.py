"""The devices' API: who joins how, and what a certificate opens. In process; TLS has tests of its own."""

import asyncio
import base64

import httpx
import pytest

from registry.models import NewThing, ThingKind
from security.audit import INSIDE
from security.secret import Secret
from security.trust import keys
from security.trust.pins import device_answer, server_proof
from security.trust.requests import REQUEST_BYTES_MAX
from tests.api.device_rig import EST, PKCS10, certificates, certified, device, request, voucher
from tests.api.rig import AWS, HALL, HOME, OPERATOR, slug
from tests.covers import covers

ATTIC, GATEWAY = "attic", "home-7-gateway"
ENROL = f"{EST}/simpleenroll"
RENEW = f"{EST}/simplereenroll"
PIN = "/.well-known/gnomon/pin"


async def add(rig, name, kind=ThingKind.DEVICE, **facts):
    await rig.services.registry.register(NewThing(name, kind, "acme", HOME, **facts), OPERATOR)


# ---------------------------------------------------------------------------- joining


async def test_anyone_gets_the_authorities(rig):
    async with device(rig) as http:
        found = certificates(await http.get(f"{EST}/cacerts"))
    authority = rig.services.trust.authority
    assert set(found) == {*authority.roots(), *authority.issuing()}


async def test_a_code_and_a_request_get_the_certificate_alone(rig):
    auth = await voucher(rig)
    async with device(rig) as http:
        (issued,) = certificates(await http.post(ENROL, content=request("x"), headers=PKCS10, auth=auth))
    assert issued.subject.rfc4514_string() == f"CN={HALL}"
    serial = f"{issued.serial_number:032x}"
    assert (await rig.services.trust.issued.by_serial(serial)).thing == HALL


async def test_a_request_may_also_be_der_or_pem(rig):
    der = keys.request(keys.make_key(), HALL)
    auth = await voucher(rig)
    async with device(rig) as http:
        for body in (der, base64.encodebytes(der)):
            assert certificates(await http.post(ENROL, content=body, headers=PKCS10, auth=auth))


@covers("A8")
async def test_wrong_code_rejected_and_audited(rig):
    auth = await voucher(rig)
    known = base64.b64decode(auth._auth_header.partition(" ")[2]).decode().partition(":")[0]
    answers = []
    async with device(rig) as http:
        for id in (known, "v" + "a" * 16):
            wrong = httpx.BasicAuth(id, "AAAA" * 6 + "AAA")
            answers.append(await http.post(ENROL, content=request(), headers=PKCS10, auth=wrong))
    assert [(answer.status_code, slug(answer)) for answer in answers] == [(401, "wrong-code")] * 2
    assert {answer.headers["www-authenticate"] for answer in answers} == {'Basic realm="gnomon enrolment"'}
    bodies = [{**answer.json(), "requestId": ""} for answer in answers]
    assert bodies[0] == bodies[1]
    rows = [row for row in await rig.audit() if row["decision"] == "refused"]
    assert {(row["action"], row["target"], row["actor"]) for row in rows} == {
        ("certificate.enrol", f"claim/{known}", "(unknown)"),
        ("certificate.enrol", "claim", "(unknown)"),
    }
    assert await rig.services.trust.issued.of_thing(HALL) == ()


@covers("O11")
async def test_claim_code_reuse_409(rig):
    auth = await voucher(rig)
    first = request()
    async with device(rig) as http:
        issued = certificates(await http.post(ENROL, content=first, headers=PKCS10, auth=auth))
        again = await http.post(ENROL, content=request(), headers=PKCS10, auth=auth)
        assert (again.status_code, slug(again)) == (409, "code-used")
        assert certificates(await http.post(ENROL, content=first, headers=PKCS10, auth=auth)) == issued


async def test_a_request_that_comes_through_a_gateway_binds_the_code_to_it(rig):
    await add(rig, GATEWAY, ThingKind.GATEWAY)
    issued, _ = await certified(rig, GATEWAY)
    auth = await voucher(rig)
    first = request()
    async with device(rig, issued.serial) as through:
        assert certificates(await through.post(ENROL, content=first, headers=PKCS10, auth=auth))
    async with device(rig) as http:
        assert slug(await http.post(ENROL, content=first, headers=PKCS10, auth=auth)) == "code-used"


async def test_a_typing_error_is_named_and_costs_nothing(rig):
    async with device(rig) as http:
        wrong = httpx.BasicAuth("v" + "a" * 16, "AAAA" * 6 + "AAB")
        answer = await http.post(ENROL, content=request(), headers=PKCS10, auth=wrong)
    assert (answer.status_code, slug(answer)) == (422, "mistyped-code")
    assert "mistyped" in answer.json()["detail"]


async def test_five_wrong_codes_lock_and_say_for_how_long(rig):
    auth = await voucher(rig)
    id = base64.b64decode(auth._auth_header.partition(" ")[2]).decode().partition(":")[0]
    wrong = httpx.BasicAuth(id, "AAAA" * 6 + "AAA")
    async with device(rig) as http:
        for _ in range(5):
            await http.post(ENROL, content=request(), headers=PKCS10, auth=wrong)
        answer = await http.post(ENROL, content=request(), headers=PKCS10, auth=auth)
    assert (answer.status_code, slug(answer)) == (429, "too-many-tries")
    assert answer.headers.get_list("retry-after") == ["3600"]


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"nonsense", PKCS10, 400),
        (b"A" * (2 * REQUEST_BYTES_MAX + 1), PKCS10, 413),
        (b"A" * (REQUEST_BYTES_MAX + 1), PKCS10, 400),
        (b"{}", {"Content-Type": "application/json"}, 415),
    ],
)
async def test_what_is_no_request_is_refused_and_uses_nothing_up(rig, content, headers, status):
    auth = await voucher(rig)
    async with device(rig) as http:
        assert (await http.post(ENROL, content=content, headers=headers, auth=auth)).status_code == status
        assert certificates(await http.post(ENROL, content=request(), headers=PKCS10, auth=auth))


async def test_without_a_code_nobody_joins(rig):
    async with device(rig) as http:
        assert (await http.post(ENROL, content=request(), headers=PKCS10)).status_code == 401
        bearer = {**PKCS10, "Authorization": f"Bearer {rig.token}"}
        assert (await http.post(ENROL, content=request(), headers=bearer)).status_code == 401


@pytest.mark.parametrize("path", ["serverkeygen", "fullcmc", "csrattrs"])
async def test_we_make_no_keys_for_devices(rig, path):
    async with device(rig) as http:
        assert (await http.post(f"{EST}/{path}", headers=PKCS10)).status_code == 404


async def test_a_certificate_is_renewed_late_in_its_life_by_itself_alone(rig):
    issued, _ = await certified(rig)
    async with device(rig, issued.serial) as http:
        early = await http.post(RENEW, content=request(), headers=PKCS10)
        assert (early.status_code, slug(early)) == (409, "renewal-too-early")
        assert int(early.headers["retry-after"]) > 86_400
        rig.clock.advance(250 * 86_400)
        (new,) = certificates(await http.post(RENEW, content=request(), headers=PKCS10))
    assert new.subject.rfc4514_string() == f"CN={HALL}"
    async with device(rig) as http:
        assert (await http.post(RENEW, content=request(), headers=PKCS10)).status_code == 401


# ---------------------------------------------------------------------------- what a certificate opens


async def test_a_device_reads_and_reports_its_own_shadow_and_sees_no_other(rig):
    await add(rig, ATTIC)
    issued, _ = await certified(rig)
    async with device(rig, issued.serial) as http:
        said = await http.post(AWS, json={"state": {"reported": {"set": 20}}})
        assert said.status_code == 200
        assert (await http.get(AWS)).json()["state"] == {"reported": {"set": 20}}
        for thing in (ATTIC, "nobody"):
            other = await http.post(f"/things/{thing}/shadow", json={"state": {"reported": {"set": 1}}})
            assert (other.status_code, other.json()["message"]) == (404, "Thing not found")
    rows = (await rig.http.get(f"/v1/things/{HALL}/shadows/@classic/history")).json()["items"]
    assert [(row["actor"], row["role"]) for row in rows] == [(HALL, "device")]
    assert (await rig.http.get(f"/v1/things/{ATTIC}/shadows/@classic")).status_code == 404


async def test_a_thing_that_is_registered_without_a_certificate_is_nobody_here(rig):
    await add(rig, ATTIC, has_certificate=False)
    issued = rig.services.trust.authority.sign_thing(ATTIC, keys.make_key().public_key())
    await rig.services.trust.issued.record(issued, ATTIC, OPERATOR)
    async with device(rig, issued.serial) as http:
        assert (await http.get(f"/things/{ATTIC}/shadow")).status_code == 401


async def test_a_certificate_of_an_earlier_thing_of_the_name_is_nobodys(rig):
    issued, _ = await certified(rig)
    await rig.services.registry.remove(HALL, OPERATOR)
    await add(rig, HALL)
    async with device(rig, issued.serial) as http:
        assert (await http.get(f"/things/{HALL}/shadow")).status_code == 401


async def test_a_gateway_speaks_for_what_is_attached_to_it_and_for_nothing_else(rig):
    await add(rig, GATEWAY, ThingKind.GATEWAY)
    await add(rig, ATTIC, has_certificate=False)
    issued, _ = await certified(rig, GATEWAY)
    say = {"state": {"reported": {"on": True}}}
    async with device(rig, issued.serial) as http:
        assert (await http.post(f"/things/{ATTIC}/shadow", json=say)).status_code == 404
        await rig.services.registry.attach(GATEWAY, ATTIC, OPERATOR)
        assert (await http.post(f"/things/{ATTIC}/shadow", json=say)).status_code == 200
        assert (await http.post(f"/things/{HALL}/shadow", json=say)).status_code == 404
        assert (await http.post(f"/things/{GATEWAY}/shadow", json=say)).status_code == 200
        await rig.services.registry.detach(GATEWAY, ATTIC, OPERATOR)
        assert (await http.post(f"/things/{ATTIC}/shadow", json=say)).status_code == 404


async def test_a_revoked_certificate_opens_nothing(rig):
    issued, _ = await certified(rig)
    async with device(rig, issued.serial) as http:
        assert (await http.post(AWS, json={"state": {"reported": {"on": True}}})).status_code == 200
        await rig.services.trust.issued.revoke([issued.serial], "key_compromise", OPERATOR)
        refused = await http.post(AWS, json={"state": {"reported": {"on": False}}})
        assert refused.status_code == 401
    assert (await rig.http.get(AWS)).json()["state"]["reported"] == {"on": True}


@pytest.mark.parametrize("act", ["revoke", "suspend", "remove"])
async def test_a_thing_that_counts_no_longer_is_refused_at_once(rig, act):
    issued, _ = await certified(rig)
    async with device(rig, issued.serial) as http:
        assert (await http.get(AWS)).status_code == 404  # no shadow yet
        await getattr(rig.services.registry, act)(HALL, OPERATOR)
        assert (await http.get(AWS)).status_code == 401


async def test_an_unknown_or_expired_certificate_opens_nothing(rig):
    issued, _ = await certified(rig)
    for serial in (None, "0" * 32):
        async with device(rig, serial) as http:
            assert (await http.get(AWS)).status_code == 401
    rig.clock.advance(366 * 86_400)
    async with device(rig, issued.serial) as http:
        assert (await http.get(AWS)).status_code == 401


async def test_a_persons_token_is_worth_nothing_here_and_their_routes_are_not_there(rig):
    async with device(rig) as http:
        bearer = {"Authorization": f"Bearer {rig.token}"}
        assert (await http.get(AWS, headers=bearer)).status_code == 401
        assert (await http.get("/v1/things", headers=bearer)).status_code == 404


async def test_a_certificate_is_worth_nothing_on_the_peoples_listener(rig):
    issued, _ = await certified(rig)
    headers = {"X-Client-Cert": issued.certificate_pem.decode().replace("\n", "")}
    assert (await rig.stranger.get(AWS, headers=headers)).status_code == 401
    assert (await rig.http.get(f"{EST}/cacerts")).status_code == 404


# ---------------------------------------------------------------------------- the PIN


async def prove(http, lfdi, pin, nonce=bytes(16)):
    """Do what a device does; return whether it believes the server, and the last answer."""
    begun = await http.post(PIN, json={"nonce": base64.b64encode(nonce).decode()})
    if begun.status_code != 200:
        return False, begun
    proof, ours = (base64.b64decode(begun.json()[name]) for name in ("proof", "nonce"))
    if proof != server_proof(pin, lfdi, nonce):
        return False, begun
    answer = base64.b64encode(device_answer(pin, lfdi, ours, nonce)).decode()
    return True, await http.post(PIN, json={"answer": answer})


async def test_device_and_server_prove_the_pin_to_each_other(rig):
    issued, _ = await certified(rig)
    await rig.services.trust.pins.keep(HALL, Secret("123455"), OPERATOR, INSIDE)
    async with device(rig, issued.serial) as http:
        believes, last = await prove(http, issued.lfdi, Secret("123455"))
    assert (believes, last.status_code) == (True, 204)


@covers("O2")
async def test_wrong_pin_device_refuses_server(rig):
    issued, _ = await certified(rig)
    await rig.services.trust.pins.keep(HALL, Secret("111115"), OPERATOR, INSIDE)
    async with device(rig, issued.serial) as http:
        believes, _ = await prove(http, issued.lfdi, Secret("123455"))
    assert not believes


async def test_a_pin_is_nothing_without_a_certificate(rig):
    await rig.services.trust.pins.keep(HALL, Secret("123455"), OPERATOR, INSIDE)
    async with device(rig) as http:
        believes, answer = await prove(http, "0" * 40, Secret("123455"))
        assert (believes, answer.status_code) == (False, 401)
        pin_as_code = httpx.BasicAuth(HALL, "123455")
        refused = await http.post(ENROL, content=request(), headers=PKCS10, auth=pin_as_code)
    assert refused.status_code == 422
    assert await rig.services.trust.issued.of_thing(HALL) == ()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"nonce": "AA=="},
        {"nonce": "!"},
        {"answer": "AA=="},
        {"nonce": "A", "answer": "A"},
        {"pin": "123455"},
    ],
)
async def test_what_is_no_step_of_the_exchange_is_refused(rig, body):
    issued, _ = await certified(rig)
    async with device(rig, issued.serial) as http:
        assert (await http.post(PIN, json=body)).status_code == 400


async def test_a_hundred_uses_of_one_code_by_http_give_one_certificate(rig):
    rig.services.trust.enrolment._tries._addresses._windows._times_max = 1_000
    auth = await voucher(rig)
    async with device(rig) as http:
        uses = [http.post(ENROL, content=request(), headers=PKCS10, auth=auth) for _ in range(100)]
        answers = await asyncio.gather(*uses)
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 99]
