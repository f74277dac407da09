"""Round-trip times as they are kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nostr_tools import RelayMetadata

from monitoring.facts import kept_metadata, kept_rtt
from nostr.probe import ProbeReport
from nostr.urls import RelayUrl, to_relay


@given(st.integers(0, 10_000_000))
def test_a_time_is_kept_to_within_5_percent(milliseconds: int):
    kept = kept_rtt(milliseconds)
    assert abs(kept - milliseconds) <= 0.05 * milliseconds + 0.5
    assert kept_rtt(kept) == kept


@given(st.integers(0, 10_000_000), st.integers(0, 10_000_000))
def test_order_is_kept(one: int, other: int):
    assert (kept_rtt(one) <= kept_rtt(other)) or one > other


@pytest.mark.parametrize(
    ("measured", "kept"),
    [(0, 0), (9, 9), (19, 19), (70, 68), (100, 100), (104, 100), (106, 110), (987, 1000)],
)
def test_some_times(measured: int, kept: int):
    assert kept_rtt(measured) == kept


def test_few_times_are_left_of_many():
    assert len({kept_rtt(milliseconds) for milliseconds in range(60_000)}) < 110


def test_only_times_change():
    relay = to_relay(RelayUrl.parse("wss://a.example"))
    nip11 = RelayMetadata.Nip11(name="a")
    result = RelayMetadata.Nip66(True, True, False, 1_234, 987, None)
    report = ProbeReport(RelayMetadata(relay, 5, nip11, result), "ok", "")
    kept = kept_metadata(report)
    assert (kept.relay, kept.generated_at, kept.nip11) == (relay, 5, nip11)
    assert kept.nip66 == RelayMetadata.Nip66(True, True, False, 1_212, 1_000, None)
    assert report.metadata.nip66.rtt_open == 1_234


@pytest.mark.parametrize("result", [None, RelayMetadata.Nip66()])
def test_what_has_no_times_is_kept_as_it_is(result: RelayMetadata.Nip66 | None):
    relay = to_relay(RelayUrl.parse("wss://a.example"))
    metadata = RelayMetadata(relay, 5, RelayMetadata.Nip11(name="a"), result)
    assert kept_metadata(ProbeReport(metadata, "refused", "")) is metadata
