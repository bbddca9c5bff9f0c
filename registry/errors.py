"""What the registry refuses. Each says what to do; translation outward happens at the entry points."""


class RegistryError(Exception):
    """The registry did not do what was asked, and nothing changed."""


class InvalidThingError(RegistryError):
    """A new thing is described in a way no thing can be."""


class InvalidThingNameError(InvalidThingError):
    """The name cannot be a thing's."""

    def __init__(self, name: str, chars_max: int) -> None:
        super().__init__(f"a thing's name has 1 to {chars_max} of A-Z a-z 0-9 : _ - here")
        self.name = name


class ReservedNameError(InvalidThingError):
    """The name is one of ours."""

    def __init__(self, name: str) -> None:
        super().__init__("names that begin like this are the broker's canaries: choose another one")
        self.name = name


class InvalidPremisesError(InvalidThingError):
    """The id cannot be that of premises."""


class InvalidAccountError(InvalidThingError):
    """The id cannot be that of an account."""


class InvalidModelError(InvalidThingError):
    """The text cannot be a device model."""


class InvalidDetailError(InvalidThingError):
    """What is told of something cannot be so."""


class NotFoundError(RegistryError):
    """What was named is not there."""


class ThingNotFoundError(NotFoundError):
    """No such thing is registered."""

    def __init__(self, name: str) -> None:
        super().__init__("no thing of this name is registered: register it, or correct the name")
        self.name = name


class PremisesNotFoundError(NotFoundError):
    """Nothing is known of these premises."""

    def __init__(self, id: str) -> None:
        super().__init__("no premises of this id are known: put them there, or correct the id")
        self.id = id


class DeviceNotFoundError(NotFoundError):
    """The registry knows no such device."""

    def __init__(self, id: str) -> None:
        super().__init__("no device of this id is known: it has to be seen first, or correct the id")
        self.id = id


class ModelNotFoundError(NotFoundError):
    """The catalogue has no such device model."""

    def __init__(self, id: str) -> None:
        super().__init__("the catalogue has no device model of this id: put it there, or correct the id")
        self.id = id


class GatewayNotFoundError(NotFoundError):
    """Nothing is known of this gateway but, perhaps, its name."""

    def __init__(self, id: str) -> None:
        super().__init__("no gateway of this id has been described: describe it, or correct the id")
        self.id = id


class MeterNotFoundError(NotFoundError):
    """The registry knows no such meter."""

    def __init__(self, id: str) -> None:
        super().__init__("no meter of this id is known: put it there, or correct the id")
        self.id = id


class AccountNotFoundError(NotFoundError):
    """The registry knows no such account."""

    def __init__(self, id: str) -> None:
        super().__init__("no account of this id is known: put it there, or correct the id")
        self.id = id


class AttachmentNotFoundError(NotFoundError):
    """The thing is not attached to this gateway."""

    def __init__(self, gateway: str, thing: str) -> None:
        super().__init__("the thing is not attached to this gateway: there is nothing to detach")
        self.gateway = gateway
        self.thing = thing


class ConflictError(RegistryError):
    """What the registry holds speaks against it."""


class ThingExistsError(ConflictError):
    """The name is taken."""

    def __init__(self, name: str) -> None:
        super().__init__(
            "a thing of this name is registered: choose another name, or remove that thing first"
        )
        self.name = name


class PremisesFullError(ConflictError):
    """There are as many things at these premises as may be."""

    def __init__(self, things_max: int) -> None:
        super().__init__(f"premises have at most {things_max} things: remove one that is no more")


class NotAGatewayError(ConflictError):
    """Only a gateway speaks for others, and never for itself."""


class PremisesMismatchError(ConflictError):
    """Gateway and thing are not at the same premises."""

    def __init__(self, gateway: str, thing: str) -> None:
        super().__init__("gateway and thing are at different premises: a thing is attached where it is")
        self.gateway = gateway
        self.thing = thing


class TooManyAttachmentsError(ConflictError):
    """A bound on attachments is reached."""


class DeviceTakenError(ConflictError):
    """The device is bound to another account or to other premises."""

    def __init__(self, id: str) -> None:
        super().__init__("this device is registered for somebody else: it has to be deregistered there first")
        self.id = id


class MeterExchangedError(ConflictError):
    """The meter has been taken away, and another one than this stands in its place."""

    def __init__(self, id: str, successor: str) -> None:
        super().__init__("this meter was exchanged for another one already")
        self.id = id
        self.successor = successor


class MeterElsewhereError(ConflictError):
    """The new meter stands at other premises."""

    def __init__(self, id: str) -> None:
        super().__init__("a meter of this id stands at other premises: correct the id")
        self.id = id


class QuarantinedError(RegistryError):
    """A customer lets nothing go on that somebody else has suspended."""

    def __init__(self) -> None:
        super().__init__("this thing was suspended by the utility: ask there to let it go on")


class RegistryBusyError(RegistryError):
    """Others kept changing the same thing: the caller may try again."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is being changed by others at the same time: try again")
