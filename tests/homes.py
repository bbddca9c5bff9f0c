"""A home as provisioning observes it: what `advance` is given in a test, one fact at a time."""

from typing import Any

from provisioning import han
from provisioning.advance import Advance, advance
from provisioning.effects import Effect
from provisioning.observed import Known, Model, Observed, Route
from provisioning.session import (
    Consent,
    Grant,
    Mode,
    Priority,
    Proof,
    Session,
    Window,
)
from provisioning.states import SESSION, SessionState, WindowState
from registry.gateways import GatewayKind
from registry.states import Lifecycle
from shadow.document import Tree
from tests.fakes import NOW_MS

PREMISES, ACCOUNT, METER_GATEWAY = "pr-0001", "ac-0001", "gw-0001-meter"
PCT, SWITCH, SENSOR = "00124B0014B5D2A1", "00124B0014B5D2A2", "00124B0014B5D2A3"
PCT_MODEL = Model(
    id="acme-pct-2",
    name="Acme PCT-2",
    technologies=frozenset({"zigbee-se1"}),
    capabilities=frozenset({"price", "load.offset"}),
)
KEY = ("Acme", "PCT-2", 3)
NORMAL = {"net": {"state": "NORMAL", "tech": "zigbee-se1"}}


def session(state: SessionState = SessionState.OPEN, **fields: Any) -> Session:
    fields = {"expires_at_ms": 0 if state in SESSION.final else NOW_MS + 7_200_000, **fields}
    return Session(
        id="ps-1",
        premises=PREMISES,
        account=ACCOUNT,
        state=state,
        opened_by="rosa",
        opened_at_ms=NOW_MS,
        **fields,
    )


def window(state: WindowState = WindowState.SCHEDULED, **fields: Any) -> Window:
    seq = 0 if state is WindowState.SCHEDULED else NOW_MS // 1_000
    until_ms = 0 if seq == 0 else NOW_MS + 600_000
    fields = {"seq": seq, "until_ms": until_ms, "not_before_ms": NOW_MS, **fields}
    return Window(
        gateway=METER_GATEWAY,
        state=state,
        mode=Mode.GRANTS,
        priority=Priority.NORMAL,
        seconds=600,
        **fields,
    )


def grant(eui64: str = PCT, proof: Proof = Proof.INSTALL_CODE, **fields: Any) -> Grant:
    fields = {"id": f"g-{eui64[-2:]}", "sealed_key": "c2VhbGVk", **fields}
    return Grant(eui64=eui64, proof=proof, **fields)


def route(desired: Tree | None = None, reported: Tree | None = None, **fields: Any) -> Route:
    report = han.read(desired or {}, NORMAL if reported is None else reported)
    fields = {"kind": GatewayKind.METER, "technologies": frozenset({"zigbee-se1"}), **fields}
    return Route(**{"gateway": METER_GATEWAY, "priority": 10, "online": True, "han": report, **fields})


def seen(eui64: str = PCT, **fields: Any) -> Tree:
    entry = {"at": NOW_MS // 1_000, "maker": "Acme", "model": "PCT-2", "hw": 3, "fw": "1.4.0", "cat": 1}
    return {eui64: {**entry, "caps": ["price", "load.offset"], "rssi": -61, **fields}}


def joined(*some: Tree, seq: int = NOW_MS // 1_000, state: str = "open") -> Tree:
    """Return what a gateway reports that has its window open and sees these."""
    merged: Tree = {}
    for one in some:
        merged |= one
    return {
        **NORMAL,
        "permitJoin": {"seq": seq, "until": seq + 600, "mode": "grants", "state": state, "sealKey": "BKx2"},
        "seen": merged,
    }


def known(lifecycle: Lifecycle, eui64: str = PCT, **fields: Any) -> Known:
    fields = {"premises": PREMISES, "model_id": "acme-pct-2", **fields}
    return Known(thing=eui64, lifecycle=lifecycle, **fields)


def observed(*routes: Route, **fields: Any) -> Observed:
    fields = {"holder": "ps-1", "models": {KEY: PCT_MODEL}, **fields}
    return Observed(routes=routes, catalogue={PCT_MODEL.id: PCT_MODEL}, **fields)


def consent(device: str = PCT, program: str = "cpp-27") -> Consent:
    return Consent(device, program, "the customer", "self", "phone", "1", "rosa", NOW_MS)


def look(before: Session, facts: Observed, now_ms: int = NOW_MS) -> Advance:
    return advance(before, facts, now_ms)


def settle(before: Session, facts: Observed, now_ms: int = NOW_MS) -> Advance:
    """Look until the document stays as it is."""
    for _ in range(20):
        after = advance(before, facts, now_ms)
        if after.session == before:
            return after
        before = after.session
    raise AssertionError("the document never comes to rest")


def wanted(after: Advance, kind: type[Effect]) -> list[Any]:
    return [effect for effect in after.effects if isinstance(effect, kind)]
