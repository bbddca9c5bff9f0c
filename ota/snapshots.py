"""What a device was before it was changed, and how that is given back to it or to its successor.

A snapshot holds the shadows that describe a device: never keys, certificates or network credentials, which
are in no shadow, and not the security counter. It is taken before a device is let go on to its new firmware,
so that what an upgrade does can be judged; a person may take one at any time. The last few of a device are
kept, for so long and no longer, and go with the customer's data. (spec: ota, 3.5)
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from infra.clock import Clock
from infra.documents import port
from infra.documents.port import (
    Document,
    DocumentStore,
    IndexValue,
    StoreBrokenError,
    StoreUnavailableError,
    Write,
)
from infra.settings.model import ShadowLimits
from ota import data, reports
from ota.data import Path
from ota.equipment import Known
from ota.errors import OtaError
from ota.models import CONFIG, FIRMWARE, Execution
from ota.snapshot import Copy, Snapshot, Why, derived_id, id_for
from registry.catalogue import ModelCatalogue
from security import audit
from security.audit import INSIDE, Via
from security.policy import Principal, Role
from shadow.commands import Channel, Origin, update
from shadow.decisions import Rejected, Shadow
from shadow.document import ShadowId, Tree
from shadow.errors import NoShadowError
from shadow.service import ShadowService

SNAPSHOTS: Final = port.Collection("ota_snapshots", ("thing", "at_ms"))
CLASSIC: Final = ""
PROGRAM: Final = "program"
SHADOWS: Final = (CLASSIC, CONFIG, PROGRAM, FIRMWARE)
"""Of what a snapshot is made."""
RESTORABLE: Final[Mapping[str, str]] = {"classic": CLASSIC, CONFIG: CONFIG}
"""What can be given back, by the name that people use: programs come again from the enrolments."""
KEPT_MAX: Final = 5
KEPT_MS: Final = 400 * 86_400_000
SUCCESSORS_MAX: Final = 16
"""Replacements in a row that are followed."""
TAKEN_AT_ONCE_MAX: Final = 500
FOUND_MAX: Final = KEPT_MAX + 3
"""Of one device: two processes may each have kept one more than they should for a moment."""
TRIES_MAX: Final = 5
SWEEP_PAGE: Final = 500
SWEEP_EVERY_S: Final = 3_600.0
SYSTEM: Final = Principal("firmware", Role.SYSTEM)

_log: Final = structlog.get_logger(__name__)


class SnapshotNotFoundError(OtaError):
    """This device has no such snapshot."""

    def __init__(self, thing: str, id: str) -> None:
        super().__init__("this device has no such snapshot: only the last few are kept")
        self.thing = thing
        self.id = id


class NotItsSuccessorError(OtaError):
    """A snapshot is given back to the device that it is of, or to the one that came in its place."""

    def __init__(self, thing: str, to: str) -> None:
        super().__init__(f"{to} has not come in the place of {thing}")


@dataclass(frozen=True, slots=True)
class Restored:
    """What was given back, as JSON pointers below the names of the parts; ``dropped`` is not known there."""

    written: tuple[str, ...]
    dropped: tuple[str, ...]


Defaults = Callable[[str, int], Awaitable[Tree | None]]
"""Returns the factory's configuration of a device model in the schema of a number; None: nobody knows it."""

_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_decode: Final = msgspec.json.Decoder(Snapshot).decode


class SnapshotService:
    """Takes snapshots, keeps them, gives them back and forgets them."""

    def __init__(
        self,
        store: DocumentStore,
        clock: Clock,
        *,
        shadows: ShadowService,
        devices: Known,
        defaults: Defaults,
        limits: ShadowLimits,
    ) -> None:
        self._store = store
        self._clock = clock
        self._shadows = shadows
        self._devices = devices
        self._defaults = defaults
        self._limits = limits

    # Reading

    async def of_thing(self, thing: str) -> tuple[Snapshot, ...]:
        """Return the snapshots of a device, the newest first."""
        found = await self._found([thing])
        return tuple(_decode(one.body) for one in found.get(thing, ())[:KEPT_MAX])

    async def snapshot(self, thing: str, id: str) -> Snapshot:
        """Return one snapshot of a device."""
        document = (await self._store.get(SNAPSHOTS.name, [id])).get(id)
        snapshot = None if document is None else _decode(document.body)
        if snapshot is None or snapshot.thing != thing:
            raise SnapshotNotFoundError(thing, id)
        return snapshot

    async def by_ids(self, ids: Collection[str]) -> dict[str, Snapshot]:
        """Return the snapshots that there are, by id."""
        documents = await self._store.get(SNAPSHOTS.name, ids)
        return {id: _decode(document.body) for id, document in documents.items()}

    # Taking

    async def take(self, thing: str, id: str, by: Principal, via: Via = INSIDE) -> Snapshot:
        """Keep a device as it is now, for a person. The same id again is the same snapshot."""
        if (kept := (await self.by_ids([id])).get(id)) is not None and kept.thing == thing:
            return kept
        row = audit.act(
            by, via, "snapshot.take", f"snapshot/{id}", at_ms=self._clock.now_ms(), before=0, after=1
        )
        snapshot = await self._look(thing, id, Why.PERSON, by.name)
        await self._keep([snapshot], {id: audit.entry(row, 1, life=0)})
        return snapshot

    async def before(self, executions: Sequence[Execution], why: Why = Why.GATE) -> dict[str, Snapshot]:
        """Keep devices as they are, each before its execution may go on; by the execution's id.

        One that asks again has its snapshot taken again: the one that counts is of just before it went on.
        """
        taken: dict[str, Snapshot] = {}
        for first in range(0, len(executions), TAKEN_AT_ONCE_MAX):
            some = executions[first : first + TAKEN_AT_ONCE_MAX]
            snapshots = await asyncio.gather(
                *(self._look(one.thing, id_for(one), why, SYSTEM.name, one.job) for one in some)
            )
            await self._keep(snapshots, {})
            taken |= {one.id: snapshot for one, snapshot in zip(some, snapshots, strict=True)}
        return taken

    async def _look(self, thing: str, id: str, why: Why, by: str, job: str = "") -> Snapshot:
        shadows = {name: one for name in SHADOWS if (one := await self._shadow(thing, name)) is not None}
        said = reports.read(shadows[FIRMWARE].reported.state) if FIRMWARE in shadows else reports.NOTHING
        device = (await self._devices.devices([thing])).get(thing)
        return Snapshot(
            id=id,
            thing=thing,
            at_ms=self._clock.now_ms(),
            why=why,
            by=by,
            job=job,
            model="" if device is None else device.model,
            schema=said.schema,
            boot=said.boot,
            shadows={name: _copy(name, one) for name, one in shadows.items()},
        )

    async def _shadow(self, thing: str, name: str) -> Shadow | None:
        try:
            return await self._shadows.view(ShadowId(thing, name))
        except NoShadowError:
            return None

    async def _keep(self, snapshots: Sequence[Snapshot], rows: Mapping[str, port.Entry]) -> None:
        """Write snapshots in one commit, and let the oldest of each device go.

        Raises:
            StoreUnavailableError: not all of them are kept.
        """
        waiting = {one.id: one for one in snapshots}
        for _ in range(TRIES_MAX):
            writes = await self._writes(waiting, rows)
            lost = await self._store.commit(writes)
            waiting = {
                writes[position].id: waiting[writes[position].id]
                for position in lost
                if writes[position].body
            }
            if not waiting:
                return
        raise StoreUnavailableError("others write these snapshots too fast; ask again")

    async def _writes(self, snapshots: Mapping[str, Snapshot], rows: Mapping[str, port.Entry]) -> list[Write]:
        found = await self._found({one.thing for one in snapshots.values()})
        writes: dict[str, Write] = {}
        for id, snapshot in snapshots.items():
            there = found.get(snapshot.thing, [])
            revision = next((one.revision for one in there if one.id == id), 0)
            entries = (rows[id],) if id in rows else ()
            index: dict[str, IndexValue] = {"thing": snapshot.thing, "at_ms": snapshot.at_ms}
            writes[id] = Write(SNAPSHOTS.name, id, revision, _encode(snapshot), index, entries=entries)
            others = [one for one in there if one.id not in snapshots]
            writes |= {one.id: _gone(one) for one in others[KEPT_MAX - 1 :]}
        return list(writes.values())

    # Giving back

    async def restore(
        self, thing: str, id: str, to: str, parts: Collection[str], by: Principal, via: Via = INSIDE
    ) -> Restored:
        """Desire of a device, or of its successor, what the device of a snapshot had reported.

        ``parts`` are of :data:`RESTORABLE`; who may desire them is the shadows' own rule.

        Raises:
            SnapshotNotFoundError: there is none.
            NotItsSuccessorError: it is neither that device nor its successor.
            ShadowError: a shadow refuses it; what was written before stays written, and again is no error.
        """
        snapshot = await self.snapshot(thing, id)
        if not await self._is_successor(thing, to):
            raise NotItsSuccessorError(thing, to)
        written: list[str] = []
        dropped: list[str] = []
        for part in sorted(set(parts)):
            known, unknown = data.known_of(
                snapshot.reported(RESTORABLE[part]), await self._vocabulary(snapshot, to, part)
            )
            if known:
                await self._desire(to, RESTORABLE[part], data.planted(known), by, via)
            written += [_pointer(part, path) for path in sorted(known)]
            dropped += [_pointer(part, path) for path in unknown]
        return Restored(tuple(written), tuple(dropped))

    async def carry_over(self, old: str, new: str) -> Restored:
        """Give a successor the configuration of the device whose place it takes; again is no error."""
        id = derived_id("replaced", old, new)
        if id not in await self.by_ids([id]):
            await self._keep([await self._look(old, id, Why.REPLACED, SYSTEM.name)], {})
        return await self.restore(old, id, new, [CONFIG], SYSTEM)

    async def _is_successor(self, thing: str, to: str) -> bool:
        for _ in range(SUCCESSORS_MAX):
            if thing == to:
                return True
            found = (await self._devices.devices([thing])).get(thing)
            if found is None:
                return False
            thing = found.successor
        return False

    async def _vocabulary(self, snapshot: Snapshot, to: str, part: str) -> Mapping[Path, object] | None:
        """Return the leaves that a device knows in one of its shadows; None: all of the snapshot's."""
        there = await self._shadow(to, FIRMWARE)
        said = reports.NOTHING if there is None else reports.read(there.reported.state)
        device = (await self._devices.devices([to])).get(to)
        model = "" if device is None else device.model
        alike = model == snapshot.model and (part != CONFIG or said.schema == snapshot.schema)
        if alike and (model or to == snapshot.thing):
            return None
        if part == CONFIG and (defaults := await self._defaults(model, said.schema)) is not None:
            return dict(data.leaves(defaults))
        own = await self._shadow(to, RESTORABLE[part])
        return {} if own is None else dict(data.leaves(own.reported.state))

    async def _desire(self, thing: str, shadow: str, state: Tree, by: Principal, via: Via) -> None:
        channel = Channel.SYSTEM if by.role is Role.SYSTEM else Channel.HTTP
        origin = Origin(by.name, by.role, channel, request_id=via.request_id)
        section: Tree = {"desired": state}
        command = update(
            ShadowId(thing, shadow), origin, section, self._limits, None, msgspec.json.encode(section)
        )
        (outcome,) = await self._shadows.submit([command])
        if isinstance(outcome, Rejected):
            raise outcome.error

    # Forgetting

    async def forget(self, thing: str) -> None:
        """Erase all snapshots of a device: it, or the customer whose data they are, has gone."""
        while True:
            found = (await self._found([thing])).get(thing, [])
            if not found:
                return
            await self._store.commit([_gone(one) for one in found])

    async def run(self) -> None:
        """Let snapshots go that are older than they may be, until cancelled."""
        while True:
            try:
                while await self.sweep_once() == SWEEP_PAGE:
                    pass
            except StoreBrokenError:
                raise
            except StoreUnavailableError as error:
                _log.warning("snapshots_not_swept", reason=str(error))
            await asyncio.sleep(SWEEP_EVERY_S)

    async def sweep_once(self) -> int:
        """Erase a page of those that are too old; return how many there were."""
        until_ms = self._clock.now_ms() - KEPT_MS
        page = await self._store.find(SNAPSHOTS.name, "at_ms", 0, until_ms, limit=SWEEP_PAGE)
        if page.documents:
            await self._store.commit([_gone(one) for one in page.documents])
        return len(page.documents)

    async def _found(self, things: Collection[str]) -> dict[str, list[Document]]:
        """Return the documents of each device, the newest first."""
        if not things:
            return {}
        documents = await self._store.find_in(SNAPSHOTS.name, "thing", things, limit=len(things) * FOUND_MAX)
        found: dict[str, list[Document]] = {}
        for one in documents:
            found.setdefault(str(one.index["thing"]), []).append(one)
        for of_thing in found.values():
            of_thing.sort(key=lambda one: (one.index["at_ms"], one.id), reverse=True)
        return found


def factory_defaults(models: ModelCatalogue) -> Defaults:
    """Return who knows the factory's configuration of a model: the catalogue."""

    async def defaults(model: str, schema: int) -> Tree | None:
        found = (await models.models([model] if model else [])).get(model)
        known = None if found is None or found.firmware is None else found.firmware.schemas.get(str(schema))
        return None if known is None else dict(known)

    return defaults


def _copy(name: str, shadow: Shadow) -> Copy:
    reported = shadow.reported.state
    if name == FIRMWARE:
        reported = _without_counter(reported)
    return Copy(version=shadow.version, at_ms=shadow.at_ms, desired=shadow.desired.state, reported=reported)


def _without_counter(reported: Tree) -> Tree:
    """Return a firmware report without the security counter, which nothing ever sets back."""
    running = reported.get("fw")
    if not isinstance(running, dict):
        return reported
    return reported | {"fw": {name: value for name, value in running.items() if name != "counter"}}


def _gone(document: Document) -> Write:
    return Write(SNAPSHOTS.name, document.id, document.revision, None)


def _pointer(part: str, path: Path) -> str:
    names = [name.replace("~", "~0").replace("/", "~1") for name in (part, *path)]
    return "/" + "/".join(names)
