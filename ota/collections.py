"""What firmware keeps in the store."""

from typing import Final

from ota.campaign_store import CAMPAIGNS, TARGETS
from ota.claims import CLAIMS
from ota.execution_store import EXECUTIONS
from ota.images import IMAGES
from ota.installed import INSTALLED
from ota.keys import SIGNING_KEYS
from ota.releases import RELEASES, VERSIONS
from ota.snapshots import SNAPSHOTS

COLLECTIONS: Final = (
    EXECUTIONS,
    SNAPSHOTS,
    INSTALLED,
    IMAGES,
    RELEASES,
    VERSIONS,
    SIGNING_KEYS,
    CAMPAIGNS,
    TARGETS,
    CLAIMS,
)
