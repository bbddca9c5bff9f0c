"""From the code on a label to the key with which a device joins: Zigbee's install codes. Pure.

A code is 6, 8, 12 or 16 bytes and their CRC-16/X-25, low byte first. The link key is the AES-MMO hash of
both. Written from the standard and not shared with the service, so that a wrong key there is met by a right
one here.
"""

from itertools import islice
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

BLOCK: Final = 16
_POLYNOMIAL: Final = 0x8408  # 0x1021, reflected


def crc(code: bytes) -> bytes:
    """Return the two bytes that follow a code on its label."""
    register = 0xFFFF
    for byte in code:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (_POLYNOMIAL if register & 1 else 0)
    return (register ^ 0xFFFF).to_bytes(2, "little")


def printed(code: bytes) -> str:
    """Return what stands on the label."""
    return (code + crc(code)).hex().upper()


def link_key(label: str) -> bytes:
    """Return the key that belongs to a printed code."""
    message = bytes.fromhex(label)
    bits = len(message) * 8
    padded = message + b"\x80"
    padded += bytes(-(len(padded) + 2) % BLOCK) + bits.to_bytes(2, "big")
    digest = bytes(BLOCK)
    for block in _blocks(padded):
        # As the standard has it: the last digest is the key of the next block.
        encryptor = Cipher(algorithms.AES128(digest), modes.ECB()).encryptor()  # noqa: S305
        digest = bytes(a ^ b for a, b in zip(encryptor.update(block), block, strict=True))
    return digest


def _blocks(message: bytes) -> list[bytes]:
    rest = iter(message)
    return [bytes(islice(rest, BLOCK)) for _ in range(len(message) // BLOCK)]
