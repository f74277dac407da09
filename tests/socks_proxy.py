"""A SOCKS5 proxy for tests of .onion relays, where no Tor network is at hand."""

import asyncio

_WITH_PASSWORD = 2


class SocksProxy:
    """The part of a SOCKS5 server (RFC 1928, 1929) that Tor plays: it notes what is asked for
    and connects everything to one local port."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.asked: list[tuple[int, str, int]] = []
        self.users: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, methods = await reader.readexactly(2)
        if _WITH_PASSWORD not in await reader.readexactly(methods):
            # Somebody who only asks whether a proxy is here.
            writer.write(b"\x05\x00")
            writer.close()
            return
        writer.write(b"\x05\x02")
        _, length = await reader.readexactly(2)
        self.users.append((await reader.readexactly(length)).decode())
        await reader.readexactly((await reader.readexactly(1))[0])
        writer.write(b"\x01\x00")
        *_, kind, length = await reader.readexactly(5)
        name = (await reader.readexactly(length)).decode()
        port = int.from_bytes(await reader.readexactly(2))
        self.asked.append((kind, name, port))
        if not self._target:
            writer.write(b"\x05\x04\x00\x01\x00\x00\x00\x00\x00\x00")
            writer.close()
            return
        writer.write(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
    except ConnectionError:
        pass
    finally:
        writer.close()
