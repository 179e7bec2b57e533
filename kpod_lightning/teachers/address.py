"""Addresses of endpoints, as they may be printed."""

from typing import Any
from urllib.parse import urlsplit


def shown_url(url: Any) -> str:
    """A URL as it may be printed: without user, password and what its query holds, which may be a key."""
    parts = urlsplit(str(url))
    host = parts.netloc.rpartition("@")
    return parts._replace(
        netloc=f"***@{host[2]}" if host[1] else host[2], query="***" if parts.query else "", fragment=""
    ).geturl()
