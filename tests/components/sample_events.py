"""Events to archive: made here, odd on purpose, and the corpus of real ones when it is there."""

import hashlib
import json
import re
from pathlib import Path

from coincurve import PrivateKey

from nostr.events import SignedEvent, parse_event
from nostr.json_text import decode_exactly
from standalone.signing import Author, DemoEvent

CORPUS = Path(__file__).parents[3] / "shared" / "corpus"
AUTHOR = Author("archive tests")
_KEY = PrivateKey(hashlib.sha256(b"bigbrotr odd events").digest())


def sample_event(
    number: int = 0, *, kind: int = 1, tags: list[list[str]] | None = None, content: str = ""
) -> SignedEvent:
    """An ordinary event; different numbers give different ids."""
    return signed(AUTHOR.sign(kind, 1_700_000_000 + number, tags or [], content or f"no. {number}"))


def signed(event: DemoEvent) -> SignedEvent:
    """The event as the archive's code passes it on."""
    return SignedEvent(*event)


def odd_event(tags: list[object], content: str = "odd") -> SignedEvent:
    """An event with a right id and signature over tags that NIP-01 does not allow."""
    pubkey = _KEY.public_key_xonly.format().hex()
    fields = [0, pubkey, 1_600_000_000, 1, tags, content]
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False)
    text = re.sub("[\ud800-\udfff]", lambda lone: f"\\u{ord(lone[0]):04x}", text)
    digest = hashlib.sha256(text.encode()).digest()
    signature = _KEY.sign_schnorr(digest, digest).hex()
    return parse_event(
        {
            "id": digest.hex(),
            "pubkey": pubkey,
            "created_at": 1_600_000_000,
            "kind": 1,
            "tags": tags,
            "content": content,
            "sig": signature,
        }
    )


def corpus_events() -> list[SignedEvent]:
    """Every event of the corpus; none where there is no corpus."""
    lines = [
        line
        for path in sorted(CORPUS.glob("events__*.jsonl"))
        for line in path.read_bytes().splitlines()
        if line.strip()
    ]
    return [parse_event(decode_exactly(line)) for line in lines]
