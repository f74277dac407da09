"""Version 3 onion names (Tor's rend-spec-v3, section 6)."""

import base64
import re
from hashlib import sha3_256

_NAME = re.compile("[a-z2-7]{56}").fullmatch


def is_onion_v3(label: str) -> bool:
    """Whether the label before `.onion` (lower case) is a version 3 address with a right
    checksum; any other can never be reached."""
    if not _NAME(label):
        return False
    decoded = base64.b32decode(label.upper())
    key, checksum, version = decoded[:32], decoded[32:34], decoded[34:]
    digest = sha3_256(b".onion checksum" + key + version).digest()
    return version == b"\x03" and digest[:2] == checksum
