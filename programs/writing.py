"""What is written into the catalogue as acts that a second person can approve.

An act is its name, what it is about, and facts as text: what the second person reads is what is done. It is
checked when it is asked for, and again when it is done, which may be days later; done twice, it is done once.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from infra.machines import IllegalTransitionError
from infra.versions import OutdatedVersionError, check_version
from programs.catalogue import ProgramCatalogue
from programs.errors import ProgramError, ProgramsBusyError
from programs.models import Body, Program, Shape, Tariff
from programs.states import PROGRAM, ProgramTrigger
from security.audit import Via
from security.people.approvals import Act, Held
from security.people.errors import ActOutdatedError, PeopleBusyError
from security.policy import Action, Principal

WRITE_PROGRAM: Final = "program.write"
PUBLISH_PROGRAM: Final = "program.publish"
CLOSE_PROGRAM: Final = "program.close"
WRITE_SHAPE: Final = "shape.write"
WRITE_TARIFF: Final = "tariff.write"

Written = Program | Shape | Tariff


@dataclass(frozen=True, slots=True)
class Asked:
    """An act on the catalogue."""

    act: str
    target: str
    """``program/cpp-27``, ``shape/tou/1``, ``tariff/t7``."""
    facts: Mapping[str, str]

    @property
    def id(self) -> str:
        """The id of what it is about."""
        return self.target.partition("/")[2]

    @property
    def version(self) -> int:
        """For which version of it the act is meant."""
        return int(self.facts["version"])

    def read(self) -> Body:
        """Return what is to be written."""
        body: Body = msgspec.json.decode(self.facts["body"])
        return body


def write_program(program: Program, version: int) -> Asked:
    """Write a program over a version (0: a new one)."""
    return Asked(WRITE_PROGRAM, f"program/{program.id}", _facts(program, version))


def publish_program(id: str, version: int) -> Asked:
    """Offer a program, as it is in this version."""
    return Asked(PUBLISH_PROGRAM, f"program/{id}", {"version": str(version)})


def close_program(id: str) -> Asked:
    """End a program for good."""
    return Asked(CLOSE_PROGRAM, f"program/{id}", {})


def write_shape(shape: Shape) -> Asked:
    """Add a shape."""
    return Asked(WRITE_SHAPE, f"shape/{shape.id}", _facts(shape, 0))


def write_tariff(tariff: Tariff, version: int) -> Asked:
    """Write a tariff over a rev (0: a new one)."""
    return Asked(WRITE_TARIFF, f"tariff/{tariff.id}", _facts(tariff, version))


class Writing:
    """Checks acts on the catalogue, and does them."""

    def __init__(self, catalogue: ProgramCatalogue) -> None:
        self._catalogue = catalogue
        self._rows: Mapping[
            str,
            tuple[Callable[[Asked], Awaitable[None]], Callable[[Asked, Principal, Via], Awaitable[Written]]],
        ] = {
            WRITE_PROGRAM: (self._check_program, self._write_program),
            PUBLISH_PROGRAM: (self._check_publishing, self._publish),
            CLOSE_PROGRAM: (self._check_closing, self._close),
            WRITE_SHAPE: (self._check_shape, self._write_shape),
            WRITE_TARIFF: (self._check_tariff, self._write_tariff),
        }

    async def check(self, asked: Asked) -> None:
        """Raise what :meth:`do` would raise now."""
        await self._rows[asked.act][0](asked)

    async def do(self, asked: Asked, by: Principal, via: Via) -> Written:
        """Do it, and return what there is then."""
        return await self._rows[asked.act][1](asked, by, via)

    def table(self) -> Mapping[str, Act]:
        """Return the rows for ``Approvals``."""
        return {act: Act(Action.PROGRAM_WRITE, self._approved) for act in self._rows}

    async def _approved(self, held: Held, via: Via, reason: str) -> None:  # noqa: ARG002 - the approval has its own row
        try:
            await self.do(Asked(held.act, held.target, held.facts), held.by, via)
        except ProgramsBusyError as error:
            raise PeopleBusyError from error
        except (ProgramError, OutdatedVersionError, IllegalTransitionError) as error:
            raise ActOutdatedError(str(error)) from error

    async def _check_program(self, asked: Asked) -> None:
        program = _program(asked)
        await self._catalogue.check(program)
        kept = (await self._catalogue.programs_of([program.id])).get(program.id)
        check_version(0 if kept is None else kept.version, asked.version)
        PROGRAM.after(None if kept is None else kept.state, ProgramTrigger.WRITE)

    async def _write_program(self, asked: Asked, by: Principal, via: Via) -> Program:
        return await self._catalogue.put(_program(asked), by, via, expected=asked.version)

    async def _check_publishing(self, asked: Asked) -> None:
        await self._check_step(asked.id, ProgramTrigger.PUBLISH)

    async def _publish(self, asked: Asked, by: Principal, via: Via) -> Program:
        return await self._catalogue.publish(asked.id, by, via, expected=asked.version)

    async def _check_closing(self, asked: Asked) -> None:
        await self._check_step(asked.id, ProgramTrigger.CLOSE)

    async def _close(self, asked: Asked, by: Principal, via: Via) -> Program:
        return await self._catalogue.close(asked.id, by, via)

    async def _check_step(self, id: str, trigger: ProgramTrigger) -> None:
        PROGRAM.after((await self._catalogue.program(id)).state, trigger)

    async def _check_shape(self, asked: Asked) -> None:
        await self._catalogue.check_new_shape(msgspec.convert(asked.read(), Shape))

    async def _write_shape(self, asked: Asked, by: Principal, via: Via) -> Shape:
        return await self._catalogue.put_shape(msgspec.convert(asked.read(), Shape), by, via)

    async def _check_tariff(self, asked: Asked) -> None:
        tariff = msgspec.convert(asked.read(), Tariff)
        await self._catalogue.check_tariff(tariff.id, tariff.shape, tariff.body)
        kept = (await self._catalogue.tariffs_of([tariff.id])).get(tariff.id)
        check_version(0 if kept is None else kept.rev, asked.version)

    async def _write_tariff(self, asked: Asked, by: Principal, via: Via) -> Tariff:
        tariff = msgspec.convert(asked.read(), Tariff)
        return await self._catalogue.put_tariff(
            tariff.id, tariff.shape, tariff.body, by, via, expected=asked.version
        )


def _program(asked: Asked) -> Program:
    return msgspec.convert(asked.read(), Program)


def _facts(written: Written, version: int) -> dict[str, str]:
    body = {name: one for name, one in msgspec.to_builtins(written).items() if name not in _OURS}
    return {"body": msgspec.json.encode(body).decode(), "version": str(version)}


_OURS: Final = frozenset({"state", "version", "rev"})
"""What the catalogue gives."""
