"""What firmware keeps of a device for its customer: it goes along to a successor, and goes with them."""

from dataclasses import dataclass

from ota.installed import InstalledService
from ota.snapshots import SnapshotService


@dataclass(frozen=True, slots=True)
class Belongings:
    """Called by whoever replaces devices, removes them, or lets customers leave."""

    snapshots: SnapshotService
    installed: InstalledService

    async def carry_over(self, old: str, new: str) -> None:
        """Give a successor the configuration of the device whose place it has taken; again is no error."""
        await self.snapshots.carry_over(old, new)

    async def forget(self, thing: str) -> None:
        """Erase what is kept of a device; again is no error."""
        await self.snapshots.forget(thing)
        await self.installed.forget(thing)
