"""What programs look at, whoever keeps it: a session weighs devices that the registry has not registered."""

from collections.abc import Collection
from collections.abc import Set as AbstractSet
from typing import Protocol


class DeviceFacts(Protocol):
    """What is known of a device, or of what may become one."""

    @property
    def id(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def fw(self) -> str: ...
    @property
    def lifecycle(self) -> str: ...
    @property
    def account(self) -> str: ...
    @property
    def premises(self) -> str: ...


class ModelFacts(Protocol):
    """What is known of a device model."""

    @property
    def categories(self) -> frozenset[int]: ...
    @property
    def capabilities(self) -> frozenset[str]: ...
    @property
    def fw_min(self) -> str: ...
    @property
    def validated(self) -> bool: ...


class AccountFacts(Protocol):
    """What is known of an account."""

    @property
    def tariff(self) -> str: ...


class PremisesFacts(Protocol):
    """What is known of a place."""

    @property
    def zone(self) -> str: ...
    @property
    def feeder(self) -> str: ...


class Presence(Protocol):
    """Who can be reached. A hint: it decides how long an answer is waited for, and nothing else."""

    async def online(self, things: Collection[str]) -> AbstractSet[str]:
        """Return those of these things that could answer now."""
        ...
