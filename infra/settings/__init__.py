"""One frozen settings object, read once at start: ``load()`` gives it, constructors hand it on.

``model`` defines the settings, ``loading`` reads them, ``pages`` prints them. ``docs/settings.md`` lists all.
"""

from infra.settings.loading import SettingsError, load
from infra.settings.masking import mask
from infra.settings.model import (
    ApiSettings,
    BridgeSettings,
    BrokerSettings,
    CareSettings,
    LogSettings,
    Settings,
    ShadowLimits,
    StoreSettings,
    TelemetrySettings,
    is_loopback,
)
from infra.settings.pages import render_page, render_toml

__all__ = [
    "ApiSettings",
    "BridgeSettings",
    "BrokerSettings",
    "CareSettings",
    "LogSettings",
    "Settings",
    "SettingsError",
    "ShadowLimits",
    "StoreSettings",
    "TelemetrySettings",
    "is_loopback",
    "load",
    "mask",
    "render_page",
    "render_toml",
]
