"""The URL rules: one canonical form for every spelling, a reason for every refusal."""

import pickle

import idna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nostr_tools import Relay, RelayMetadata
from nostr_tools.exceptions import RelayValidationError

from errors import RelayUrlRefused
from nostr.urls import CanonicalRelay, RelayUrl, from_relay, to_relay

ONION = "oxtrdevav64z64yb7x6rjg4ntzqjhedm5b5zjqulugknhzr46ny2qbad.onion"
LONGEST_PATH = 2_048 - len("wss://relay.example.com/")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("wss://relay.example.com", "wss://relay.example.com"),
        ("ws://relay.example.com", "wss://relay.example.com"),
        ("  WSS://Relay.Example.COM/ \n", "wss://relay.example.com"),
        ("wss://relay.example.com//", "wss://relay.example.com"),
        ("wss://relay.example.com.", "wss://relay.example.com"),
        ("wss://relay.example.com:443", "wss://relay.example.com"),
        ("wss://relay.example.com:", "wss://relay.example.com"),
        ("ws://relay.example.com:80", "wss://relay.example.com"),
        ("ws://relay.example.com:443", "wss://relay.example.com"),
        ("wss://relay.example.com:80", "wss://relay.example.com:80"),
        ("wss://relay.example.com:0443", "wss://relay.example.com"),
        ("wss://relay.example.com:7777/", "wss://relay.example.com:7777"),
        ("wss://relay.example.com/Inbox", "wss://relay.example.com/Inbox"),
        ("wss://relay.example.com/inbox/", "wss://relay.example.com/inbox/"),
        ("wss://relay.example.com/a.b/c", "wss://relay.example.com/a.b/c"),
        ("wss://relay.example.com/a/./b/../c", "wss://relay.example.com/a/c"),
        ("wss://relay.example.com/a/..", "wss://relay.example.com"),
        ("wss://relay.example.com/%7euser/%e4", "wss://relay.example.com/~user/%E4"),
        ("wss://relay.example.com/ü", "wss://relay.example.com/%C3%BC"),
        ("wss://relay.example.com/x#top", "wss://relay.example.com/x"),
        ("wss://relay.example.com?", "wss://relay.example.com"),
        ("wss://relay.example.com?a=%31", "wss://relay.example.com/?a=1"),
        ("wss://relay.example.com/p?b=2&a=1", "wss://relay.example.com/p?b=2&a=1"),
        ("wss://bücher.example", "wss://xn--bcher-kva.example"),
        ("wss://BÜCHER。example", "wss://xn--bcher-kva.example"),
        ("wss://my_relay.example.com", "wss://my_relay.example.com"),
        ("wss://57.128.200.193", "wss://57.128.200.193"),
        ("wss://[2606:4700:0:0::1111]:7777/", "wss://[2606:4700::1111]:7777"),
        ("wss://[::ffff:1.1.1.1]", "wss://1.1.1.1"),
        (f"ws://{ONION}/", f"wss://{ONION}"),
        (f"ws://relay.{ONION.upper()}:80/x", f"wss://relay.{ONION}/x"),
        ("wss://relay.example.com/" + "x" * LONGEST_PATH,) * 2,
    ],
)
def test_every_spelling_has_one_form(text: str, canonical: str):
    assert RelayUrl.parse(text).url == canonical


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not-websocket"),
        ("relay.example.com", "not-websocket"),
        ("https://relay.example.com", "not-websocket"),
        ("wss:relay.example.com", "not-websocket"),
        ("wss:/relay.example.com", "not-websocket"),
        ("wss://", "bad-host"),
        ("wss:///path", "bad-host"),
        ("wss://relay", "bad-host"),
        ("wss://relay..com", "bad-host"),
        ("wss://-relay.com", "bad-host"),
        ("wss://relay-.com", "bad-host"),
        ("wss://rel%61y.com", "bad-host"),
        ("wss://" + "a" * 64 + ".com", "bad-host"),
        ("wss://" + "a." * 130 + "com", "bad-host"),
        ("wss://1.2.3", "bad-host"),
        ("wss://1.2.3.4.5", "bad-host"),
        ("wss://127.1", "bad-host"),
        ("wss://0x7f000001", "bad-host"),
        ("wss://2130706433", "bad-host"),
        ("wss://0177.0.0.1", "bad-host"),
        ("wss://[::1", "bad-host"),
        ("wss://[1.2.3.4]", "bad-host"),
        ("wss://☠️.-x.com", "bad-host"),
        ("wss://relay.example.com:0", "bad-port"),
        ("wss://relay.example.com:65536", "bad-port"),
        ("wss://relay.example.com:99999999999999999999", "bad-port"),
        ("wss://relay.example.com:7x", "bad-host"),
        ("wss://user:secret@relay.example.com", "userinfo"),
        ("wss://@relay.example.com", "userinfo"),
        ("wss://relay.example.com/a b", "white-space"),
        ("wss://relay.example.com/%20", "white-space"),
        ("wss://relay.example.com,wss://b.example.com", "comma"),
        ("wss://relay.example.com/\0", "bad-character"),
        ("wss://relay.example.com/%00", "bad-character"),
        ("wss://relay.exam\u200bple.com", "bad-character"),
        ("wss://relay.example.com/\ud800", "bad-character"),
        ('"wss://relay.example.com"', "bad-character"),
        ("wss://relay.example.com\\x", "bad-character"),
        ("wss://wss://relay.example.com", "second-scheme"),
        ("wss://relay.example.com/wss%3A%2F%2Fb.example.com", "second-scheme"),
        ("wss://relay.example.com/%zz", "bad-percent-encoding"),
        ("wss://relay.example.com/%", "bad-percent-encoding"),
        ("wss://filter.example.com/npub1" + "q" * 58, "names-a-person"),
        ("wss://relay.example.com/[object%20Object]", "not-a-string"),
        ("wss://relay.example.com/" + "x" * (LONGEST_PATH + 1), "too-long"),
        ("wss://relay.example.com/" + "ü" * 1_000, "too-long"),
        ("wss://" + "a" * 56 + ".onion", "onion-not-v3"),
        (f"wss://{ONION}".replace("oxtr", "oxts"), "onion-not-v3"),
        ("wss://expyuzz4wqqyqhjn.onion", "onion-not-v3"),
        ("wss://onion", "onion-not-v3"),
        ("wss://relay.i2p", "unsupported-network"),
        ("wss://localhost:7777", "private-address"),
        ("wss://umbrel.local", "private-address"),
        ("wss://relay.home.arpa", "private-address"),
        ("wss://192.168.1.2", "private-address"),
        ("wss://100.64.0.1", "private-address"),
        ("wss://169.254.169.254", "private-address"),
        ("wss://１２７.0.0.1", "private-address"),
        ("wss://[::1]", "private-address"),
        ("wss://[::ffff:10.0.0.1]", "private-address"),
        ("wss://[fd00::1]", "private-address"),
        ("wss://[fe80::1%25eth0]", "private-address"),
    ],
)
def test_what_cannot_be_a_relay_is_refused_with_a_reason(text: str, reason: str):
    with pytest.raises(RelayUrlRefused) as refused:
        RelayUrl.parse(text)
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("ws://127.0.0.1:7777", "wss://127.0.0.1:7777"),
        ("ws://relay:7777", "wss://relay:7777"),
        ("ws://localhost/", "wss://localhost"),
        ("ws://[::1]:7", "wss://[::1]:7"),
    ],
)
def test_private_addresses_pass_where_they_are_allowed(text: str, canonical: str):
    assert RelayUrl.parse(text, allow_private=True).url == canonical


def test_the_parts_of_a_url():
    url = RelayUrl.parse("ws://[2606:4700::1111]:7777/a/?q=1")
    assert (url.host, url.port, url.path) == ("2606:4700::1111", 7777, "/a/?q=1")
    assert url.websocket("ws") == "ws://[2606:4700::1111]:7777/a/?q=1"
    assert url.http("https") == "https://[2606:4700::1111]:7777/a/?q=1"
    assert str(url) == url.url == "wss://[2606:4700::1111]:7777/a/?q=1"
    assert RelayUrl.parse("wss://relay.example.com").port is None


@pytest.mark.parametrize(
    ("text", "network"),
    [
        (f"wss://{ONION}", "tor"),
        (f"wss://{ONION}/path", "tor"),
        (f"wss://a.{ONION}:8080/path", "tor"),
        (f"wss://relay.example.com/{ONION}", "clearnet"),
        (f"wss://{ONION}.example.com", "clearnet"),
    ],
)
def test_the_network_is_that_of_the_host(text: str, network: str):
    url = RelayUrl.parse(text)
    assert url.network == network
    assert to_relay(url).network == network


LABEL = st.from_regex(r"[a-z0-9]([a-z0-9_-]{0,10}[a-z0-9])?", fullmatch=True)
HOST = st.builds(lambda labels: ".".join([*labels, "com"]), st.lists(LABEL, min_size=1, max_size=4))
SEGMENT = st.text(st.sampled_from("abzAZ09-._~!$&'()*+;=:@äß€"), max_size=6)
PATHS = st.lists(SEGMENT, max_size=4).map(lambda parts: "".join("/" + part for part in parts))
PATH = PATHS.filter(lambda path: "://" not in path)  # that would be a second URL


@given(
    host=HOST,
    port=st.none() | st.integers(1, 65_535),
    path=PATH,
    upper=st.booleans(),
    slash=st.booleans(),
    fragment=st.booleans(),
    space=st.sampled_from(["", " ", "\n"]),
)
def test_the_form_is_stable_over_spellings(
    host: str,
    port: int | None,
    path: str,
    upper: bool,
    slash: bool,
    fragment: bool,
    space: str,
):
    shown_port = f":{port}" if port else ""
    plain = RelayUrl.parse(f"wss://{host}{shown_port}{path}")
    spelled = f"{'WSS' if upper else 'wss'}://{host.upper() if upper else host}{shown_port}{path}"
    spelled += "/" if slash and not path else ""
    spelled += "#part" if fragment else ""
    assert RelayUrl.parse(space + spelled + space) == plain
    assert RelayUrl.parse(plain.url) == plain
    assert RelayUrl.parse(plain.websocket("wss")) == plain
    assert from_relay(to_relay(plain)) == plain


@st.composite
def spelled(draw: st.DrawFn, host: str, port: int | None, path: str) -> str:
    """One of the many spellings of a URL that RFC 3986 holds to be equal, or our rules do."""

    def cased(text: str) -> str:
        ups = draw(st.lists(st.booleans(), min_size=len(text), max_size=len(text)))
        return "".join(c.upper() if up else c for c, up in zip(text, ups, strict=True))

    def escaped(character: str) -> str:
        if not (character.isascii() and (character.isalnum() or character in "-._~")):
            return character
        code = f"{ord(character):02x}"
        return draw(st.sampled_from([character, f"%{code}", f"%{code.upper()}"]))

    scheme = draw(st.sampled_from(["ws", "wss"]))
    defaults = ["", ":", ":443", ":0443", *([":80"] if scheme == "ws" else [])]
    shown = draw(st.sampled_from(defaults)) if port is None else f":{port}"
    segments = ["".join(map(escaped, segment)) for segment in path.split("/")]
    detour = draw(st.sampled_from(["/", "/./", "/x/../", "/%2e/", "/y/%2E%2e/"])) if path else "/"
    spelling = detour.join([segments[0], "/".join(segments[1:])]) if path else ""
    if spelling.startswith("//") and shown == ":":
        shown = ""  # host:// looks like a second scheme, and is refused as one
    return "".join(
        (
            draw(st.sampled_from(["", " ", "\t"])),
            cased(scheme),
            "://",
            cased(host),
            draw(st.sampled_from(["", "."])),
            shown,
            spelling or draw(st.sampled_from(["", "/"])),
            draw(st.sampled_from(["", "#", "#part"])),
            draw(st.sampled_from(["", "\n"])),
        )
    )


@given(st.data(), HOST, st.none() | st.integers(1, 65_535).filter(lambda p: p != 80), PATH)
def test_every_spelling_of_a_url_is_the_same_relay(
    data: st.DataObject, host: str, port: int | None, path: str
):
    plain = RelayUrl.parse(f"wss://{host}{f':{port}' if port else ''}{path}")
    text = data.draw(spelled(host, port, path))
    assert RelayUrl.parse(text) == plain
    assert RelayUrl.parse(text).network == plain.network


@given(st.sampled_from(["bücher", "日本語", "пример", "straße", "ñandú"]), st.booleans())
def test_a_name_and_its_punycode_are_one_relay(label: str, upper: bool):
    name = f"{label.upper() if upper and label != 'straße' else label}.example"
    punycode = idna.encode(name.lower(), uts46=True).decode()
    assert RelayUrl.parse(f"wss://{name}").url == f"wss://{punycode}"
    assert RelayUrl.parse(f"wss://{punycode.upper()}").url == f"wss://{punycode}"


@given(st.text(max_size=80) | st.text(max_size=80).map("wss://a.com/{}".format))
def test_any_text_is_parsed_to_a_fixed_point_or_refused(text: str):
    try:
        url = RelayUrl.parse(text)
    except RelayUrlRefused:
        return
    assert RelayUrl.parse(url.url) == url
    assert url.url.isascii()
    assert len(url.url) <= 2_048


def test_a_relay_of_nostr_tools_keeps_our_url():
    urls = ["wss://relay.example.com/a.b/c", f"wss://{ONION}/path", "wss://127.0.0.1:7777"]
    for text in urls:
        url = RelayUrl.parse(text, allow_private=True)
        relay = to_relay(url)
        assert isinstance(relay, Relay)
        assert relay.is_valid
        assert relay.url == url.url
        assert from_relay(relay) == url
        assert RelayMetadata(relay=relay, generated_at=1).is_valid
        assert pickle.loads(pickle.dumps(relay)) == relay
        assert CanonicalRelay.from_dict(relay.to_dict()) == relay


def test_a_relay_with_a_wrong_network_or_url_is_refused():
    with pytest.raises(RelayValidationError):
        CanonicalRelay(f"wss://{ONION}/path", network="clearnet")
    with pytest.raises(RelayValidationError):
        CanonicalRelay("https://relay.example.com")
