"""What provisioning refuses. Each says what to do; translation outward happens at the entry points."""

from collections.abc import Mapping, Sequence
from typing import Final

PROBLEMS_MAX: Final = 64
"""Bad pairs that one refusal names."""


class ProvisioningError(Exception):
    """It was not done, and nothing changed."""


class InvalidRequestError(ProvisioningError):
    """What was asked for can not be so; the message says what is wrong."""


class SessionNotFoundError(ProvisioningError):
    """No session of this id."""

    def __init__(self, id: str) -> None:
        super().__init__("there is no provisioning session of this id")
        self.id = id


class VerificationNotFoundError(ProvisioningError):
    """No verification of this id."""

    def __init__(self, id: str) -> None:
        super().__init__("there is no verification of this id")
        self.id = id


class WorkOrderNotFoundError(ProvisioningError):
    """No work order of this id."""

    def __init__(self, id: str) -> None:
        super().__init__("there is no work order of this id")
        self.id = id


class CustomerNotFoundError(ProvisioningError):
    """The customer care system knows nobody like that."""

    def __init__(self) -> None:
        super().__init__("no customer is found by this: ask for another way to find them")


class TooManySearchesError(ProvisioningError):
    """A representative looks for, or verifies, more customers than anybody calls."""

    def __init__(self, at_most: int, retry_s: int) -> None:
        super().__init__(f"{at_most} customers an hour may be searched for, or verified: wait")
        self.retry_s = retry_s


class VerificationMissingError(ProvisioningError):
    """Nobody has verified who is calling, or not for this account, or they did not pass."""

    def __init__(self) -> None:
        super().__init__("verify the customer first")


class VerificationExpiredError(ProvisioningError):
    """It is too long ago that the customer was verified."""

    def __init__(self) -> None:
        super().__init__("the verification has expired: verify the customer again")


class WorkOrderMissingError(ProvisioningError):
    """No open work order of this installer for these premises."""

    def __init__(self) -> None:
        super().__init__("an open work order for these premises is needed")


class PolicyOffError(ProvisioningError):
    """This deployment does not go this way."""

    def __init__(self, policy: str) -> None:
        super().__init__(f"this utility does not offer it: provisioning.{policy} is off")
        self.policy = policy


class PreconditionError(ProvisioningError):
    """The premises are not ready; ``codes`` has everything that is missing."""

    def __init__(self, codes: Sequence[str]) -> None:
        super().__init__(f"not ready yet: {', '.join(codes)}")
        self.codes = tuple(codes)


class SessionExistsError(ProvisioningError):
    """Another session works at these premises."""

    def __init__(self, id: str) -> None:
        super().__init__("another session is open for these premises: go on with it, or take it over")
        self.id = id


class TooManySessionsError(ProvisioningError):
    """One person has too many sessions open."""

    def __init__(self, at_most: int) -> None:
        super().__init__(f"{at_most} sessions may be open at a time: finish or abort one")


class RevisionConflictError(ProvisioningError):
    """The session has changed since the caller looked."""

    def __init__(self, revision: int) -> None:
        super().__init__("the session has changed since: look at it again")
        self.revision = revision


class IdempotencyMismatchError(ProvisioningError):
    """The same key was used for something else."""

    def __init__(self) -> None:
        super().__init__("this Idempotency-Key was used for another request: take a new one")


class SessionBusyError(ProvisioningError):
    """Others keep changing the same session: the caller may try again."""

    def __init__(self) -> None:
        super().__init__("this session is being changed by others at the same time: try again")


class WindowOpenError(ProvisioningError):
    """A window is open, or about to be."""

    def __init__(self) -> None:
        super().__init__("discovery is running: add a grant, or stop it first")


class WindowClosedError(ProvisioningError):
    """No window is open."""

    def __init__(self) -> None:
        super().__init__("no discovery is running: start one")


class GatewayCapacityError(ProvisioningError):
    """The gateway takes no more; the message names both numbers."""


class CredentialLockedError(ProvisioningError):
    """Too many proofs were entered for one device."""

    def __init__(self, eui64: str, retry_s: int) -> None:
        super().__init__("too many codes were entered for this device: wait, and compare with its label")
        self.eui64 = eui64
        self.retry_s = retry_s


class InstallCodeCrcError(ProvisioningError):
    """The install code is mistyped; it costs no try."""

    def __init__(self, eui64: str) -> None:
        super().__init__("the install code is mistyped: its last four digits do not fit the others")
        self.eui64 = eui64


class PinChecksumError(ProvisioningError):
    """The PIN is mistyped; it costs no try."""

    def __init__(self) -> None:
        super().__init__("the PIN is mistyped: its last digit does not fit the others")


class AuthNotOkError(ProvisioningError):
    """Devices were chosen that have not proved themselves; ``devices`` says in which state they are."""

    def __init__(self, devices: Mapping[str, str]) -> None:
        super().__init__("only equipment that has proved itself can take part")
        self.devices = dict(devices)


class IneligiblePairsError(ProvisioningError):
    """Devices do not fit programs; ``pairs`` has every bad one with all its reasons. Nothing was stored."""

    def __init__(self, pairs: Mapping[tuple[str, str], Sequence[str]]) -> None:
        super().__init__("some devices do not fit the programs chosen for them")
        self.pairs = dict(list(pairs.items())[:PROBLEMS_MAX])

    @property
    def exclusive_only(self) -> bool:
        """Whether nothing speaks against it but that programs exclude each other."""
        reasons = [reason for some in self.pairs.values() for reason in some]
        return all(reason.startswith("EXCLUSIVE_WITH") for reason in reasons)


class ConsentMissingError(ProvisioningError):
    """Somebody has to say yes first; ``pairs`` says to what."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        super().__init__("consent is missing: ask the customer, and record what they said")
        self.pairs = tuple(pairs)


class NothingToRetryError(ProvisioningError):
    """All that was named is ready, or was never sent."""

    def __init__(self) -> None:
        super().__init__("nothing of it has failed or is late")


class NotRecordedError(ProvisioningError):
    """There is nothing to confirm yet."""

    def __init__(self) -> None:
        super().__init__("nothing is recorded yet: wait for the devices, or accept what there is")


class RemedyNotOfferedError(ProvisioningError):
    """The remedy is none of those that fit, or was not told of."""

    def __init__(self) -> None:
        super().__init__("this remedy is not one of those that the customer was told of")
