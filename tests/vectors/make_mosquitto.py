"""Writes the broker's configuration as it is generated for a deployment with default settings.

Not derived by hand: it is here so that a change of what the broker allows is a diff that somebody reads.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from broker_bridge.mosquitto_config import BrokerConfig, configuration, device_acl, plugin_state, service_acl

HERE = Path(__file__).parent
CONFIG = BrokerConfig(
    directory=Path("/var/lib/gnomon/broker"),
    authority_file=Path("/var/lib/gnomon/ca/root.crt"),
    revocation_file=Path("/var/lib/gnomon/ca/revoked.crl"),
    plugin=Path("/usr/lib/mosquitto_dynamic_security.so"),
    device_port=8883,
    service_port=18883,
)


def files() -> dict[str, str]:
    """Return name and content of each golden file."""
    return {
        "mosquitto.conf": configuration(CONFIG, user="gnomon"),
        "mosquitto_device.acl": device_acl(),
        "mosquitto_service.acl": service_acl(),
        "mosquitto_plugin.json": plugin_state().decode() + "\n",
    }


if __name__ == "__main__":
    for name, content in files().items():
        (HERE / name).write_text(content)
