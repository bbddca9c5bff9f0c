"""The collections that the Trust Center keeps: whoever opens its store names them."""

from typing import Final

from security.trust.claim_store import CLAIMS
from security.trust.issued import CERTIFICATES
from security.trust.known_keys import KNOWN_KEYS, SUSPICIONS
from security.trust.pins import PINS

COLLECTIONS: Final = (CERTIFICATES, CLAIMS, KNOWN_KEYS, SUSPICIONS, PINS)
