"""Signed events from seeds: the same seed always gives the same keys, ids and signatures."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import orjson
from coincurve import PrivateKey


class DemoEvent(NamedTuple):
    """A signed event as relays and files have it."""

    id: str
    pubkey: str
    created_at: int
    kind: int
    tags: list[list[str]]
    content: str
    sig: str

    def to_json(self) -> bytes:
        """The event's JSON object."""
        return orjson.dumps(self._asdict())


class Author:
    """A key pair made from a seed."""

    __slots__ = ("_key", "pubkey", "secret_key")

    def __init__(self, seed: str) -> None:
        secret = hashlib.sha256(f"bigbrotr author {seed}".encode()).digest()
        self._key = PrivateKey(secret)
        self.secret_key = secret.hex()
        self.pubkey = self._key.public_key_xonly.format().hex()

    def sign(
        self, kind: int, created_at: int, tags: Sequence[Sequence[str]], content: str
    ) -> DemoEvent:
        """An event of this author (NIP-01); control characters are escaped as `\\u00xx`, the way
        most of the network computes ids."""
        plain_tags = [list(tag) for tag in tags]
        serialized = orjson.dumps([0, self.pubkey, created_at, kind, plain_tags, content])
        digest = hashlib.sha256(serialized).digest()
        signature = self._key.sign_schnorr(digest, digest)
        return DemoEvent(
            digest.hex(), self.pubkey, created_at, kind, plain_tags, content, signature.hex()
        )
