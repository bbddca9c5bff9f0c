"""What firmware keeps in the store."""

from typing import Final

from ota.execution_store import EXECUTIONS

COLLECTIONS: Final = (EXECUTIONS,)
