"""Step 7: the join window, what is seen in it, what proves itself, and why nothing was recognised. Pure.

(spec: han, 4.2 and 5.3)
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from provisioning import han
from provisioning.effects import Alarm, GiveGrant, KeepKey, PatchHan, TellProved, TellSeen
from provisioning.han import Han, Join, Seen
from provisioning.look import Look
from provisioning.observed import Known, Model, Route
from provisioning.session import (
    DEVICES_MAX,
    MINUTE_MS,
    Cause,
    Grant,
    GrantState,
    Proof,
    SessionDevice,
    Window,
    see,
    steps,
    turn,
)
from provisioning.states import (
    BEFORE_SENDING,
    RECOGNIZED,
    DeviceState,
    SeenTrigger,
    SessionState,
    SessionTrigger,
    WindowState,
    WindowTrigger,
)
from registry.states import Lifecycle

READY_WAIT_MS: Final = MINUTE_MS
"""How long a HAN may take to be normal."""
CLOSE_GRACE_MS: Final = MINUTE_MS
"""After its end by which a window must be reported closed."""
MS_PER_S: Final = 1_000

UTILITY_CAPS: Final = frozenset(
    {
        "price",
        "text",
        "capacity",
        "metering",
        "shed_report",
        "load.setpoint",
        "load.offset",
        "load.duty",
        "load.percent",
        "load.appliance",
        "load.target",
    }
)
"""What a program can ask of a device. Equipment that can do nothing of it is none of ours to see."""

UNKNOWN_MODEL: Final = "UNKNOWN_MODEL"
WRONG_TECHNOLOGY: Final = "WRONG_TECHNOLOGY"
PROOF_FAILED: Final = "PROOF_FAILED"
NO_ANSWER: Final = "NO_ANSWER"
"""The window closed before the gateway said whether the proof was good."""
_UNFIT: Final = {
    Lifecycle.SUSPENDED: "SUSPENDED",
    Lifecycle.REPLACED: "REPLACED",
    Lifecycle.RETIRED: "RETIRED",
}
IN_USE: Final = "IN_USE"
"""It is registered in another home and must leave it first."""
_UNSEEN: Final = frozenset({Lifecycle.MANUFACTURED, Lifecycle.COMMISSIONED, Lifecycle.DEREGISTERED})
_PROVED: Final = frozenset({Lifecycle.AUTHENTICATED, Lifecycle.REGISTERED})


def advance(look: Look) -> None:
    """Do what discovery wants, in any state of the session in which it can want something."""
    if look.session.state is SessionState.DISCOVERING:
        _run_window(look)
        _list_what_is_known(look)
    if look.session.state in BEFORE_SENDING:
        _follow_proofs(look)
    _tidy_grants(look)
    if look.session.state is SessionState.DISCOVERING:
        _conclude(look)


# ---------------------------------------------------------------------------- the window


def _run_window(look: Look) -> None:
    window = look.session.window
    if window is None:
        return
    route = look.observed.route(window.gateway)
    if window.state is WindowState.SCHEDULED and look.by(window.not_before_ms):
        _request(look, window, route)
    elif window.state is WindowState.REQUESTED:
        _await_opening(look, window, _han(route))
    elif window.state is WindowState.OPEN:
        _use(look, window, _han(route))


def _request(look: Look, window: Window, route: Route | None) -> None:
    """Ask for the window once the HAN is normal; not normal in time: there is none."""
    net = _han(route).net.state
    if net == han.NORMAL:
        seq = max(_han(route).seq + 1, look.now_ms // MS_PER_S)
        until_ms = (look.now_ms // MS_PER_S + window.seconds) * MS_PER_S
        _set(look, turn(window, WindowTrigger.REQUEST, seq=seq, until_ms=until_ms))
        look.by(until_ms)
        # Wanted only once its number is durable: two that look at once would ask for two windows.
    elif look.by(window.not_before_ms + READY_WAIT_MS):
        _set(look, turn(window, WindowTrigger.CLOSE))


def _await_opening(look: Look, window: Window, report: Han) -> None:
    said = report.window if report.window is not None and report.window.seq == window.seq else None
    if said is not None and said.open and not look.by(window.until_ms):
        _set(look, turn(window, WindowTrigger.OPENED))
        _use(look, turn(window, WindowTrigger.OPENED), report)
    elif said is not None and not said.open:
        _set(look, turn(window, WindowTrigger.CLOSE))
    elif look.by(window.until_ms):
        _set(look, turn(window, WindowTrigger.MISSED))
    else:
        wanted = report.wanted_window
        if wanted is None or wanted.seq != window.seq:
            patch = han.open_window(window.seq, window.until_ms // MS_PER_S, window.mode)
            look.want(PatchHan(window.gateway, patch))


def _use(look: Look, window: Window, report: Han) -> None:
    """Read what an open window shows, give the grants that wait, and see whether it is over."""
    _list_what_is_seen(look, window.gateway, report)
    _take_answers(look, report)
    closed = report.window is None or report.window.seq != window.seq or not report.window.open
    if closed or look.by(window.until_ms):
        _set(look, turn(window, WindowTrigger.CLOSE))
        return
    for grant in _waiting(look):
        if grant.sealed_key and report.wanted_grants.get(grant.eui64) != grant.id:
            seal_key = "" if report.window is None else report.window.seal_key
            if seal_key:
                look.want(GiveGrant(window.gateway, grant, seal_key, window.until_ms // MS_PER_S))


def watch_closing(look: Look) -> None:
    """End a window that is over and take it out of the shadow; say so once if the gateway leaves it open."""
    window = look.session.window
    if window is None or not window.is_over or window.settled:
        return
    report = _han(look.observed.route(window.gateway))
    wanted = report.wanted_window if _is(report.wanted_window, window) else None
    left_open = _is(report.window, window) and report.window is not None and report.window.open
    given_up = left_open and look.by(window.until_ms + CLOSE_GRACE_MS)
    if wanted is not None and wanted.until_s > window.until_ms // MS_PER_S:
        look.want(PatchHan(window.gateway, han.shorten_window(window.until_ms // MS_PER_S)))
    elif wanted is not None and (given_up or not left_open):
        look.want(PatchHan(window.gateway, han.close_window()))
    if given_up and not window.alarmed:
        window = replace(window, alarmed=True)
        look.want(Alarm(window.gateway))
    _set(look, replace(window, settled=wanted is None and (given_up or not left_open)))


def _is(join: Join | None, window: Window) -> bool:
    return join is not None and join.seq == window.seq


def _set(look: Look, window: Window) -> None:
    look.change(window=window)


def _han(route: Route | None) -> Han:
    return han.NO_HAN if route is None else route.han


# ---------------------------------------------------------------------------- what is seen


def _list_what_is_seen(look: Look, gateway: str, report: Han) -> None:
    others = 0
    for eui64, seen in sorted(report.seen.items()):
        device = look.session.devices.get(eui64)
        model = look.observed.models.get((seen.maker, seen.model, seen.hw))
        applicable = _is_applicable(seen, model)
        if not applicable or (device is None and len(look.session.devices) >= DEVICES_MAX):
            others += 1
            continue
        device = _described(device or see(eui64, look.now_ms), seen, gateway)
        look.put(_recognised(look, device, model, look.observed.devices.get(eui64)))
    if others > look.session.others:
        look.change(others=others)


def _list_what_is_known(look: Look) -> None:
    """List what no window shows: devices with a WAN of their own, and those that are registered here."""
    for key, known in sorted(look.observed.devices.items()):
        registered = known.lifecycle is Lifecycle.REGISTERED
        here = known.premises == look.session.premises and (known.has_wan or registered)
        model = look.observed.catalogue.get(known.model_id)
        if not here or key in look.session.devices or model is None:
            continue
        if len(look.session.devices) < DEVICES_MAX:
            device = replace(
                see(key, look.now_ms), seen_at_ms=look.now_ms, gateways=tuple(sorted(known.attached))
            )
            look.put(_recognised(look, device, model, known))


def _described(device: SessionDevice, seen: Seen, gateway: str) -> SessionDevice:
    """Return the device as it describes itself; the strength of its signal alone is no news."""
    gateways = tuple(sorted({*device.gateways, gateway}))
    words = (seen.maker, seen.model, seen.hw, seen.fw, seen.caps)
    if words == (device.maker, device.model, device.hw, device.fw, device.caps) and (
        gateways == device.gateways
    ):
        return device
    return replace(
        device,
        maker=seen.maker,
        model=seen.model,
        hw=seen.hw,
        fw=seen.fw,
        caps=seen.caps,
        rssi=seen.rssi,
        seen_at_ms=seen.at_s * MS_PER_S,
        gateways=gateways,
    )


def _recognised(look: Look, device: SessionDevice, model: Model | None, known: Known | None) -> SessionDevice:
    if device.state not in (DeviceState.SEEN, DeviceState.UNRECOGNIZED):
        return device
    code = _why_not(look, device, model, known)
    if code or model is None:
        if device.state is DeviceState.UNRECOGNIZED:
            return device if device.code == code else replace(device, code=code)
        return replace(steps(device, look.now_ms, SeenTrigger.MISS), code=code)
    device = steps(device, look.now_ms, SeenTrigger.RECOGNIZE)
    return replace(
        device,
        model_id=model.id,
        model_name=model.name,
        validated=model.validated,
        thing=device.eui64 if known is None else known.thing,
        caps=tuple(sorted(model.capabilities)),
        code="",
    )


def _why_not(look: Look, device: SessionDevice, model: Model | None, known: Known | None) -> str:
    if model is None:
        return UNKNOWN_MODEL
    if device.gateways and not model.technologies & look.observed.technologies:
        return WRONG_TECHNOLOGY
    if known is None:
        return ""
    elsewhere = known.premises not in ("", look.session.premises)
    if known.lifecycle is Lifecycle.REGISTERED and elsewhere:
        return IN_USE
    return "" if known.lifecycle is None else _UNFIT.get(known.lifecycle, "")


def _is_applicable(seen: Seen, model: Model | None) -> bool:
    """Tell whether a program could ever ask something of it; a door sensor is none of ours to see."""
    capabilities = frozenset(seen.caps) if model is None else model.capabilities
    return bool(capabilities & UTILITY_CAPS)


# ---------------------------------------------------------------------------- proofs


def _waiting(look: Look) -> Iterator[Grant]:
    return (grant for grant in look.session.grants if grant.state is GrantState.WAITING)


def _take_answers(look: Look, report: Han) -> None:
    """Take what a gateway says of a proof, if it is the answer to a grant that lies there now.

    A gateway's word alone makes no device genuine: somebody has to have entered its code.
    """
    for grant in tuple(_waiting(look)):
        seen, device = report.seen.get(grant.eui64), look.session.devices.get(grant.eui64)
        if device is None or device.state not in (DeviceState.RECOGNIZED, DeviceState.AUTH_FAILED,
                                                  DeviceState.AUTH_PENDING):  # fmt: skip
            continue
        if device.state is not DeviceState.AUTH_PENDING:
            device = look.step(device, SeenTrigger.PROVE)
        if seen is None or report.wanted_grants.get(grant.eui64) != grant.id:
            continue
        if seen.auth == han.OK:
            look.step(device, SeenTrigger.ACCEPT)
            _answer(look, grant)
        elif seen.auth == han.FAILED:
            look.step(device, SeenTrigger.REFUSE, PROOF_FAILED)
            _answer(look, replace(grant, sealed_key=""))


def _answer(look: Look, grant: Grant) -> None:
    """Note that a grant is answered. A key whose proof was good stays until it lies where it is kept."""
    after = replace(grant, state=GrantState.ANSWERED)
    look.change(grants=tuple(after if one.id == grant.id else one for one in look.session.grants))


def _follow_proofs(look: Look) -> None:
    """Take what the Trust Center says, and tell the registry what is seen and what is proved."""
    for eui64, device in sorted(look.session.devices.items()):
        known = look.observed.devices.get(eui64)
        now = device
        here = known is not None and known.premises == look.session.premises
        lifecycle = None if known is None else known.lifecycle
        if device.state is DeviceState.RECOGNIZED and _has_proof_to_come(look, eui64):
            now = look.step(now, SeenTrigger.PROVE)
        # Proved to another home is not proved to this one.
        proved = here and known is not None and (known.proved or lifecycle in _PROVED)
        if proved and now.state in (DeviceState.RECOGNIZED, DeviceState.AUTH_PENDING):
            if now.state is DeviceState.RECOGNIZED:
                now = look.step(now, SeenTrigger.PROVE)
            now = look.step(now, SeenTrigger.ACCEPT)
        if now.state not in RECOGNIZED:
            continue
        if lifecycle is None or lifecycle in _UNSEEN:
            look.want(TellSeen(now))
        elif lifecycle is Lifecycle.DISCOVERED and now.state not in (
            DeviceState.RECOGNIZED,
            DeviceState.AUTH_PENDING,
            DeviceState.AUTH_FAILED,
        ):
            look.want(TellProved(now.thing))


def _has_proof_to_come(look: Look, eui64: str) -> bool:
    """Tell whether somebody has entered a PIN or a certificate for it: the device itself shows it to us."""
    return any(
        grant.eui64 == eui64 and grant.proof is not Proof.INSTALL_CODE for grant in look.session.grants
    )


def _tidy_grants(look: Look) -> None:
    """Take answered grants out of the shadow, and their keys to where they are kept."""
    window = look.session.window
    report = _han(None if window is None else look.observed.route(window.gateway))
    answered = [grant for grant in look.session.grants if grant.state is GrantState.ANSWERED]
    gone = sorted({one.eui64 for one in answered if report.wanted_grants.get(one.eui64) == one.id})
    if gone and window is not None:
        look.want(PatchHan(window.gateway, han.clear_grants(*gone)))
    for grant in answered:
        if not grant.sealed_key:
            continue
        known = look.observed.devices.get(grant.eui64)
        if known is not None and known.kept_key == grant.sealed_key:
            _answer(look, replace(grant, sealed_key=""))
        else:
            look.want(KeepKey(grant.eui64, grant.sealed_key))


# ---------------------------------------------------------------------------- the end of it


def _conclude(look: Look) -> None:
    """Say what discovery came to, once its window is over or there never was one."""
    window = look.session.window
    if window is not None and not window.is_over:
        return
    end_grants(look)
    if _has_found_something(look):
        look.change(cause=None)
        look.move(SessionTrigger.RECOGNIZED)
    else:
        cause = _cause(look)
        look.change(cause=cause)
        look.move(SessionTrigger.NONE_RECOGNIZED, cause)


def _has_found_something(look: Look) -> bool:
    """Tell whether there is something to choose from.

    What was registered before is no discovery where something else was heard, or expected, in vain.
    """
    recognised = [one.eui64 for one in look.session.devices.values() if one.state in RECOGNIZED]
    known = look.observed.devices
    new = [eui64 for eui64 in recognised
           if eui64 not in known or known[eui64].lifecycle is not Lifecycle.REGISTERED]  # fmt: skip
    return bool(new) or (bool(recognised) and not _in_vain(look))


def end_grants(look: Look) -> None:
    """End the grants that got no answer, and forget their keys."""
    for grant in tuple(_waiting(look)):
        if grant.proof is not Proof.INSTALL_CODE:
            continue
        device = look.session.devices.get(grant.eui64)
        if device is not None and device.state is DeviceState.AUTH_PENDING:
            look.step(device, SeenTrigger.REFUSE, NO_ANSWER)
        after = replace(grant, state=GrantState.ENDED, sealed_key="")
        look.change(grants=tuple(after if one.id == grant.id else one for one in look.session.grants))


def _cause(look: Look) -> Cause:
    """Return why nothing was recognised: the first of these that is the case."""
    window = look.session.window
    if window is None:
        return Cause.NO_HAN_ROUTE
    if window.seq == 0 or window.state is WindowState.EXPIRED:
        return Cause.HAN_NOT_READY
    codes = _in_vain(look)
    if WRONG_TECHNOLOGY in codes:
        return Cause.WRONG_TECHNOLOGY
    if codes:
        return Cause.UNKNOWN_MODEL
    return Cause.NOTHING_SEEN


def _in_vain(look: Look) -> set[str]:
    """Return why equipment that was heard, or is expected, is not recognised."""
    heard = {
        device.code for device in look.session.devices.values() if device.state is DeviceState.UNRECOGNIZED
    }
    return heard | set(_of_expected(look))


def _of_expected(look: Look) -> Iterator[str]:
    """Yield what is wrong with the equipment that the customer says they have, none of which was seen."""
    for expected in look.session.expected:
        model = look.observed.models.get((expected.maker, expected.model, 0))
        if model is None:
            yield UNKNOWN_MODEL
        elif not model.technologies & look.observed.technologies:
            yield WRONG_TECHNOLOGY
