"""The check of one relay, as a worker process does it (see `workers.WorkerPool`)."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from nostr_tools import RelayMetadata

from config import KeypairConfig, MonitorConfig
from nostr.connection import Dialer
from nostr.pow import Miner
from nostr.probe import ProbeReport, probe
from nostr.urls import RelayUrl, to_relay

# Opening, reading, signing in, reading again, writing, working, writing again; each has the whole
# timeout.
_STEPS = 7

Check = Callable[[RelayUrl], Awaitable[ProbeReport]]


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """What a worker must know. `request_timeout` is in seconds, `max_pow_difficulty` in bits."""

    request_timeout: float
    allow_private: bool
    socks5_url: str | None
    keypair: KeypairConfig | None
    max_pow_difficulty: int = 0

    @classmethod
    def of(cls, config: MonitorConfig) -> "CheckSettings":
        """The part of the monitor's settings that its workers need."""
        return cls(
            request_timeout=config.request_timeout,
            allow_private=config.allow_private_relays,
            socks5_url=config.tor.socks5_url if config.tor else None,
            keypair=config.keypair,
            max_pow_difficulty=config.max_pow_difficulty,
        )

    def dialer(self) -> Dialer:
        """How to reach relays."""
        return Dialer(self.socks5_url, self.allow_private, connect_timeout=self.request_timeout)


@asynccontextmanager
async def open_checker(settings: CheckSettings) -> AsyncIterator[Check]:
    """What a worker process opens: the check of one relay, and a thread for proofs of work."""

    thread = ThreadPoolExecutor(1, "pow")
    miner = Miner(settings.max_pow_difficulty, thread)

    dialer = settings.dialer()

    async def check(url: RelayUrl) -> ProbeReport:
        timeout = dialer.timeout_for(url)
        now = int(time.time())
        try:
            async with asyncio.timeout(timeout * _STEPS):
                return await probe(
                    url, dialer, timeout=timeout, keypair=settings.keypair, now=now, miner=miner
                )
        except TimeoutError:
            return _endless(url, now, timeout * _STEPS)

    try:
        yield check
    finally:
        thread.shutdown(wait=False, cancel_futures=True)


def _endless(url: RelayUrl, now: int, seconds: float) -> ProbeReport:
    """The report on a relay that keeps every step of a check from ending, dripping data."""
    metadata = RelayMetadata(to_relay(url), now, nip66=RelayMetadata.Nip66())
    return ProbeReport(metadata, "timeout", f"the check was not done after {seconds:g} s")


def checker(config: MonitorConfig) -> Callable[[], AbstractAsyncContextManager[Check]]:
    """`open_checker` with its settings, as a worker pool needs it: picklable, without arguments."""
    return partial(open_checker, CheckSettings.of(config))
