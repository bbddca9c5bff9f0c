"""Who misbehaves on the broker of a whole service, is revoked or suspended: what becomes of them."""

import asyncio
import time

import pytest

from gnomon import doctor
from infra.settings import Settings
from infra.settings.model import BrokerSettings
from tests.system.child import Gnomon
from tests.system.mqtt import Thing, connected, shadow_topic, until

pytestmark = pytest.mark.integration

GONE_S_MAX = 2.0


def row_of(gnomon: Gnomon, action: str, target: str):
    cursor: dict[str, str] = {}
    while True:
        page = gnomon.http.get("/v1/audit", params=cursor).json()
        for row in page["items"]:
            if row["action"] == action and row["target"].startswith(target):
                return row
        if page.get("next") is None:
            return None
        cursor = {"cursor": page["next"]}


def test_who_subscribes_to_what_is_foreign_is_thrown_out_and_stands_in_the_audit(gnomon: Gnomon):
    spy, honest = gnomon.new(), gnomon.new()
    with connected(gnomon, honest) as bystander, connected(gnomon, spy) as intruder:
        bystander.listen()
        intruder.subscribe("$aws/things/+/shadow/#", "$SYS/#")
        intruder.wait_connected(False)
        bystander.report({"n": 1})
        assert bystander.is_connected
        assert intruder.received == []
    until(lambda: row_of(gnomon, "topic.subscribe", "filter/") is not None, "the audit has it", 15)
    assert "suspended_at" not in gnomon.http.get(f"/v1/things/{spy}").json()


def test_a_key_in_two_hands_is_put_into_quarantine(gnomon: Gnomon):
    name = gnomon.new()
    for _ in range(5):
        one = Thing(gnomon, name).connect()
        two = Thing(gnomon, name).connect()
        one.disconnect()
        two.break_off()
    until(lambda: "suspended_at" in gnomon.http.get(f"/v1/things/{name}").json(), "it is suspended")
    row = row_of(gnomon, "thing.suspend", f"thing/{name}")
    assert (row["actor"], row["role"]) == ("gnomon.watch", "system")
    assert gnomon.metric("gnomon_quarantines_total") >= 1


def test_a_suspended_thing_is_sent_away_hears_nothing_and_goes_on_when_it_is_let(gnomon: Gnomon):
    name = gnomon.new()
    with connected(gnomon, name) as thing:
        thing.listen()
        thing.report({"n": 1})
        assert gnomon.http.post(f"/v1/things/{name}/suspend").status_code == 200
        thing.wait_connected(False)
        gnomon.desire(name, {"n": 2})
        assert thing.stays_silent("delta")
        assert gnomon.shadow(name)["state"]["reported"] == {"n": 1}
        assert gnomon.http.post(f"/v1/things/{name}/resume").status_code == 200
        until(lambda: thing.is_connected, "it comes back")
        thing.listen()
        thing.wait_on(f"{shadow_topic(name)}/update/delta")


def test_of_what_is_revoked_nothing_more_is_taken_and_others_go_on(gnomon: Gnomon):
    names, other = [gnomon.new() for _ in range(4)], gnomon.new()
    things = [Thing(gnomon, name).connect() for name in names]
    taken: list[float] = []
    with connected(gnomon, other) as bystander:
        bystander.listen()
        for name, thing in zip(names, things, strict=True):
            thing.listen()
            thing.report({"n": 0})
            began = time.monotonic()
            assert gnomon.http.post(f"/v1/things/{name}/revoke").status_code == 200
            while time.monotonic() < began + 0.3:
                thing.send(f"{shadow_topic(name)}/update", b'{"state": {"reported": {"n": 1}}}')
                time.sleep(0.005)
            answers = [one.at_s - began for one in thing.received if one.topic.endswith("/update/accepted")]
            taken.append(max(answers))
        bystander.report({"n": 9})
        assert bystander.is_connected
    for thing in things:
        thing.disconnect()
    print("last accepted after the call, s:", [round(one, 3) for one in taken])
    assert max(taken) < GONE_S_MAX
    assert gnomon.metric("gnomon_revocations_open") == 0


def test_a_removed_thing_is_out_at_once(gnomon: Gnomon):
    name = gnomon.new()
    with connected(gnomon, name) as thing:
        assert gnomon.http.delete(f"/v1/things/{name}").status_code == 204
        thing.wait_connected(False)


def test_the_doctor_tries_the_rules_of_a_running_broker(gnomon: Gnomon):
    settings = Settings(directory=gnomon.var, broker=BrokerSettings())
    finding = asyncio.run(doctor.check_broker_rules(settings))
    assert finding.good, finding
    assert str(gnomon.device_port) in finding.found
    assert gnomon.http.get("/v1/things/gnomon-canary-1").status_code == 404
    refused = gnomon.http.post(
        "/v1/things",
        json={"name": "gnomon-canary-1", "kind": "device", "model": "m", "premises": "home-1"},
    )
    assert refused.status_code == 400
