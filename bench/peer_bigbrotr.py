"""BigBrotr 6.6.9 from PyPI, fetching and checking: run by the Python of its own environment.

`python peer_bigbrotr.py START END LIMIT SECONDS WS...` streams every relay at once with the
package's own stream_events, for so many seconds at most, and prints what it yielded as JSON.
It imports nothing of this repository.
"""

import asyncio
import json
import resource
import sys
import time
from datetime import timedelta

from bigbrotr.utils.protocol import create_client, shutdown_client
from bigbrotr.utils.streaming import stream_events
from nostr_sdk import Filter, RelayUrl


async def stream(websocket: str, start: int, end: int, limit: int, seconds: float) -> int:
    """How many events of one relay came, checked, within the time."""
    client = await create_client()
    await client.add_relay(RelayUrl.parse(websocket))
    await client.try_connect(timedelta(seconds=10))
    seen = 0
    deadline = time.monotonic() + seconds
    async for _ in stream_events(client, [Filter()], start, end, limit, 30.0, 600.0):
        seen += 1
        if time.monotonic() > deadline:
            break
    await shutdown_client(client)
    return seen


async def main(start: int, end: int, limit: int, seconds: float, websockets: list[str]) -> None:
    """Print how many events came, and what that took."""
    before, cpu = time.monotonic(), _cpu()
    seen = await asyncio.gather(*(stream(url, start, end, limit, seconds) for url in websockets))
    wall, spent = time.monotonic() - before, _cpu() - cpu
    print(json.dumps({"events": sum(seen), "wall": wall, "cpu": spent}))


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    asyncio.run(
        main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5:])
    )
