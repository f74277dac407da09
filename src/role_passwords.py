"""SCRAM-SHA-256 password verifiers as PostgreSQL stores them (RFC 5802, RFC 7677).

The verifier is computed here, so that the password itself is in no statement, and thus in no
log of the server.
"""

import hmac
import re
import stringprep
import unicodedata
from base64 import b64decode, b64encode
from hashlib import pbkdf2_hmac, sha256

_ITERATIONS = 4_096
_VERIFIER = re.compile(r"SCRAM-SHA-256\$(\d+):([^$]+)\$[^:]+:[^:]+")


def scram_verifier(password: str, salt: bytes, iterations: int = _ITERATIONS) -> str:
    """What pg_authid holds for a role with this password."""
    salted = pbkdf2_hmac("sha256", _saslprep(password).encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    stored_key = sha256(client_key).digest()
    return "SCRAM-SHA-256${}:{}${}:{}".format(
        iterations, *(b64encode(part).decode() for part in (salt, stored_key, server_key))
    )


def is_verifier_of(verifier: str, password: str) -> bool:
    """Whether a stored verifier belongs to the password."""
    parts = _VERIFIER.fullmatch(verifier)
    if parts is None:
        return False
    return hmac.compare_digest(
        scram_verifier(password, b64decode(parts[2]), int(parts[1])).encode(), verifier.encode()
    )


def _saslprep(password: str) -> str:
    """RFC 4013 as PostgreSQL has it: a password with forbidden characters is used as it is."""
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in password
        if not stringprep.in_table_b1(character)
    )
    normal = unicodedata.normalize("NFKC", mapped)
    forbidden = (
        stringprep.in_table_a1,
        stringprep.in_table_c12,
        stringprep.in_table_c21_c22,
        stringprep.in_table_c3,
        stringprep.in_table_c4,
        stringprep.in_table_c5,
        stringprep.in_table_c6,
        stringprep.in_table_c7,
        stringprep.in_table_c8,
        stringprep.in_table_c9,
    )
    if not normal or any(test(character) for test in forbidden for character in normal):
        return password
    return normal
