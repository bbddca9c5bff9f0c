"""Credentials out of what people get to see."""

import re

HIDDEN = "***"
_USER_INFO = re.compile(r"://[^/@]*@")
_SECRET_OPTION = re.compile(r"([?&][^=&]*(?:password|token|mechanismproperties)[^=&]*)=[^&]*", re.IGNORECASE)


def mask(text: str) -> str:
    """Hide what a URL gives away: user and password, and options that carry a secret."""
    text = _USER_INFO.sub(f"://{HIDDEN}@", text)
    return _SECRET_OPTION.sub(rf"\1={HIDDEN}", text)
