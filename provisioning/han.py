"""The ``han`` shadow of a gateway: what it says, and the patches that ask something of it. Pure.

A gateway may be the customer's own, so nothing it reports is believed to be well formed: what has another
type, or is too long, counts as not said. Times on the wire are seconds. Removal is a value: an attachment
that is to end becomes ``gone``, and is nulled in both sections once the gateway says so.
(spec: han, 4.1 and 4.2)
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from shadow.document import Tree

SHADOW: Final = "han"
SEEN_MAX: Final = 64
"""Entries of ``seen`` that are looked at; a gateway keeps at most 16."""
ATTACHED_MAX: Final = 256
TEXT_CHARS_MAX: Final = 64
CAPS_MAX: Final = 16

ON: Final = "on"
GONE: Final = "gone"
OK: Final = "ok"
FAILED: Final = "failed"
NORMAL: Final = "NORMAL"
COMING: Final = frozenset({"FORMING", "FIND_PENDING"})
"""States of a HAN that will be normal in a moment."""

_EUI64: Final = re.compile(r"[0-9A-F]{16}")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Net:
    """The HAN itself."""

    state: str = ""
    tech: str = ""


@dataclass(frozen=True, slots=True)
class Room:
    """How much of a gateway's capacity is in use, as it says; None where it does not."""

    devices: int | None = None
    used: int | None = None
    load_control: int | None = None
    used_load_control: int | None = None


@dataclass(frozen=True, slots=True)
class Join:
    """A join window, wanted or reported."""

    seq: int
    until_s: int
    mode: str
    open: bool = False
    seal_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A device that a gateway sees."""

    eui64: str
    at_s: int
    maker: str
    model: str
    hw: int
    fw: str
    categories: int
    caps: tuple[str, ...]
    rssi: int | None
    auth: str
    """``ok``, ``failed``, or nothing yet."""


@dataclass(frozen=True, slots=True)
class Attached:
    """An attachment, wanted or reported."""

    thing: str
    eui64: str
    state: str
    active: bool
    epoch: int
    online: bool = False


@dataclass(frozen=True, slots=True)
class Han:
    """What is wanted of a gateway and what it says, as far as either makes sense."""

    net: Net = Net()
    room: Room = Room()
    window: Join | None = None
    seen: Mapping[str, Seen] = field(default_factory=dict)
    attached: Mapping[str, Attached] = field(default_factory=dict)
    wanted_window: Join | None = None
    wanted_grants: Mapping[str, str] = field(default_factory=dict)
    """Ids of grants by EUI-64."""
    wanted: Mapping[str, Attached] = field(default_factory=dict)
    """Attachments that are wanted, those that shall go among them."""
    has_reported: bool = False

    @property
    def seq(self) -> int:
        """The newest number of a window that either side names."""
        return max((one.seq for one in (self.window, self.wanted_window) if one is not None), default=0)


NO_HAN: Final = Han()


def read(desired: Tree, reported: Tree) -> Han:
    """Return what the two sections say."""
    return Han(
        net=_net(_tree(reported, "net")),
        room=_room(_tree(reported, "capacity")),
        window=_join(_tree(reported, "permitJoin")),
        seen=_seen(_tree(reported, "seen")),
        attached=_attached(_tree(reported, "attach")),
        wanted_window=_join(_tree(desired, "permitJoin")),
        wanted_grants={
            eui64: _text(grant, "id") for eui64, grant in _trees(_tree(desired, "grants"), SEEN_MAX)
        },
        wanted=_attached(_tree(desired, "attach")),
        has_reported=bool(reported),
    )


def is_eui64(text: str) -> bool:
    """Tell whether this is an EUI-64 as we write it: 16 hexadecimal digits, in capitals."""
    return _EUI64.fullmatch(text) is not None


# ---------------------------------------------------------------------------- patches


def open_window(seq: int, until_s: int, mode: str) -> Tree:
    """Ask for a join window."""
    return {"desired": {"permitJoin": {"seq": seq, "until": until_s, "mode": mode}}}


def shorten_window(until_s: int) -> Tree:
    """Have a window end earlier: to take it away would be no news to the gateway."""
    return {"desired": {"permitJoin": {"until": until_s}}}


def close_window() -> Tree:
    """Take a window that is over out of the shadow, with every grant in it."""
    return {"desired": {"permitJoin": None, "grants": None}}


def grant(eui64: str, id: str, proof: str, sealed: str, until_s: int) -> Tree:
    """Let one device in; what was said of an earlier proof of it is no answer to this one."""
    entry = {"id": id, "proof": proof, "sealed": sealed, "until": until_s}
    return {"desired": {"grants": {eui64: entry}}, "reported": {"seen": {eui64: {"auth": None}}}}


def clear_grants(*eui64s: str) -> Tree:
    """Take grants back that are answered or over."""
    return {"desired": {"grants": dict.fromkeys(eui64s)}}


def attach(thing: str, eui64: str, epoch: int, *, active: bool) -> Tree:
    """Have a gateway speak for a device."""
    entry = {"eui64": eui64, "state": ON, "active": active, "epoch": epoch}
    return {"desired": {"attach": {thing: entry}}}


def activate(thing: str, epoch: int, *, active: bool) -> Tree:
    """Say whether this is the route in use; nothing else of the attachment changes."""
    return {"desired": {"attach": {thing: {"active": active, "epoch": epoch}}}}


def detach(*things: str) -> Tree:
    """Have a gateway no longer speak for devices."""
    return {"desired": {"attach": {thing: {"state": GONE, "active": False} for thing in things}}}


def clear(*things: str) -> Tree:
    """Take entries away in both sections, after the gateway said that they are gone."""
    return {
        "desired": {"attach": dict.fromkeys(things)},
        "reported": {"attach": dict.fromkeys(things)},
    }


def finished(han: Han) -> tuple[str, ...]:
    """Return the things that shall go and are gone, as far as the gateway says."""
    return tuple(
        sorted(
            thing
            for thing, wanted in han.wanted.items()
            if wanted.state == GONE and (thing not in han.attached or han.attached[thing].state == GONE)
        )
    )


# ---------------------------------------------------------------------------- reading what may be anything


def _net(tree: Tree) -> Net:
    return Net(_text(tree, "state"), _text(tree, "tech"))


def _room(tree: Tree) -> Room:
    return Room(
        _count(tree, "devices"),
        _count(tree, "used"),
        _count(tree, "loadControl"),
        _count(tree, "usedLoadControl"),
    )


def _join(tree: Tree) -> Join | None:
    seq = _count(tree, "seq")
    if seq is None:
        return None
    return Join(
        seq,
        _count(tree, "until") or 0,
        _text(tree, "mode"),
        _text(tree, "state") == "open",
        _text(tree, "sealKey", 2 * TEXT_CHARS_MAX),
    )


def _seen(tree: Tree) -> dict[str, Seen]:
    return {
        eui64: Seen(
            eui64=eui64,
            at_s=_count(one, "at") or 0,
            maker=_text(one, "maker"),
            model=_text(one, "model"),
            hw=_count(one, "hw") or 0,
            fw=_text(one, "fw"),
            categories=_count(one, "cat") or 0,
            caps=_texts(one, "caps"),
            rssi=_whole(one, "rssi"),
            auth=_text(one, "auth"),
        )
        for eui64, one in _trees(tree, SEEN_MAX)
        if is_eui64(eui64)
    }


def _attached(tree: Tree) -> dict[str, Attached]:
    return {
        thing: Attached(
            thing,
            _text(one, "eui64"),
            _text(one, "state"),
            one.get("active") is True,
            _count(one, "epoch") or 0,
            one.get("online") is True,
        )
        for thing, one in _trees(tree, ATTACHED_MAX)
    }


def _tree(tree: Tree, name: str) -> Tree:
    value = tree.get(name)
    return value if type(value) is dict else {}


def _trees(tree: Tree, at_most: int) -> list[tuple[str, Tree]]:
    """Return the entries that are objects, in a fixed order and not too many."""
    return sorted((name, one) for name, one in tree.items() if type(one) is dict)[:at_most]


def _text(tree: Tree, name: str, chars_max: int = TEXT_CHARS_MAX) -> str:
    value = tree.get(name)
    if type(value) is not str or len(value) > chars_max:
        return ""
    return _UNPRINTABLE.sub("", value).strip()


def _texts(tree: Tree, name: str) -> tuple[str, ...]:
    value = tree.get(name)
    if type(value) is not list:
        return ()
    texts = (_text({"": one}, "") for one in value[:CAPS_MAX])
    return tuple(text for text in texts if text)


def _whole(tree: Tree, name: str) -> int | None:
    value: Any = tree.get(name)
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int else None


def _count(tree: Tree, name: str) -> int | None:
    value = _whole(tree, name)
    return value if value is not None and value >= 0 else None
