"""Every collection of this package, for whoever opens the store."""

from typing import Final

from registry import accounts, catalogue, devices, gateways, meters, store

COLLECTIONS: Final = (
    *store.COLLECTIONS,
    accounts.COLLECTION,
    catalogue.COLLECTION,
    devices.COLLECTION,
    gateways.COLLECTION,
    meters.COLLECTION,
)
