"""Short names and check values of the standards, computed from what they stand for. Pure.

LFDI, SFDI and registration PIN are those of IEEE 2030.5. The first two come from a certificate, so they
change when it is renewed. Install codes are those of the label of a Zigbee device: a code and its CRC, from
which both ends derive the link key.
"""

import hashlib
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

LFDI_BYTES: Final = 20
SFDI_CHARS: Final = 12
PIN_CHARS: Final = 6
INSTALL_CODE_BYTES: Final = frozenset({6, 8, 12, 16})
"""Lengths a code may have, without its CRC."""
CRC_BYTES: Final = 2
SERIAL_CHARS: Final = 32
"""Hexadecimal digits of a certificate's serial number (128 bits)."""

_SFDI_BITS: Final = 36
_CRC_POLYNOMIAL: Final = 0x8408
_BLOCK_BYTES: Final = 16
_DIGITS: Final = frozenset("0123456789")


class InvalidInstallCodeError(Exception):
    """The text is no install code."""


class MistypedInstallCodeError(InvalidInstallCodeError):
    """Its CRC does not fit: a typing error."""


def serial_text(number: int) -> str:
    """Return a serial number as we write it everywhere: 32 lower-case hexadecimal digits."""
    return f"{number:0{SERIAL_CHARS}x}"


# ---------------------------------------------------------------------------- IEEE 2030.5


def lfdi(der: bytes) -> str:
    """Return the long form device identifier of a certificate: 40 upper-case hexadecimal digits."""
    return lfdi_of_fingerprint(hashlib.sha256(der).digest())


def lfdi_of_fingerprint(sha256: bytes) -> str:
    """Return the same from the certificate's SHA-256: its first 160 bits."""
    return sha256[:LFDI_BYTES].hex().upper()


def sfdi(lfdi: str) -> str:
    """Return the short form: the first 36 bits as 11 decimal digits, and a check digit."""
    number = int(lfdi[: _SFDI_BITS // 4], 16)
    return with_check_digit(f"{number:0{SFDI_CHARS - 1}}")


def shown_sfdi(sfdi: str) -> str:
    """Return the short form as a person reads it: ``167-261-211-391``."""
    return "-".join(sfdi[start : start + 3] for start in range(0, SFDI_CHARS, 3))


def with_check_digit(digits: str) -> str:
    """Append the digit that makes the sum of all a multiple of ten."""
    return digits + str(-_sum(digits) % 10)


def pin_is_valid(pin: str) -> bool:
    """Tell whether this is a registration PIN: six digits, the last as it must be."""
    return len(pin) == PIN_CHARS and _DIGITS.issuperset(pin) and _sum(pin) % 10 == 0


def _sum(digits: str) -> int:
    return sum(map(int, digits))


# ---------------------------------------------------------------------------- install codes


def parse_install_code(text: str) -> bytes:
    """Return a code with its CRC as bytes, from a label's hexadecimal digits, blanks and hyphens between."""
    try:
        code = bytes.fromhex(text.replace("-", " "))
    except ValueError as error:
        raise InvalidInstallCodeError("an install code is hexadecimal digits") from error
    if len(code) - CRC_BYTES not in INSTALL_CODE_BYTES:
        lengths = ", ".join(str(2 * (length + CRC_BYTES)) for length in sorted(INSTALL_CODE_BYTES))
        raise InvalidInstallCodeError(
            f"an install code with its CRC has {lengths} digits, not {2 * len(code)}"
        )
    if not install_code_crc_is_valid(code):
        raise MistypedInstallCodeError(
            "the install code is mistyped: its last four digits do not fit the others"
        )
    return code


def install_code_crc_is_valid(code: bytes) -> bool:
    """Tell whether the last two bytes are the CRC of those before."""
    return install_code_crc(code[:-CRC_BYTES]) == code[-CRC_BYTES:]


def install_code_crc(code: bytes) -> bytes:
    """Return the CRC as it stands on the label: the low byte first."""
    return crc_x25(code).to_bytes(CRC_BYTES, "little")


def crc_x25(data: bytes) -> int:
    """Return CRC-16/X-25."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CRC_POLYNOMIAL if crc & 1 else 0)
    return crc ^ 0xFFFF


def link_key(code: bytes) -> bytes:
    """Return the link key of an install code with its CRC: their AES-MMO hash (Zigbee, B.6)."""
    padded = code + b"\x80"
    padded += bytes(-(len(padded) + 2) % _BLOCK_BYTES) + (8 * len(code)).to_bytes(2, "big")
    digest = bytes(_BLOCK_BYTES)
    for start in range(0, len(padded), _BLOCK_BYTES):
        block = padded[start : start + _BLOCK_BYTES]
        # ECB of one block is the plain cipher, which is what this hash is made of.
        cipher = Cipher(algorithms.AES(digest), modes.ECB())  # noqa: S305
        digest = _xor(cipher.encryptor().update(block), block)
    return digest


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
