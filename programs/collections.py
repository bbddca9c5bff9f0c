"""Every collection and log of this package, for whoever opens the store."""

from typing import Final

from programs import catalogue, consents, store

COLLECTIONS: Final = (catalogue.CATALOGUE, consents.CONSENTS, store.ENROLMENTS, store.CLAIMS)
LOGS: Final = (consents.LOG,)
