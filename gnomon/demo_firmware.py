"""New firmware for the demo's city: an image of each model, its description, and the keys of who made it.

They lie in files for whoever plays the vendor. The keys are registered by us, as the demo's own: elsewhere
that takes two security officers. What the images hold means nothing to the simulated devices, who check and
install them like any other.
"""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet.makes import FACTORY_COUNTER
from gnomon.demo_city import DEMO
from gnomon.services import Services
from ota.envelope import public_of
from ota.keys import parse_key
from ota.verification import KeyRole
from registry.catalogue import DeviceModel, ModelFirmware, Signatures
from security import private_files

IMAGE_BYTES: Final = 128 * 1_024
LABEL: Final = "2.0.0"
VERSION: Final = f"{LABEL}.0"
COUNTER: Final = FACTORY_COUNTER + 1


async def provide(services: Services, directory: Path, models: Iterable[str]) -> None:
    """See that there is new firmware for these models in a directory, and that its makers' keys count.

    What lies there already stays as it is.
    """
    private_files.make_directory(directory)
    found = (await services.models.models(set(models))).values()
    ours = [(one, one.firmware) for one in found if one.firmware and one.firmware.trust is Signatures.TWO]
    for model, firmware in ours:
        _write(directory / f"{model.id}.bin", random.Random(model.id).randbytes(IMAGE_BYTES))  # noqa: S311
        _write(directory / f"{model.id}.toml", _description(model, firmware).encode())
    keys = services.ota.keys
    for vendor in sorted({firmware.vendor for _, firmware in ours}):
        public = public_of(_key(directory / f"{vendor}.key"))
        new = parse_key(public, KeyRole.IMAGE, vendor, services.clock.now_ms())
        if (await keys.ring()).key(new.kid) is None:  # one that somebody has revoked stays so
            await keys.add(new, DEMO)


def _description(model: DeviceModel, firmware: ModelFirmware) -> str:
    """Return what a vendor says of the image, as ``gnomon image sign`` reads it."""
    fields = {
        "vendor": firmware.vendor,
        "model": model.id,
        "hw": list(firmware.classes.values()),
        "label": LABEL,
        "version": VERSION,
        "counter": COUNTER,
        "config_schema": max(int(number) for number in firmware.schemas),
    }
    # Texts, numbers and lists of texts are written in TOML as in JSON.
    return "".join(f"{name} = {msgspec.json.encode(value).decode()}\n" for name, value in fields.items())


def _write(file: Path, data: bytes) -> None:
    if not file.exists():
        private_files.replace(file, data)


def _key(file: Path) -> Ed25519PrivateKey:
    """Return the key that a file holds; it is made if there is none."""
    made = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    private_files.create(file, made)
    key = serialization.load_pem_private_key(private_files.read(file) or b"", password=None)
    assert isinstance(key, Ed25519PrivateKey), "we made it"
    return key
