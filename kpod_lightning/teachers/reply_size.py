"""How much is read of a server's reply, so that one that never ends cannot fill the memory."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

from kpod_lightning.store.reading import LARGEST

MOST = 16 * 2**20
"""Most bytes of a reply, unpacked. The longest of today's models, log-probabilities included, are below it."""


class TooLong(Exception):
    """A reply was longer than what is read of one. Some versions of the client raise an error of their own from it."""


def is_too_long(error: BaseException | None) -> bool:
    """Whether an error is, or comes from, a reply that was too long."""
    while error is not None and not isinstance(error, TooLong):
        error = error.__cause__ or error.__context__
    return error is not None


class _Left:
    """Bytes that may still be read of a reply. A file of results, which holds thousands of replies, may be larger."""

    def __init__(self, response: Any) -> None:
        self.left = LARGEST if response.request.url.path.endswith("/content") else MOST

    def count(self, part: bytes) -> bytes:
        self.left -= len(part)
        if self.left < 0:
            raise TooLong
        return part


def limit(response: Any) -> None:
    """Let no more than ``MOST`` bytes of a reply be read; a hook of the client, called before it reads.

    It counts what ``iter_bytes`` gives, by which the client reads whole replies and which unpacks compressed ones.
    """
    left, parts = _Left(response), response.iter_bytes

    def counted(*sizes: Any, **named: Any) -> Iterator[bytes]:
        return (left.count(part) for part in parts(*sizes, **named))

    response.iter_bytes = counted


async def limit_later(response: Any) -> None:
    """As ``limit``, for a client that waits for several replies at a time."""
    left, parts = _Left(response), response.aiter_bytes

    async def counted(*sizes: Any, **named: Any) -> AsyncIterator[bytes]:
        async for part in parts(*sizes, **named):
            yield left.count(part)

    response.aiter_bytes = counted
