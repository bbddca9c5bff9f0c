"""What is refused about programs. Each says what to do; translation outward happens at the entry points."""

from collections.abc import Sequence
from typing import Final

PROBLEMS_MAX: Final = 16
"""Problems named of one body; whoever mends these is told of the others."""


class ProgramError(Exception):
    """It was not done, and nothing changed."""


class InvalidEntryError(ProgramError):
    """Something for the catalogue, or the parameters of an enrolment, is not as it must be."""

    def __init__(self, what: str, problems: Sequence[str]) -> None:
        self.what = what
        self.problems = tuple(problems[:PROBLEMS_MAX])
        super().__init__(f"{what}: {'; '.join(self.problems)}")


class InvalidConsentError(ProgramError):
    """A consent is described in a way none can be."""


class NotFoundError(ProgramError):
    """What was named is not there."""


class ProgramNotFoundError(NotFoundError):
    """No program of this id."""

    def __init__(self, id: str) -> None:
        super().__init__("there is no program of this id: see the catalogue")
        self.id = id


class ShapeNotFoundError(NotFoundError):
    """No shape of this id."""

    def __init__(self, id: str) -> None:
        super().__init__("there is no shape of this id in the catalogue: put it there first")
        self.id = id


class TariffNotFoundError(NotFoundError):
    """No tariff of this id."""

    def __init__(self, id: str) -> None:
        super().__init__("there is no tariff of this id: put it into the catalogue first")
        self.id = id


class EnrolmentNotFoundError(NotFoundError):
    """No enrolment of this id."""

    def __init__(self, id: str) -> None:
        super().__init__("there is no enrolment of this id")
        self.id = id


class ConflictError(ProgramError):
    """What is kept speaks against it."""


class ShapeFixedError(ConflictError):
    """A shape never changes."""

    def __init__(self, id: str) -> None:
        super().__init__("a shape never changes: put the new one beside it, under its next version")
        self.id = id


class CatalogueFullError(ConflictError):
    """A bound of the catalogue is reached."""


class ProgramsBusyError(ProgramError):
    """Others kept changing the same thing: the caller may try again."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is being changed by others at the same time: try again")


class IneligibleError(ProgramError):
    """A device does not fit a program; ``reasons`` has everything that keeps it out."""

    def __init__(self, device: str, program: str, reasons: Sequence[object]) -> None:
        self.device = device
        self.program = program
        self.reasons = tuple(str(reason) for reason in reasons)
        super().__init__(f"this device does not fit this program: {', '.join(self.reasons)}")
