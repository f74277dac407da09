"""SCRAM-SHA-256 verifiers."""

from base64 import b64decode

import pytest

from role_passwords import is_verifier_of, scram_verifier

# The exchange of RFC 7677, section 3: user "user", password "pencil".
SALT = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
SERVER_KEY = "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="


def test_server_key_of_the_rfc() -> None:
    verifier = scram_verifier("pencil", SALT, 4096)
    assert verifier.startswith("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$")
    assert verifier.endswith(f":{SERVER_KEY}")


@pytest.mark.parametrize("password", ["pencil", "p ä$s:'\"\\", "\u212b", "a\u00adb", "bell\a", " "])
def test_recognizes_its_password_only(password: str) -> None:
    verifier = scram_verifier(password, b"0123456789abcdef")
    assert is_verifier_of(verifier, password)
    assert not is_verifier_of(verifier, password + "x")


@pytest.mark.parametrize("verifier", ["", "md5" + "a" * 32, "SCRAM-SHA-256$4096:x", "pencil"])
def test_other_verifiers_are_nobodys(verifier: str) -> None:
    assert not is_verifier_of(verifier, "pencil")


def test_passwords_that_look_alike_are_one() -> None:
    """RFC 4013: the Angstrom sign is Å, a no-break space is a space, soft hyphens vanish."""
    for one, other in (("\u212b", "\u00c5"), ("a\u00a0b", "a b"), ("a\u00adb", "ab")):
        assert is_verifier_of(scram_verifier(one, SALT), other)
