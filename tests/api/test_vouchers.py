"""Vouchers, labels, PINs and certificates by REST: the code is shown once, and others' do not exist."""

import httpx
import msgspec
import pytest

from registry.models import NewThing, ThingKind
from security.policy import Action, Principal, Role
from tests.api.device_rig import EST, PKCS10, certificates, certified, device, request
from tests.api.rig import HALL, HOME, OPERATOR, slug

WANTED = {"premises": HOME, "thing": HALL, "kind": "device"}
LABEL = {"eui64": "00:12:4B:00:01:A2:B3:C4", "code": "83FED3407A939723A5C639B26916D505C3B5"}
STRANGER = {"Authorization": "Bearer stranger"}


@pytest.fixture
def neighbour(rig):
    """Headers of a customer who lives elsewhere."""
    rig.tokens.holders["stranger"] = Principal("p-neighbour", Role.CUSTOMER, "account-other")
    return STRANGER


async def make(rig, **members):
    answer = await rig.by[Role.CUSTOMER].post("/v1/vouchers", json=WANTED | members)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_a_customer_makes_a_voucher_and_the_device_joins_with_it(rig):
    made = await make(rig)
    async with device(rig) as http:
        auth = httpx.BasicAuth(made["id"], made["code"])
        (issued,) = certificates(
            await http.post(f"{EST}/simpleenroll", content=request(), headers=PKCS10, auth=auth)
        )
    shown = (await rig.by[Role.CUSTOMER].get(f"/v1/vouchers/{made['id']}")).json()
    assert (shown["state"], shown["serial"]) == ("used", f"{issued.serial_number:032x}")
    assert made["code"] not in str(shown)
    listed = (await rig.by[Role.CUSTOMER].get(f"/v1/things/{HALL}/certificates")).json()
    assert [(one["serial"], one["state"]) for one in listed["items"]] == [(shown["serial"], "active")]
    assert listed["suspicions"] == 0


@pytest.mark.parametrize("role", [Role.CUSTOMER, Role.SECURITY])
async def test_where_the_thing_is_need_not_be_said_by_who_may_not_read_it(rig, role):
    answer = await rig.by[role].post("/v1/vouchers", json={"thing": HALL})
    assert answer.status_code == 201, answer.text
    shown = (await rig.by[Role.CUSTOMER].get(f"/v1/vouchers/{answer.json()['id']}")).json()
    assert (shown["thing"], shown["premises"]) == (HALL, HOME)
    absent = await rig.by[role].post("/v1/vouchers", json={"thing": "nobody"})
    assert (absent.status_code, slug(absent)) == (404, "thing-not-found")


async def test_a_voucher_by_the_things_name_alone_is_not_made_for_somebody_elses(rig, neighbour):
    foreign, nothing = [
        await rig.http.post("/v1/vouchers", json={"thing": thing}, headers=neighbour)
        for thing in (HALL, "nowhere")
    ]
    assert foreign.status_code == nothing.status_code == 404
    assert {**foreign.json(), "requestId": ""} == {**nothing.json(), "requestId": ""}
    assert (await rig.by[Role.CUSTOMER].get(f"/v1/vouchers?premises={HOME}")).json()["items"] == []


async def test_the_code_is_shown_once_and_kept_by_no_cache(rig):
    answer = await rig.by[Role.CUSTOMER].post("/v1/vouchers", json=WANTED)
    assert answer.headers["cache-control"] == "no-store"
    code = answer.json()["code"]
    for path in (answer.headers["location"], f"/v1/vouchers?premises={HOME}"):
        assert code not in (await rig.by[Role.CUSTOMER].get(path)).text
    assert code not in str(await rig.audit())


async def test_a_voucher_is_taken_back(rig):
    made = await make(rig)
    for _ in range(2):
        assert (await rig.by[Role.CUSTOMER].delete(f"/v1/vouchers/{made['id']}")).status_code == 204
    (shown,) = (await rig.by[Role.CUSTOMER].get(f"/v1/vouchers?premises={HOME}")).json()["items"]
    assert shown["state"] == "revoked"


async def test_a_fourth_voucher_of_premises_is_refused(rig):
    for _ in range(3):
        await make(rig)
    answer = await rig.by[Role.CUSTOMER].post("/v1/vouchers", json=WANTED)
    assert (answer.status_code, slug(answer)) == (409, "too-many-vouchers")


async def test_what_belongs_to_others_is_not_there(rig, neighbour):
    made = await make(rig)
    absent = "/v1/vouchers/v" + "a" * 16
    for method in ("GET", "DELETE"):
        foreign = await rig.http.request(method, f"/v1/vouchers/{made['id']}", headers=neighbour)
        nothing = await rig.http.request(method, absent, headers=neighbour)
        assert foreign.status_code == nothing.status_code == 404
        assert {**foreign.json(), "requestId": ""} == {**nothing.json(), "requestId": ""}
    assert (await rig.http.get(f"/v1/vouchers?premises={HOME}", headers=neighbour)).status_code == 404
    assert (await rig.http.post("/v1/vouchers", json=WANTED, headers=neighbour)).status_code == 404
    assert (await rig.http.get(f"/v1/things/{HALL}/certificates", headers=neighbour)).status_code == 404
    assert (await rig.by[Role.CUSTOMER].get(f"/v1/vouchers/{made['id']}")).json()["state"] == "issued"


@pytest.mark.parametrize(
    ("members", "status", "said"),
    [
        ({"thing": "nobody"}, 404, "thing-not-found"),
        ({"kind": "gateway"}, 409, "unfit-thing"),
        ({"model": "other"}, 409, "unfit-thing"),
        ({"kind": "meter"}, 400, "invalid-request"),
        ({"role": "operator"}, 400, "invalid-request"),
    ],
)
async def test_a_voucher_for_what_is_not_so_is_refused(rig, members, status, said):
    answer = await rig.by[Role.CUSTOMER].post("/v1/vouchers", json=WANTED | members)
    assert (answer.status_code, slug(answer)) == (status, said)
    assert (await rig.by[Role.CUSTOMER].get(f"/v1/vouchers?premises={HOME}")).json()["items"] == []


async def test_a_thing_elsewhere_is_told_like_one_that_is_nowhere(rig):
    await rig.services.registry.register(NewThing("there", ThingKind.DEVICE, "m", "home-8"), OPERATOR)
    answers = [
        await rig.by[Role.CUSTOMER].post("/v1/vouchers", json=WANTED | {"thing": thing})
        for thing in ("there", "nowhere")
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert len({str({**answer.json(), "requestId": ""}) for answer in answers}) == 1


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.AUDITOR, Role.VENDOR, Role.DEVICE])
async def test_who_makes_no_vouchers_makes_none(rig, role):
    assert (await rig.by[role].post("/v1/vouchers", json=WANTED)).status_code == 403


async def write(rig, method, path, body):
    """Send what an officer confirms by a fresh second factor."""
    content = msgspec.json.encode(body)
    return await rig.confirmed(
        Role.SECURITY, Action.INSTALL_CODE_WRITE, method, path, content, content_type="application/json"
    )


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/install-codes", {"items": [LABEL]}),
        ("DELETE", "/v1/install-codes/00124b0001a2b3c4", None),
        ("PUT", f"/v1/things/{HALL}/pin", {"pin": "123455"}),
    ],
)
async def test_what_is_written_about_labels_takes_a_second_factor_of_now(rig, method, path, body):
    answer = await rig.by[Role.SECURITY].request(method, path, json=body)
    assert (answer.status_code, slug(answer)) == (401, "insufficient-user-authentication")
    assert await rig.services.trust.vouchers._claims.load("00124b0001a2b3c4") is None


async def test_a_code_that_leaked_is_taken_back_and_stays_so(rig):
    await rig.services.registry.register(NewThing("00124b0001a2b3c4", ThingKind.DEVICE, "m", HOME), OPERATOR)
    path = "/v1/install-codes/00:12:4B:00:01:A2:B3:C4"
    missing = await write(rig, "DELETE", path, None)
    assert (missing.status_code, slug(missing)) == (404, "install-code-not-found")
    await write(rig, "POST", "/v1/install-codes", {"items": [LABEL]})
    for _ in range(2):
        assert (await write(rig, "DELETE", path, None)).status_code == 204
    again = await write(rig, "POST", "/v1/install-codes", {"items": [LABEL]})
    assert again.json() == {"added": 0, "known": ["00124b0001a2b3c4"]}
    async with device(rig) as http:
        auth = httpx.BasicAuth("00124B0001A2B3C4", LABEL["code"])
        refused = await http.post(f"{EST}/simpleenroll", content=request(), headers=PKCS10, auth=auth)
    assert (refused.status_code, slug(refused)) == (410, "code-over")
    rows = [(row["action"], row["target"]) for row in await rig.audit()]
    assert rows.count(("install_code.write", "claim/00124b0001a2b3c4")) == 2


async def test_labels_of_a_delivery_let_their_devices_in(rig):
    await rig.services.registry.register(NewThing("00124b0001a2b3c4", ThingKind.DEVICE, "m", HOME), OPERATOR)
    for added, known in ((1, []), (0, ["00124b0001a2b3c4"])):
        answer = await write(rig, "POST", "/v1/install-codes", {"items": [LABEL]})
        assert (answer.status_code, answer.json()) == (201, {"added": added, "known": known})
    async with device(rig) as http:
        auth = httpx.BasicAuth("00124B0001A2B3C4", LABEL["code"])
        answer = await http.post(f"{EST}/simpleenroll", content=request(), headers=PKCS10, auth=auth)
    assert certificates(answer)[0].subject.rfc4514_string() == "CN=00124b0001a2b3c4"


@pytest.mark.parametrize(
    ("items", "status"),
    [([LABEL | {"code": "83FED3407A932B71"}], 422), ([LABEL] * 2, 422), ([LABEL] * 17, 400), ("x", 400)],
)
async def test_a_batch_that_is_wrong_is_kept_out_whole(rig, items, status):
    answer = await write(rig, "POST", "/v1/install-codes", {"items": items})
    assert answer.status_code == status
    assert await rig.services.trust.vouchers._claims.load("00124b0001a2b3c4") is None


async def test_a_pin_is_kept_for_a_thing_that_is_there_by_who_may(rig):
    path = f"/v1/things/{HALL}/pin"
    assert (await write(rig, "PUT", path, {"pin": "123455"})).status_code == 204
    assert slug(await write(rig, "PUT", path, {"pin": "123456"})) == "invalid-pin"
    assert (await write(rig, "PUT", "/v1/things/nobody/pin", {"pin": "123455"})).status_code == 404
    assert (await rig.by[Role.CUSTOMER].put(path, json={"pin": "123455"})).status_code == 403
    assert "123455" not in str(await rig.audit())


async def test_a_new_owner_sees_no_certificate_of_before(rig):
    await certified(rig)
    rig.clock.advance(10)
    await rig.services.registry.hand_over(HOME, "account-new", OPERATOR)
    rig.tokens.holders["new"] = Principal("p-new", Role.CUSTOMER, "account-new")
    headers = {"Authorization": "Bearer new"}
    path = f"/v1/things/{HALL}/certificates"
    assert (await rig.http.get(path, headers=headers)).json()["items"] == []
    assert len((await rig.by[Role.SECURITY].get(path)).json()["items"]) == 1


async def test_vouchers_of_before_let_nobody_in_and_are_not_the_new_owners_to_see(rig):
    made = await make(rig)
    rig.clock.advance(10)
    await rig.services.registry.hand_over(HOME, "account-new", OPERATOR)
    rig.tokens.holders["new"] = Principal("p-new", Role.CUSTOMER, "account-new")
    headers = {"Authorization": "Bearer new"}
    path = f"/v1/vouchers/{made['id']}"
    assert (await rig.http.get(f"/v1/vouchers?premises={HOME}", headers=headers)).json()["items"] == []
    for method in ("GET", "DELETE"):
        answer = await rig.http.request(method, path, headers=headers)
        assert (answer.status_code, slug(answer)) == (404, "voucher-not-found")
    async with device(rig) as http:
        auth = httpx.BasicAuth(made["id"], made["code"])
        refused = await http.post(f"{EST}/simpleenroll", content=request(), headers=PKCS10, auth=auth)
    assert refused.status_code == 403
    assert (await rig.http.post("/v1/vouchers", json=WANTED, headers=headers)).status_code == 201
