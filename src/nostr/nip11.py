"""NIP-11: the document in which a relay describes itself. Nothing in it is taken for true."""

from dataclasses import dataclass
from math import isfinite
from typing import Any

from nostr_tools.core.relay_metadata import RelayMetadata

from errors import ConnectFailed, MessageMalformed
from nostr.connection import Dialer
from nostr.json_text import decode_json
from nostr.transport import failure_kind
from nostr.urls import RelayUrl

DEFAULT_MAX_BYTES = 256 * 1024

_STRING_FIELDS = (
    *("name", "description", "banner", "icon", "pubkey", "contact"),
    *("software", "version", "privacy_policy", "terms_of_service"),
)
_KNOWN_FIELDS = frozenset(
    {
        *_STRING_FIELDS,
        *("supported_nips", "limitation", "self", "payments_url", "fees", "retention"),
        *("relay_countries", "language_tags", "tags", "posting_policy"),
    }
)
_MAX_DEPTH = 32
_NOT_IN_JSONB = {0: "\N{REPLACEMENT CHARACTER}"} | dict.fromkeys(
    range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}"
)


@dataclass(frozen=True, slots=True)
class Nip11Result:
    """What asking for the document brought. `outcome` is "ok", or why there is none: a kind of
    ConnectFailed, "http-status", "too-large", "not-json" or "not-nip11"."""

    nip11: RelayMetadata.Nip11 | None
    outcome: str
    detail: str = ""


async def fetch_nip11(
    url: RelayUrl,
    dialer: Dialer,
    *,
    timeout: float,
    max_bytes: int = DEFAULT_MAX_BYTES,
    prefer_scheme: str | None = None,
) -> Nip11Result:
    """Asks a relay for its document, whatever content type it calls it. `timeout` (seconds)
    bounds everything; `prefer_scheme` is the scheme, "wss" or "ws", that worked before."""

    async def attempt(scheme: str) -> bytes:
        return await _download(url, dialer, "https" if scheme == "wss" else "http", max_bytes)

    try:
        raw = await dialer.try_schemes(url, attempt, timeout, prefer_scheme)
    except ConnectFailed as failed:
        return Nip11Result(None, failed.kind, failed.detail)
    try:
        document = decode_json(raw.removeprefix(b"\xef\xbb\xbf"))
    except MessageMalformed as error:
        return Nip11Result(None, "not-json", str(error))
    try:
        return Nip11Result(normalize_nip11(document), "ok")
    except MessageMalformed as error:
        return Nip11Result(None, "not-nip11", str(error))


def normalize_nip11(doc: object) -> RelayMetadata.Nip11:
    """A document as nostr-tools and jsonb can hold it. Fields of the wrong type and fields that
    the type does not know are kept in `extra_fields`; NUL and lone surrogates are replaced.

    Raises MessageMalformed where it is no object, has no field of NIP-11 or is nested too deep.
    """
    if type(doc) is not dict or not _KNOWN_FIELDS & doc.keys():
        raise MessageMalformed("not an object with fields of NIP-11")
    extra: dict[str, Any] = _plain(doc, _MAX_DEPTH)
    fields: dict[str, Any] = {
        name: extra.pop(name) for name in _STRING_FIELDS if type(extra.get(name)) is str
    }
    if type(extra.get("limitation")) is dict:
        fields["limitation"] = extra.pop("limitation")
    nips = extra.get("supported_nips")
    if type(nips) is list:
        fields["supported_nips"] = [nip for nip in nips if type(nip) in (int, str)]
        if len(fields["supported_nips"]) == len(nips):
            del extra["supported_nips"]
    unknown = {
        name: value
        for name, value in extra.items()
        if value is not None or name not in _KNOWN_FIELDS
    }
    return RelayMetadata.Nip11(**fields, extra_fields=unknown)


async def _download(url: RelayUrl, dialer: Dialer, scheme: str, max_bytes: int) -> bytes:
    async with dialer.transport(url) as transport:
        try:
            async with transport.session.get(
                url.http(scheme), headers={"Accept": "application/nostr+json"}
            ) as response:
                if response.status != 200:
                    raise ConnectFailed("http-status", url.url, f"HTTP {response.status}")
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > max_bytes:
                        raise ConnectFailed("too-large", url.url, f"more than {max_bytes} bytes")
                return bytes(body)
        except (ConnectFailed, TimeoutError):
            raise
        except Exception as error:
            kind, detail = failure_kind(error)
            raise ConnectFailed(kind, url.url, detail) from error


def _plain(value: Any, depth: int) -> Any:
    if depth == 0:
        raise MessageMalformed("nested too deep")
    match value:
        case str():
            return value.translate(_NOT_IN_JSONB)
        case dict():
            return {_plain(k, depth): _plain(v, depth - 1) for k, v in value.items()}
        case list():
            return [_plain(item, depth - 1) for item in value]
        case float() if not isfinite(value):
            return str(getattr(value, "text", value))
        case float():
            return float(value)
        case _:
            return value
