"""What travels about a home's equipment: devices, models, gateways, meters, accounts.

What a document leaves out for whom is said in its ``of``: an operator knows a device without what its
customer calls it, and field staff without whose it is. (spec: security, 10)
"""

from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta, Struct, convert, structs

from api.reading import ms_of, rfc3339
from api.schemas import Name, Time
from registry.accounts import Account, AccountStatus
from registry.catalogue import (
    CATEGORY_MAX,
    CLASSES_MAX,
    HW_MAX,
    SCHEMAS_MAX,
    SLOT_BYTES_MAX,
    WORDS_MAX,
    Apply,
    DeviceModel,
    HealthSign,
    ModelFirmware,
    Ota,
    Signatures,
)
from registry.gateways import (
    DEVICES_DEFAULT,
    DEVICES_MAX,
    PRIORITY_MAX,
    Gateway,
    GatewayKind,
)
from registry.lifecycle import RATED_W_MAX, Device
from registry.meters import Meter
from registry.models import Owner
from registry.rules import TEXT_CHARS_MAX
from registry.states import Lifecycle
from security.policy import Scope

Label = Annotated[str, Meta(max_length=TEXT_CHARS_MAX)]
Word = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9._-]{0,31}$")]
Number = Annotated[str, Meta(pattern="^(0|[1-9][0-9]{0,4})$")]
Words = Annotated[list[Word], Meta(max_length=WORDS_MAX)]
OptionalName = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9:_-]{0,128}$")]
Instant = Annotated[datetime, Meta(tz=True)]
ModelId = Annotated[str, Meta(pattern="^[a-z0-9-]{1,128}$", examples=["acme-pct-2"])]


class DeviceDocument(Struct, omit_defaults=True):
    """A device; what is absent is empty, or not yours to read."""

    id: Annotated[Name, Meta(description="Its thing's name; of what was only seen its EUI-64")]
    model: str
    owner: Owner
    premises: str
    lifecycle: Lifecycle
    since: Annotated[Time | None, Meta(description="Since when it is in this state")] = None
    model_name: Annotated[str, Meta(description="For people; absent if the catalogue has no such model")] = ""
    capabilities: Annotated[list[str], Meta(description="What programs may ask of it")] = []
    categories: Annotated[list[int], Meta(description="Bits of IEEE 2030.5")] = []
    validated: Annotated[bool, Meta(description="The utility has tried this model out")] = False
    maker: str = ""
    hw: int = 0
    fw: str = ""
    rated_w: int = 0
    predecessor: str = ""
    successor: str = ""
    name: Annotated[str, Meta(description="What its customer calls it")] = ""
    location: Annotated[str, Meta(description="The customer's word for the room")] = ""
    eui64: str = ""
    serial: str = ""
    lfdi: str = ""
    account: Annotated[str, Meta(description="By which it takes part")] = ""

    @classmethod
    def of(cls, device: Device, model: DeviceModel | None, scope: Scope | None) -> "DeviceDocument":
        """Return a device as it is shown to who may see it by ``scope``."""
        document = cls(
            id=device.id,
            model=device.model,
            owner=device.owner,
            premises=device.premises,
            lifecycle=device.lifecycle,
            since=rfc3339(device.transitions[-1].at_ms) if device.transitions else None,
            maker=device.maker,
            hw=device.hw,
            fw=device.fw,
            rated_w=device.rated_w,
            predecessor=device.predecessor,
            successor=device.successor,
        )
        if model is not None:
            document.model_name = model.name
            document.capabilities = sorted(model.capabilities)
            document.categories = sorted(model.categories)
            document.validated = model.validated
        if scope in _AT_HOME:
            document.name, document.location = device.name, device.location
            document.eui64, document.serial, document.lfdi = device.eui64, device.serial, device.lfdi
        if scope in _WHOSE:
            document.account = device.account
        return document


_WHOSE = frozenset({Scope.ACCOUNT, Scope.CASE_BOUND})
_AT_HOME = _WHOSE | {Scope.ORDER_BOUND}


class DeviceList(Struct, omit_defaults=True):
    """A page of devices; without ``next`` it is the last."""

    items: list[DeviceDocument]
    next: str | None = None


class DeviceLabelBody(Struct, forbid_unknown_fields=True):
    """What the customer calls a device, and the room; empty for nothing."""

    name: Label
    location: Label


class ReasonBody(Struct, forbid_unknown_fields=True):
    """Why, for the record; never a name."""

    reason: Label = ""


class FirmwareFacts(Struct, forbid_unknown_fields=True):
    """What must be known of a model to bring firmware to it."""

    vendor: Annotated[
        str, Meta(pattern="^[a-z0-9-]{1,64}$", description="Owner of the keys that sign its images")
    ]
    classes: Annotated[
        dict[Number, Annotated[str, Meta(pattern="^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]],
        Meta(max_length=CLASSES_MAX, description="Hardware class by hardware version"),
    ]
    slot_bytes: Annotated[int, Meta(ge=1, le=SLOT_BYTES_MAX)]
    apply: Apply
    gate: Annotated[bool, Meta(description="It asks before it activates")]
    trust: Annotated[Signatures, Meta(description="`afr`: one signature alone protects it")]
    health: HealthSign
    schemas: Annotated[
        dict[Number, dict[str, Any]],
        Meta(
            max_length=SCHEMAS_MAX, description="Factory defaults of `config` by the number of their schema"
        ),
    ]
    link_bytes_s: Annotated[
        int, Meta(ge=1, le=SLOT_BYTES_MAX, description="What its slowest usual link carries")
    ]


class ModelBody(Struct, forbid_unknown_fields=True):
    """A device model, but for its id and version."""

    maker: Annotated[str, Meta(min_length=1, max_length=TEXT_CHARS_MAX, examples=["Acme"])]
    model: Annotated[str, Meta(min_length=1, max_length=TEXT_CHARS_MAX, examples=["PCT-2"])]
    name: Annotated[str, Meta(max_length=TEXT_CHARS_MAX, description="For people")]
    hw_min: Annotated[int, Meta(ge=0, le=HW_MAX)] = 0
    hw_max: Annotated[int, Meta(ge=0, le=HW_MAX)] = HW_MAX
    categories: Annotated[
        list[Annotated[int, Meta(ge=0, le=CATEGORY_MAX)]], Meta(max_length=CATEGORY_MAX + 1)
    ] = []
    capabilities: Words = []
    technologies: Words = []
    ota: Ota = Ota.NONE
    fw_min: Label = ""
    validated: bool = False
    rated_w: Annotated[int, Meta(ge=0, le=RATED_W_MAX)] = 0
    limits: Annotated[
        dict[Word, Annotated[int, Meta(ge=-(2**31), le=2**31)]],
        Meta(max_length=WORDS_MAX, description="By name, the unit in it: `dc` is °C/10, `cc` is °C/100"),
    ] = {}
    firmware: FirmwareFacts | None = None

    def model_of(self, id: str) -> DeviceModel:
        """Return it as the catalogue keeps it."""
        return DeviceModel(
            id=id,
            maker=self.maker,
            model=self.model,
            name=self.name,
            hw_min=self.hw_min,
            hw_max=self.hw_max,
            categories=frozenset(self.categories),
            capabilities=frozenset(self.capabilities),
            technologies=frozenset(self.technologies),
            ota=self.ota,
            fw_min=self.fw_min,
            validated=self.validated,
            rated_w=self.rated_w,
            limits=self.limits,
            firmware=None if self.firmware is None else ModelFirmware(**structs.asdict(self.firmware)),
        )


class ModelDocument(Struct):
    """A device model."""

    id: ModelId
    version: int
    maker: str
    model: str
    name: str
    hw_min: int
    hw_max: int
    categories: list[int]
    capabilities: list[str]
    technologies: list[str]
    ota: Ota
    fw_min: str
    validated: bool
    rated_w: int
    limits: dict[str, int]
    firmware: FirmwareFacts | None

    @classmethod
    def of(cls, model: DeviceModel) -> "ModelDocument":
        return cls(
            model.id,
            model.version,
            model.maker,
            model.model,
            model.name,
            model.hw_min,
            model.hw_max,
            sorted(model.categories),
            sorted(model.capabilities),
            sorted(model.technologies),
            model.ota,
            model.fw_min,
            model.validated,
            model.rated_w,
            dict(model.limits),
            None if model.firmware is None else convert(model.firmware, FirmwareFacts, from_attributes=True),
        )


class ModelList(Struct, omit_defaults=True):
    """A page of device models."""

    items: list[ModelDocument]
    next: str | None = None


class GatewayBody(Struct, forbid_unknown_fields=True):
    """What is known of a gateway beside its thing."""

    kind: GatewayKind
    parent: Annotated[OptionalName, Meta(description="The gateway behind which a bridge hangs")] = ""
    wan: Annotated[Label, Meta(description="How it reaches us", examples=["ami"])] = ""
    technologies: Annotated[list[Word], Meta(max_length=16, description="HANs that it makes or reaches")] = []
    devices_max: Annotated[int, Meta(ge=0, le=DEVICES_MAX)] = DEVICES_DEFAULT
    load_control_max: Annotated[
        int, Meta(ge=0, le=DEVICES_MAX, description="Of these, how many may control loads")
    ] = DEVICES_DEFAULT
    priority: Annotated[int, Meta(ge=0, le=PRIORITY_MAX)] | None = None
    installed_by: Label = ""
    supplier: Label = ""

    def gateway(self, id: str, premises: str) -> Gateway:
        """Return it as the registry keeps it."""
        return Gateway(
            id=id,
            kind=self.kind,
            premises=premises,
            parent=self.parent,
            wan=self.wan,
            technologies=frozenset(self.technologies),
            devices_max=self.devices_max,
            load_control_max=self.load_control_max,
            priority=self.priority,
            installed_by=self.installed_by,
            supplier=self.supplier,
        )


class GatewayDocument(Struct, omit_defaults=True):
    """A gateway; the lowest ``rank`` comes first."""

    id: Name
    kind: GatewayKind
    premises: str
    devices_max: int
    load_control_max: int
    rank: int
    technologies: list[str] = []
    parent: str = ""
    wan: str = ""
    installed_by: str = ""
    supplier: str = ""

    @classmethod
    def of(cls, gateway: Gateway) -> "GatewayDocument":
        return cls(
            id=gateway.id,
            kind=gateway.kind,
            premises=gateway.premises,
            devices_max=gateway.devices_max,
            load_control_max=gateway.load_control_max,
            rank=gateway.rank,
            technologies=sorted(gateway.technologies),
            parent=gateway.parent,
            wan=gateway.wan,
            installed_by=gateway.installed_by,
            supplier=gateway.supplier,
        )


class GatewayList(Struct):
    """The gateways of premises that may serve now, the one that comes first first."""

    items: list[GatewayDocument]


class MeterBody(Struct, forbid_unknown_fields=True):
    """What is known of a meter."""

    model: Annotated[str, Meta(min_length=1, max_length=TEXT_CHARS_MAX)]
    premises: Name
    fw: Label = ""
    installed_at: Instant | None = None
    technologies: Annotated[list[Word], Meta(max_length=16, description="Of its HAN radio, if any")] = []
    comms_seen_at: Annotated[
        Instant | None, Meta(description="When the metering network heard of it last")
    ] = None
    gateway: Annotated[OptionalName, Meta(description="The thing of its HAN radio")] = ""

    def meter(self, id: str) -> Meter:
        """Return it as the registry keeps it."""
        return Meter(
            id=id,
            model=self.model,
            premises=self.premises,
            fw=self.fw,
            installed_at_ms=None if self.installed_at is None else ms_of(self.installed_at),
            technologies=frozenset(self.technologies),
            comms_seen_at_ms=None if self.comms_seen_at is None else ms_of(self.comms_seen_at),
            gateway=self.gateway,
        )


class MeterDocument(Struct, omit_defaults=True):
    """A meter; without ``installed_at`` it is known, and not installed yet."""

    id: Name
    model: str
    premises: str
    fw: str = ""
    installed_at: Time | None = None
    technologies: list[str] = []
    comms_seen_at: Time | None = None
    gateway: str = ""
    came_for: Annotated[str, Meta(description="In place of which one it came")] = ""
    came_at: Time | None = None
    went_for: Annotated[str, Meta(description="Which one came in its place")] = ""
    went_at: Time | None = None

    @classmethod
    def of(cls, meter: Meter) -> "MeterDocument":
        return cls(
            id=meter.id,
            model=meter.model,
            premises=meter.premises,
            fw=meter.fw,
            installed_at=_time(meter.installed_at_ms),
            technologies=sorted(meter.technologies),
            comms_seen_at=_time(meter.comms_seen_at_ms),
            gateway=meter.gateway,
            came_for="" if meter.came is None else meter.came.other,
            came_at=None if meter.came is None else rfc3339(meter.came.at_ms),
            went_for="" if meter.went is None else meter.went.other,
            went_at=None if meter.went is None else rfc3339(meter.went.at_ms),
        )


class MeterList(Struct):
    """The meters that stand at premises."""

    items: list[MeterDocument]


class AccountBody(Struct, forbid_unknown_fields=True):
    """What is known of an account; the customer is a reference of the customer care system."""

    customer: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:-]{1,128}$", examples=["cust-0007"])]
    tariff: OptionalName = ""
    status: AccountStatus = AccountStatus.ACTIVE

    def account(self, id: str) -> Account:
        """Return it as the registry keeps it."""
        return Account(id=id, customer=self.customer, tariff=self.tariff, status=self.status)


class AccountDocument(Struct):
    """An account: the contract by which devices take part."""

    id: Name
    customer: str
    tariff: str
    status: AccountStatus

    @classmethod
    def of(cls, account: Account) -> "AccountDocument":
        return cls(account.id, account.customer, account.tariff, account.status)


def _time(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)
