"""The catalogue: programs, the shapes of what is sent, and tariffs, as the utility writes them.

Every act is one compare-and-set with its audit row. What devices must hear of (a tariff that has changed, a
program that has closed) is marked in the very document that changed, so that the word goes round also when
the process that changed it dies: see :meth:`ProgramCatalogue.to_spread`. Who may write is not asked here.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any, Final, Generic, TypeVar

import msgspec

from infra.clock import Clock
from infra.documents.port import Collection as StoreCollection
from infra.documents.port import Document, DocumentStore, IndexValue, Write
from infra.versions import check_version
from programs.errors import (
    CatalogueFullError,
    InvalidEntryError,
    ProgramNotFoundError,
    ProgramsBusyError,
    ShapeFixedError,
    ShapeNotFoundError,
    TariffNotFoundError,
)
from programs.models import (
    PROGRAMS_MAX,
    Body,
    Program,
    Shape,
    ShapeKind,
    Tariff,
    check_id,
    check_program,
)
from programs.shapes import Checker, check_shape
from programs.states import PROGRAM, ProgramState, ProgramTrigger
from security import audit
from security.audit import INSIDE, Via
from security.policy import Action, Principal

CATALOGUE: Final = StoreCollection("catalogue", ("kind", "spread_ms"))
ENTRIES_MAX: Final[Mapping[str, int]] = {"program": PROGRAMS_MAX, "shape": 200, "tariff": 500}
"""Entries of each kind; those of one kind are read in one page."""
SAVE_ATTEMPTS_MAX: Final = 5
SPREADING_MAX: Final = 16
"""Entries whose change goes round at a time."""

Item = TypeVar("Item", Program, Shape, Tariff)


@dataclass(frozen=True, slots=True)
class Spreading:
    """A change of one entry that devices must hear of; ``field`` is how enrolments name that entry."""

    field: str
    value: str
    cursor: str | None
    """How far the word has gone round."""
    document: str
    revision: int


class _Builtin(msgspec.Struct):
    shapes: list[Shape]
    tariffs: list[Tariff]
    programs: list[Program]


@dataclass(frozen=True, slots=True)
class _Record(Generic[Item]):
    """An entry as it is stored. ``spread_ms``: since when its change goes round; None: all know it."""

    item: Item
    spread_ms: int | None = None
    cursor: str | None = None


_encode: Final = msgspec.json.Encoder().encode
_program: Final = msgspec.json.Decoder(_Record[Program]).decode
_shape: Final = msgspec.json.Decoder(_Record[Shape]).decode
_tariff: Final = msgspec.json.Decoder(_Record[Tariff]).decode


class ProgramCatalogue:
    """Keeps what the utility offers."""

    def __init__(self, store: DocumentStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._checker = Checker()

    async def seed(self) -> None:
        """Put what comes with this software there, where nothing is yet."""
        found = builtin()
        records: dict[str, _Record[Any]] = {}
        for shape in found.shapes:
            records[f"shape/{shape.id}"] = _Record(shape)
        for tariff in found.tariffs:
            records[f"tariff/{tariff.id}"] = _Record(tariff)
        for program in found.programs:
            records[f"program/{program.id}"] = _Record(program)
        await self._store.commit([_write(id, record, 0) for id, record in records.items()])

    # Programs

    async def programs(self, state: ProgramState | None = None) -> tuple[Program, ...]:
        """Return the programs by id: all of them, or those in one state."""
        found = [_program(one.body).item for one in await self._all("program")]
        return tuple(one for one in found if state in (None, one.state))

    async def program(self, id: str) -> Program:
        """Return one program."""
        found = (await self.programs_of([id])).get(id)
        if found is None:
            raise ProgramNotFoundError(id)
        return found

    async def programs_of(self, ids: Collection[str]) -> dict[str, Program]:
        """Return those of these programs that there are."""
        return {id: _program(one.body).item for id, one in (await self._get("program", ids)).items()}

    async def check(self, program: Program) -> None:
        """Raise unless the catalogue could have this program."""
        check_program(program)
        await self._check_references(program)

    async def put(
        self, program: Program, by: Principal, via: Via = INSIDE, *, expected: int | None = None
    ) -> Program:
        """Write a draft, or another version of what is there; its state stays as it is.

        Raises :class:`~infra.versions.OutdatedVersionError` where it would change another version than
        ``expected`` (0: none).
        """
        await self.check(program)

        def after(before: Program | None) -> Program:
            state = PROGRAM.after(None if before is None else before.state, ProgramTrigger.WRITE)
            version = 0 if before is None else before.version
            written = replace(program, state=state, version=version)
            if before == written:
                return before
            check_version(version, expected)
            return replace(written, version=version + 1)

        return await self._change_program(program.id, after, by, via)

    async def publish(
        self, id: str, by: Principal, via: Via = INSIDE, *, expected: int | None = None
    ) -> Program:
        """Offer a draft to customers, in this version. What is published stays so."""
        return await self._move(id, ProgramTrigger.PUBLISH, ProgramState.PUBLISHED, by, via, expected)

    async def close(self, id: str, by: Principal, via: Via = INSIDE) -> Program:
        """End a program for good, and with it every enrolment. What is closed stays so."""
        return await self._move(id, ProgramTrigger.CLOSE, ProgramState.CLOSED, by, via)

    # Shapes

    async def shapes(self) -> tuple[Shape, ...]:
        """Return all shapes by id."""
        return tuple(_shape(one.body).item for one in await self._all("shape"))

    async def shape(self, id: str) -> Shape:
        """Return one shape."""
        found = (await self._get("shape", [id])).get(id)
        if found is None:
            raise ShapeNotFoundError(id)
        return _shape(found.body).item

    async def check_new_shape(self, shape: Shape) -> None:
        """Raise unless this shape could be added, or is there already."""
        check_shape(shape)
        kept = (await self._get("shape", [shape.id])).get(shape.id)
        if kept is not None and _shape(kept.body).item != shape:
            raise ShapeFixedError(shape.id)

    async def put_shape(self, shape: Shape, by: Principal, via: Via = INSIDE) -> Shape:
        """Add a shape. The same once more is no change; another one under its name is refused."""
        check_shape(shape)
        kept = (await self._get("shape", [shape.id])).get(shape.id)
        if kept is None:
            await self._check_room("shape")
            record = _Record(shape)
            if await self._commit(f"shape/{shape.id}", record, 0, by, via):
                return shape
        if await self.shape(shape.id) != shape:
            raise ShapeFixedError(shape.id)
        return shape

    # Tariffs

    async def tariffs(self) -> tuple[Tariff, ...]:
        """Return all tariffs by id."""
        return tuple(_tariff(one.body).item for one in await self._all("tariff"))

    async def tariff(self, id: str) -> Tariff:
        """Return one tariff."""
        found = (await self.tariffs_of([id])).get(id)
        if found is None:
            raise TariffNotFoundError(id)
        return found

    async def tariffs_of(self, ids: Collection[str]) -> dict[str, Tariff]:
        """Return those of these tariffs that there are."""
        return {id: _tariff(one.body).item for id, one in (await self._get("tariff", ids)).items()}

    async def check_tariff(self, id: str, shape: str, body: Body) -> None:
        """Raise unless the catalogue could have this tariff."""
        check_id(id)
        await self._check(shape, ShapeKind.TARIFF, body, f"tariff/{id}")

    async def put_tariff(
        self,
        id: str,
        shape: str,
        body: Body,
        by: Principal,
        via: Via = INSIDE,
        *,
        expected: int | None = None,
    ) -> Tariff:
        """Write a tariff; a changed one gets the next rev and goes to every device that has it.

        ``expected`` is as for a program.
        """
        await self.check_tariff(id, shape, body)
        for _ in range(SAVE_ATTEMPTS_MAX):
            kept = (await self._get("tariff", [id])).get(id)
            before = None if kept is None else _tariff(kept.body).item
            if before is not None and before == Tariff(id, shape, body, before.rev):
                return before
            check_version(0 if before is None else before.rev, expected)
            if kept is None:
                await self._check_room("tariff")
            after = Tariff(id, shape, body, 1 if before is None else before.rev + 1)
            record = _Record(after, None if before is None else self._clock.now_ms())
            if await self._commit(f"tariff/{id}", record, 0 if kept is None else kept.revision, by, via):
                return after
        raise ProgramsBusyError("this tariff")

    # Bodies

    async def check_params(self, program: Program, params: Body) -> None:
        """Raise :class:`InvalidEntryError` unless an enrolment in this program may have these parameters."""
        if program.params_shape:
            await self._check(program.params_shape, ShapeKind.PARAMS, params, "params")
        elif params:
            raise InvalidEntryError("params", ["this program has no parameters"])

    async def check_message(self, shape: str, body: Body) -> None:
        """Raise :class:`InvalidEntryError` unless this is a message of that shape."""
        await self._check(shape, ShapeKind.MESSAGE, body, "message")

    # What has to go round

    async def to_spread(self) -> tuple[Spreading, ...]:
        """Return the changes that devices must still hear of, oldest first."""
        page = await self._store.find(
            CATALOGUE.name, "spread_ms", 0, self._clock.now_ms(), limit=SPREADING_MAX
        )
        return tuple(_spreading(one) for one in page.documents)

    async def spread(self, change: Spreading, cursor: str | None) -> None:
        """Note how far the word has gone round; None: everybody knows. A newer change starts over."""
        kind, _, id = change.document.partition("/")
        document = (await self._get(kind, [id]))[id]
        record = _decoder(kind)(document.body)
        still_ms = None if cursor is None else record.spread_ms
        after = replace(record, spread_ms=still_ms, cursor=cursor)
        await self._store.commit([_write(change.document, after, change.revision)])

    # Details

    async def _move(
        self,
        id: str,
        trigger: ProgramTrigger,
        to: ProgramState,
        by: Principal,
        via: Via,
        expected: int | None = None,
    ) -> Program:
        def after(before: Program | None) -> Program:
            if before is None:
                raise ProgramNotFoundError(id)
            if before.state is to:
                return before
            check_version(before.version, expected)
            return replace(before, state=PROGRAM.after(before.state, trigger), version=before.version + 1)

        return await self._change_program(id, after, by, via)

    async def _change_program(
        self, id: str, change: Callable[[Program | None], Program], by: Principal, via: Via
    ) -> Program:
        for _ in range(SAVE_ATTEMPTS_MAX):
            kept = (await self._get("program", [id])).get(id)
            before = None if kept is None else _program(kept.body).item
            after = change(before)
            if after is before:
                return after
            if kept is None:
                await self._check_room("program")
            closed = after.state is ProgramState.CLOSED
            record = _Record(after, self._clock.now_ms() if closed else None)
            if await self._commit(f"program/{id}", record, 0 if kept is None else kept.revision, by, via):
                return after
        raise ProgramsBusyError("this program")

    async def _check_references(self, program: Program) -> None:
        if program.tariff_ref:
            await self.tariff(program.tariff_ref)
        if program.params_shape and (await self.shape(program.params_shape)).kind is not ShapeKind.PARAMS:
            raise InvalidEntryError("program", ["params_shape: a shape of kind params"])

    async def _check(self, shape: str, kind: ShapeKind, body: Body, what: str) -> None:
        its_shape = await self.shape(shape)
        if its_shape.kind is not kind:
            raise InvalidEntryError(what, [f"shape: one of kind {kind}"])
        self._checker.check(its_shape, body, what)

    async def _check_room(self, kind: str) -> None:
        if len(await self._all(kind)) >= ENTRIES_MAX[kind]:
            raise CatalogueFullError(f"the catalogue keeps {ENTRIES_MAX[kind]} of kind {kind}: use one again")

    async def _all(self, kind: str) -> tuple[Document, ...]:
        page = await self._store.find(CATALOGUE.name, "kind", kind, kind, limit=ENTRIES_MAX[kind] + 1)
        return page.documents

    async def _get(self, kind: str, ids: Collection[str]) -> dict[str, Document]:
        found = await self._store.get(CATALOGUE.name, [f"{kind}/{id}" for id in ids])
        return {id.partition("/")[2]: document for id, document in found.items()}

    async def _commit(self, id: str, record: _Record[Item], before: int, by: Principal, via: Via) -> bool:
        now_ms = self._clock.now_ms()
        row = audit.act(by, via, Action.PROGRAM_WRITE, id, at_ms=now_ms, before=before, after=before + 1)
        # Entries are never deleted, so their revisions never start again.
        write = replace(_write(id, record, before), entries=(audit.entry(row, before + 1, life=0),))
        return not await self._store.commit([write])


def builtin() -> _Builtin:
    """Return what comes with this software."""
    data = resources.files("programs").joinpath("catalogue.json").read_bytes()
    return msgspec.json.decode(data, type=_Builtin)


def _write(id: str, record: _Record[Item], before: int) -> Write:
    index: dict[str, IndexValue] = {"kind": id.partition("/")[0]}
    if record.spread_ms is not None:
        index["spread_ms"] = record.spread_ms
    return Write(CATALOGUE.name, id, before, _encode(record), index)


def _decoder(kind: str) -> Callable[[bytes], _Record[Any]]:
    return _program if kind == "program" else _tariff


def _spreading(document: Document) -> Spreading:
    kind, _, id = document.id.partition("/")
    return Spreading(kind, id, _decoder(kind)(document.body).cursor, document.id, document.revision)
