"""nostr-sdk's LocalRelay as a program: `python -m standalone.local_relay PORT CAP [ADDRESS]`."""

import asyncio
import signal
import sys

from nostr_sdk import LocalRelayBuilder, RateLimit

# Its defaults end a connection after 300 messages and refuse a flood of events.
_PATIENT = RateLimit(max_reqs=500, notes_per_minute=100_000_000)


async def serve(port: int, cap: int, address: str = "127.0.0.1") -> None:
    """Serve on an interface, the loopback one by default, until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    builder = LocalRelayBuilder().addr(address).port(port).rate_limit(_PATIENT)
    relay = builder.default_filter_limit(cap).max_filter_limit(cap).build()
    await relay.run()
    await stop.wait()
    relay.shutdown()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
