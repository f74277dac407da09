"""Probing relays good, bad and dead."""

import pickle
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
import trustme

from components.relays import StartRelay
from nostr import write_check
from nostr.connection import Dialer
from nostr.keys import public_key
from nostr.pow import Miner, zero_bits
from nostr.probe import ProbeReport, probe
from nostr.urls import RelayUrl
from scripted_relay import ScriptedRelay, make_events

NOW = 1_760_000_000


@dataclass(frozen=True)
class Keys:
    secret_key: str = "3" * 64


async def probe_scripted(
    relay: ScriptedRelay, keypair: Keys | None = Keys(), timeout: float = 2.0
) -> ProbeReport:
    return await probe(relay.url, relay.dialer(), timeout=timeout, keypair=keypair, now=NOW)


async def test_a_good_relay_is_open_readable_and_writable():
    async with ScriptedRelay(make_events(3), nip11={"name": "good"}) as relay:
        report = await probe_scripted(relay)
        (written,) = relay.published
        (flt,) = relay.requests
    nip66 = report.metadata.nip66
    assert (nip66.openable, nip66.readable, nip66.writable) == (True, True, True)
    assert min(nip66.rtt_open, nip66.rtt_read, nip66.rtt_write) >= 0
    assert (report.outcome, report.detail) == ("ok", "")
    assert report.metadata.nip11.name == "good"
    assert report.metadata.generated_at == NOW
    assert report.metadata.relay.url == relay.url.url
    assert written["kind"] == write_check.KIND in range(20_000, 30_000)
    assert written["pubkey"] == public_key(Keys().secret_key)
    assert "BigBrotr" in written["content"]
    assert flt["limit"] == 1


async def test_a_report_can_be_sent_between_processes():
    async with ScriptedRelay(nip11={"name": "good"}) as relay:
        report = await probe_scripted(relay)
    copy = pickle.loads(pickle.dumps(report))
    assert copy == report
    assert copy.metadata.is_valid


async def test_without_a_keypair_nothing_is_written():
    async with ScriptedRelay() as relay:
        report = await probe_scripted(relay, keypair=None)
        assert relay.published == []
    assert report.metadata.nip66.readable
    assert not report.metadata.nip66.writable
    assert report.outcome == "ok"


async def test_a_refused_write_is_recorded():
    async with ScriptedRelay(publish="blocked: pay first") as relay:
        report = await probe_scripted(relay)
    assert report.metadata.nip66.readable
    assert not report.metadata.nip66.writable
    assert (report.outcome, report.detail) == ("ok", "write: blocked: pay first")


async def test_a_silent_write_is_no_write():
    async with ScriptedRelay(publish="silent") as relay:
        report = await probe_scripted(relay, timeout=0.3)
    assert not report.metadata.nip66.writable
    assert report.detail == "write: no answer"


async def test_signing_in_makes_a_relay_readable():
    async with ScriptedRelay(auth=True) as relay:
        with_key = await probe_scripted(relay)
        without = await probe_scripted(relay, keypair=None)
    assert with_key.metadata.nip66.readable
    assert with_key.metadata.nip66.writable
    assert (without.outcome, without.metadata.nip66.readable) == ("auth-required", False)


@pytest.mark.parametrize(
    ("closed", "outcome"),
    [
        ("restricted: members only", "restricted"),
        ("restricted: pay at example.com", "payment-required"),
        ("go away", "closed"),
    ],
)
async def test_a_refused_read_is_named(closed: str, outcome: str):
    async with ScriptedRelay(closed=closed) as relay:
        report = await probe_scripted(relay, keypair=None)
    assert report.metadata.nip66.openable
    assert not report.metadata.nip66.readable
    assert report.metadata.nip66.rtt_read is None
    assert (report.outcome, report.detail) == (outcome, f"read: {closed}")


async def test_an_event_without_eose_is_an_answer_and_silence_is_none():
    async with ScriptedRelay(make_events(1), eose="never") as relay:
        answered = await probe_scripted(relay, keypair=None, timeout=0.3)
        relay.events = []
        silent = await probe_scripted(relay, keypair=None, timeout=0.3)
    assert answered.metadata.nip66.readable
    assert answered.metadata.nip66.rtt_read < 300
    assert (silent.outcome, silent.metadata.nip66.readable) == ("timeout", False)


async def test_a_relay_that_drops_the_reader():
    async with ScriptedRelay(oversized=1_000_000) as relay:
        report = await probe(
            relay.url, relay.dialer(max_message_bytes=1_000), timeout=1, keypair=None, now=NOW
        )
    assert report.outcome == "disconnected"
    assert report.metadata.nip66.openable


async def test_a_dead_relay_is_a_result_not_an_error():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = RelayUrl.parse(f"ws://127.0.0.1:{bound.getsockname()[1]}", allow_private=True)
        dialer = Dialer(None, allow_private=True, connect_timeout=1)
        report = await probe(url, dialer, timeout=1, keypair=Keys(), now=NOW)
    assert report.outcome == "refused"
    assert not report.metadata.nip66.openable
    assert report.metadata.nip66.rtt_open is None


async def test_a_relay_that_refuses_the_upgrade_still_has_its_document():
    async with ScriptedRelay(upgrade=False, nip11={"name": "closed club"}) as relay:
        report = await probe_scripted(relay)
    assert (report.outcome, report.detail) == ("http-status", "HTTP 403")
    assert report.metadata.nip11.name == "closed club"


async def test_real_relays(local_relay: StartRelay, nostr_relay: StartRelay):
    dialer = Dialer(None, allow_private=True, connect_timeout=3)
    for running in (await local_relay([]), await nostr_relay([])):
        url = RelayUrl.parse(running.url, allow_private=True)
        report = await probe(url, dialer, timeout=3, keypair=Keys(), now=NOW)
        nip66 = report.metadata.nip66
        assert (nip66.openable, nip66.readable) == (True, True)


@pytest.fixture
def miner() -> Iterator[Miner]:
    with ThreadPoolExecutor(1) as thread:
        yield Miner(10, thread)


async def test_a_proof_of_work_within_the_bound_is_done(local_relay: StartRelay, miner: Miner):
    running = await local_relay([], customize=lambda builder: builder.min_pow(10))
    url = RelayUrl.parse(running.url, allow_private=True)
    dialer = Dialer(None, allow_private=True, connect_timeout=3)
    without = await probe(url, dialer, timeout=3, keypair=Keys(), now=int(time.time()))
    report = await probe(url, dialer, timeout=3, keypair=Keys(), now=int(time.time()), miner=miner)
    assert not without.metadata.nip66.writable
    assert without.facts.write_outcome == "pow"
    assert report.metadata.nip66.writable, report.detail
    assert (report.facts.write_outcome, report.facts.pow_difficulty) == ("ok", 10)


async def test_a_proof_of_work_above_the_bound_is_not(local_relay: StartRelay, miner: Miner):
    running = await local_relay([], customize=lambda builder: builder.min_pow(11))
    url = RelayUrl.parse(running.url, allow_private=True)
    dialer = Dialer(None, allow_private=True, connect_timeout=3)
    report = await probe(url, dialer, timeout=3, keypair=Keys(), now=int(time.time()), miner=miner)
    assert not report.metadata.nip66.writable
    assert (report.facts.write_outcome, report.facts.pow_difficulty) == ("pow", 11)


async def test_a_difficulty_that_only_the_document_names_is_used(miner: Miner):
    nip11 = {"name": "dear", "limitation": {"min_pow_difficulty": 8}}
    async with ScriptedRelay(publish="pow: too little", nip11=nip11) as relay:
        report = await probe(
            relay.url, relay.dialer(), timeout=2, keypair=Keys(), now=NOW, miner=miner
        )
        first, second = relay.published
    assert report.facts.pow_difficulty == 8
    assert first["tags"] == second["tags"][:1]
    assert zero_bits(second["id"]) >= 8


@pytest.mark.parametrize("claim", [0, -1, 257, 10**30, "8", True, None])
async def test_a_difficulty_that_cannot_be_is_none(miner: Miner, claim: object):
    nip11 = {"name": "odd", "limitation": {"min_pow_difficulty": claim}}
    async with ScriptedRelay(publish="pow: too little", nip11=nip11) as relay:
        report = await probe(
            relay.url, relay.dialer(), timeout=2, keypair=Keys(), now=NOW, miner=miner
        )
        assert len(relay.published) == 1
    assert (report.facts.write_outcome, report.facts.pow_difficulty) == ("pow", None)


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        ({}, {"write_outcome": "ok", "auth_required": False, "payment_required": False}),
        ({"auth": True}, {"write_outcome": "ok", "auth_required": True}),
        ({"auth": "restricted"}, {"write_outcome": "restricted", "auth_required": True}),
        (
            {"publish": "blocked: please pay"},
            {"write_outcome": "payment-required", "payment_required": True},
        ),
        ({"publish": "restricted: no"}, {"write_outcome": "restricted", "payment_required": None}),
        ({"publish": "nonsense: no"}, {"write_outcome": "other-refusal"}),
        ({"publish": "silent"}, {"write_outcome": "timeout"}),
        ({"closed": "go away"}, {"auth_required": None, "write_outcome": "ok"}),
        ({"nip11": 500}, {"document_outcome": "http-status"}),
        ({"nip11": {"name": "a"}}, {"document_outcome": "ok"}),
    ],
)
async def test_what_a_relay_asks_of_us_is_recorded(
    settings: dict[str, object], facts: dict[str, object]
):
    async with ScriptedRelay(**settings) as relay:
        found = (await probe_scripted(relay, timeout=0.5)).facts
    assert {name: getattr(found, name) for name in facts} == facts
    assert (found.scheme, found.link.ipv4, found.link.ipv6) == ("ws", True, False)
    assert found.link.tls_expires_at is None


async def test_the_certificate_of_an_open_relay_is_recorded():
    expiry = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
    authority = trustme.CA(organization_name="Example Trust\x07")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", not_after=expiry).configure_cert(server)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    async with ScriptedRelay(tls=server) as relay:
        dialer = relay.dialer(trust=trust)
        report = await probe(relay.url, dialer, timeout=2, keypair=None, now=NOW)
    facts = report.facts
    assert (facts.scheme, facts.link.tls_version) == ("wss", "TLSv1.3")
    assert facts.link.tls_expires_at == int(expiry.timestamp())
    assert facts.link.tls_issuer == "Example Trust"


class Certificate(NamedTuple):
    """A server's certificate, and what a client trusts."""

    server: ssl.SSLContext
    trust: ssl.SSLContext


def certificate(fault: str) -> Certificate:
    authority, server = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    match fault:
        case "tls-expired":
            issued = authority.issue_cert(
                "127.0.0.1", not_before=yesterday - timedelta(days=9), not_after=yesterday
            )
            issued.configure_cert(server)
        case "tls-wrong-host":
            authority.issue_cert("relay.example.com").configure_cert(server)
        case "tls-self-signed":
            # What a server hands out that is its own authority.
            with authority.cert_pem.tempfile() as own, authority.private_key_pem.tempfile() as key:
                server.load_cert_chain(own, key)
            trust = ssl.create_default_context()
        case "tls-certificate":
            authority.issue_cert("127.0.0.1").configure_cert(server)
            trust = ssl.create_default_context()
    return Certificate(server, trust)


@pytest.mark.parametrize(
    "fault", ["tls-expired", "tls-wrong-host", "tls-self-signed", "tls-certificate"]
)
async def test_a_bad_certificate_is_named_and_never_passed_by(fault: str):
    server, trust = certificate(fault)
    async with ScriptedRelay(make_events(1), tls=server, nip11={"name": "a"}) as relay:
        dialer = relay.dialer(trust=trust)
        report = await probe(relay.url, dialer, timeout=2, keypair=Keys(), now=NOW)
        assert (relay.connected, relay.requests) == (0, [])
    assert report.outcome == fault
    assert not report.metadata.nip66.openable
    assert report.metadata.nip11 is None, "nor is its document asked for in the clear"
