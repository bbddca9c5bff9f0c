"""Which device models there are and what each can do: data that operators keep, not code.

A device that is not here is known to be there and can do nothing for the utility. The built-in models lie in
``models.json``; what an operator has made of one of them stays.
"""

import re
from collections.abc import Collection as SizedIterable
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from importlib import resources
from typing import Any, Final

import msgspec

from infra.clock import Clock
from infra.documents.port import Collection, DocumentStore, IndexValue
from infra.documents.records import Records
from infra.versions import check_version
from registry.errors import InvalidDetailError, ModelNotFoundError
from registry.rules import NAME_CHARS_MAX, check_text
from security.audit import INSIDE, Via
from security.audited import Audited
from security.policy import Principal, Role

DEVICE_MODELS: Final = "device_models"
COLLECTION: Final = Collection(DEVICE_MODELS, ("listed",))
HW_MAX: Final = 65_535
WORDS_MAX: Final = 32
"""Categories, capabilities, technologies and limits of one model, each."""
CATEGORY_MAX: Final = 20
"""Of the bits that IEEE 2030.5 gives to categories of devices."""
VENDOR_CHARS_MAX: Final = 64
CLASSES_MAX: Final = 32
"""As many as a manifest can list."""
SCHEMAS_MAX: Final = 16
SLOT_BYTES_MAX: Final = 2**31 - 1
BUILT_IN: Final = Principal("built-in catalogue", Role.SYSTEM)
_LISTED: Final = 1
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,4}", re.ASCII)
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_WORD: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")


class Ota(StrEnum):
    """How a model takes firmware."""

    NONE = "none"
    LOCAL = "local"
    REMOTE = "remote"
    BOTH = "both"


class Apply(StrEnum):
    """How a model puts a new image in the place of the old one."""

    AB = "ab"
    """Two slots."""
    STAGED = "staged"
    """One slot and a staging area, copied by the boot loader."""


class Signatures(StrEnum):
    """Whose signatures protect a model."""

    TWO = "two"
    """The vendor's and the utility's."""
    AFR = "afr"
    """An unmodified FreeRTOS agent: the vendor's alone."""


class HealthSign(StrEnum):
    """By what a model shows that its new image is well."""

    REPORT = "report"
    """By its ``firmware`` shadow."""
    SESSION = "session"
    """By a new session at the broker, for want of such a shadow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFirmware:
    """What must be known of a model to bring firmware to it."""

    vendor: str
    """Who makes its images: :func:`slug` of a maker, owner of the keys that sign them."""
    classes: Mapping[str, str]
    """Hardware class (a UUID) by hardware version (decimal): what a manifest lists."""
    slot_bytes: int
    apply: Apply
    gate: bool
    """It asks before it activates."""
    trust: Signatures
    health: HealthSign
    schemas: Mapping[str, Mapping[str, Any]]
    """Factory defaults of ``config`` by the number of their schema (decimal)."""
    link_bytes_s: int
    """What its slowest usual link carries."""

    def class_of(self, hw: int) -> str | None:
        """Return the hardware class of a hardware version, None for one that nobody has told of."""
        return self.classes.get(str(hw))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceModel:
    """A make of device, in a range of hardware versions. ``id`` is :func:`slug` of maker and model."""

    id: str
    maker: str
    model: str
    name: str
    """For people."""
    hw_min: int = 0
    hw_max: int = HW_MAX
    categories: frozenset[int] = frozenset()
    """Bits of IEEE 2030.5, 0 to 20."""
    capabilities: frozenset[str] = frozenset()
    """Such as ``price`` or ``load.offset``: what programs ask for."""
    technologies: frozenset[str] = frozenset()
    """What its HAN may be made of, such as ``zigbee-se1``."""
    ota: Ota = Ota.NONE
    fw_min: str = ""
    """The oldest firmware that programs can do with."""
    validated: bool = False
    """The utility has tried it out."""
    rated_w: int = 0
    limits: Mapping[str, int] = field(default_factory=dict)
    """By name, the unit in it: ``dc`` is °C/10, ``cc`` is °C/100."""
    firmware: ModelFirmware | None = None
    """None: no image can be published for it."""
    version: int = 1
    """Rises with every change, and is not the writer's to choose."""


@dataclass(frozen=True, slots=True)
class ModelPage:
    """Models by id; ``next`` continues after the last, None = no more."""

    models: tuple[DeviceModel, ...]
    next: str | None


def slug(text: str) -> str:
    """Return a text as an id: lower case, everything between letters and digits a hyphen."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def fits(found: DeviceModel, maker: str, model: str, hw: int) -> bool:
    """Tell whether equipment that says this of itself is of this model."""
    # "A-B" with "C" and "A" with "B-C" have one id, and are not one model.
    same = (slug(found.maker), slug(found.model)) == (slug(maker), slug(model))
    return same and found.hw_min <= hw <= found.hw_max


def check(model: DeviceModel) -> None:
    """Raise :class:`InvalidDetailError` unless a model can be so."""
    check_text(model.maker, model.model, model.name, model.fw_min)
    if model.id != slug(f"{model.maker}-{model.model}") or not 0 < len(model.id) <= NAME_CHARS_MAX:
        raise InvalidDetailError("the id of a device model is made of its maker and model")
    if not 0 <= model.hw_min <= model.hw_max <= HW_MAX:
        raise InvalidDetailError(f"hardware versions are a range within 0 to {HW_MAX}")
    words = (model.capabilities, model.technologies, frozenset(model.limits))
    if any(len(some) > WORDS_MAX or not all(map(_WORD.fullmatch, some)) for some in words):
        raise InvalidDetailError(f"up to {WORDS_MAX} words, each of a-z 0-9 . _ - and up to 32 long")
    if not all(0 <= category <= CATEGORY_MAX for category in model.categories):
        raise InvalidDetailError(f"categories are numbers from 0 to {CATEGORY_MAX}")
    if model.firmware is not None:
        check_firmware(model.firmware)


def check_firmware(firmware: ModelFirmware) -> None:
    """Raise :class:`InvalidDetailError` unless this can be said of a model's firmware."""
    if firmware.vendor != slug(firmware.vendor) or not 0 < len(firmware.vendor) <= VENDOR_CHARS_MAX:
        raise InvalidDetailError(f"a vendor is 1 to {VENDOR_CHARS_MAX} of a-z 0-9 -")
    numbers = (*firmware.classes, *firmware.schemas)
    if not all(_NUMBER.fullmatch(one) and int(one) <= HW_MAX for one in numbers):
        raise InvalidDetailError(f"hardware versions and config schemas are numbers from 0 to {HW_MAX}")
    if len(firmware.classes) > CLASSES_MAX or len(firmware.schemas) > SCHEMAS_MAX:
        raise InvalidDetailError(f"up to {CLASSES_MAX} hardware classes and {SCHEMAS_MAX} config schemas")
    if not all(map(_UUID.fullmatch, firmware.classes.values())):
        raise InvalidDetailError("a hardware class is a UUID in small letters")
    if not 0 < firmware.slot_bytes <= SLOT_BYTES_MAX or not 0 < firmware.link_bytes_s <= SLOT_BYTES_MAX:
        raise InvalidDetailError(f"slot_bytes and link_bytes_s are 1 to {SLOT_BYTES_MAX}")


def revised(before: DeviceModel | None, new: DeviceModel, expected: int | None = None) -> DeviceModel:
    """Return a model as it is put: the next version of what there was, or the same if nothing differs.

    Raises :class:`~infra.versions.OutdatedVersionError` if it was made for another version (0: for none).
    """
    check_version(0 if before is None else before.version, expected)
    if before is None:
        return replace(new, version=1)
    same = replace(new, version=before.version)
    return same if same == before else replace(new, version=before.version + 1)


class ModelCatalogue:
    """Looks models up and keeps them."""

    def __init__(self, store: DocumentStore, clock: Clock) -> None:
        self._records = Records(store, DEVICE_MODELS, DeviceModel, _found_by)
        self._audited = Audited(self._records, clock, "device_model")

    async def model(self, id: str) -> DeviceModel:
        """Return a model."""
        kept = await self._records.load(id)
        if kept is None:
            raise ModelNotFoundError(id)
        return kept.record

    async def models(self, ids: SizedIterable[str]) -> dict[str, DeviceModel]:
        """Return the models that there are, by id."""
        return await self._records.load_all(ids)

    async def page(self, limit: int, cursor: str | None = None) -> ModelPage:
        """Return a page of all models."""
        page = await self._records.page("listed", _LISTED, _LISTED, limit, cursor)
        return ModelPage(page.records, page.next)

    async def put(
        self, model: DeviceModel, by: Principal, via: Via = INSIDE, *, expected: int | None = None
    ) -> DeviceModel:
        """Keep a model, as the next version of the one of its id, which must be ``expected`` if given."""
        check(model)
        return await self._audited.change(
            model.id, lambda before: revised(before, model, expected), "device_model.write", by, via
        )

    async def recognise(self, maker: str, model: str, hw: int) -> DeviceModel | None:
        """Return the model of equipment that says this of itself, None if there is none such."""
        id = slug(f"{maker}-{model}")
        if not 0 < len(id) <= NAME_CHARS_MAX:
            return None
        kept = await self._records.load(id)
        return kept.record if kept is not None and fits(kept.record, maker, model, hw) else None

    async def seed(self) -> None:
        """See that the built-in models are there."""
        models = {model.id: model for model in built_in()}
        there = await self.models(models)
        for id in models.keys() - there.keys():
            await self.put(models[id], BUILT_IN)


def built_in() -> tuple[DeviceModel, ...]:
    """Return the models that come with Gnomon."""
    text = resources.files("registry").joinpath("models.json").read_bytes()
    return msgspec.json.decode(text, type=tuple[DeviceModel, ...])


def _found_by(_model: DeviceModel) -> Mapping[str, IndexValue]:
    return {"listed": _LISTED}
