"""What firmware keeps in the store."""

from typing import Final

from ota.execution_store import EXECUTIONS
from ota.installed import INSTALLED
from ota.snapshots import SNAPSHOTS

COLLECTIONS: Final = (EXECUTIONS, SNAPSHOTS, INSTALLED)
