"""What the permission table must know of devices. Pure.

A device is its customer's for as long as the premises are: one that came there under an earlier ownership is
nobody's but the utility's, where it is the utility's. Of the rest of a home the utility sees nothing.
(spec: han, 1)
"""

from registry.lifecycle import Device
from registry.models import Owner, Premises, Standing
from registry.states import Lifecycle
from security.policy import Target

_REGISTERED = frozenset({Lifecycle.REGISTERED, Lifecycle.SUSPENDED})


def device_target(device: Device, premises: Premises | None, standing: Standing | None) -> Target:
    """Return the facts about a device; ``standing`` is that of its thing, where there is one."""
    ours = device.owner is Owner.UTILITY
    there = premises is not None and (ours or device.premises_epoch == premises.epoch)
    enrolled = ours or (standing is not None and standing.thing.taking_part)
    return Target(
        device.id,
        frozenset() if standing is None else standing.gateways,
        premises.account if there and premises is not None else "",
        device.premises if there else "",
        enrolled,
        bound=enrolled or device.lifecycle in _REGISTERED,
        customers=not ours,
        liftable=standing is not None and standing.thing.liftable,
        since_ms=premises.since_ms if there and premises is not None else 0,
    )
