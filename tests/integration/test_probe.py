"""Probing relays good, bad and dead."""

import pickle
import socket
from dataclasses import dataclass

import pytest

from components.relays import StartRelay
from nostr.connection import Dialer
from nostr.keys import public_key
from nostr.probe import WRITE_TEST_KIND, ProbeReport, probe
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
    assert written["kind"] == WRITE_TEST_KIND in range(20_000, 30_000)
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
