"""Signing the few events that we write ourselves."""

import time
from typing import Any

from coincurve import PrivateKey

from nostr.events import AUTH_KIND, event_id


def public_key(secret_key: str) -> str:
    """The public key (64 hex digits) of a secret key (64 hex digits); raises ValueError."""
    return PrivateKey(bytes.fromhex(secret_key)).public_key.format()[1:].hex()


def sign_event(
    secret_key: str, kind: int, tags: list[list[str]], content: str, created_at: int
) -> dict[str, Any]:
    """A signed event as a JSON object; raises ValueError for a secret key that is none."""
    key = PrivateKey(bytes.fromhex(secret_key))
    pubkey = key.public_key.format()[1:].hex()
    id_ = event_id(pubkey, created_at, kind, tags, content)
    return {
        "id": id_,
        "pubkey": pubkey,
        "created_at": created_at,
        "kind": kind,
        "tags": tags,
        "content": content,
        "sig": key.sign_schnorr(bytes.fromhex(id_)).hex(),
    }


def sign_challenge(secret_key: str, relay_url: str, challenge: str) -> dict[str, Any]:
    """The answer to an AUTH challenge (NIP-42, kind 22242)."""
    tags = [["relay", relay_url], ["challenge", challenge]]
    return sign_event(secret_key, AUTH_KIND, tags, "", int(time.time()))
