"""Removing a thing takes its shadows along (spec: shadow, 4: privacy)."""

from api.services import ApiServices
from security.audit import Via
from security.policy import Principal


async def remove_thing(services: ApiServices, name: str, by: Principal, via: Via) -> None:
    """Remove a thing from the registry, and its shadows with their history.

    What could prove its name is revoked before: whoever gets the name next has nothing to do with it.

    The shadows go first: a crash in between leaves a thing without shadows, which can be removed again. The
    other order would leave shadows that nobody sees until a thing of the same name finds them. They go
    once more at the end, because a request that was under way may have made one.
    """
    thing = await services.registry.thing(name)
    if thing.has_certificate:
        await services.revoke(name, by, via, "removed")
    await services.shadows.forget(name)
    await services.ota.belongings.forget(name)
    await services.registry.remove(name, by, via)
    await services.shadows.forget(name)
