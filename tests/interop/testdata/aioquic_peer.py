"""A QUIC server or client of aioquic for the tests with foreign peers.

Both print one JSON object a line. The server prints its address and ends with its
standard input. The client does what the lines of its standard input say: see
quicpeer_test.go, which also says what is exchanged on a stream.
"""

import asyncio
import hashlib
import json
import sys

from aioquic.asyncio import QuicConnectionProtocol, connect, serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import HandshakeCompleted

ALPN = "anyquic-interop"


def pattern(n):
    return (bytes(range(251)) * (n // 251 + 1))[:n]


def say(**kw):
    print(json.dumps(kw), flush=True)


async def lines():
    while line := await asyncio.to_thread(sys.stdin.readline):
        yield line


class Protocol(QuicConnectionProtocol):
    def __init__(self, quic, stream_handler=None):
        super().__init__(quic, stream_handler=self.accept)
        self.complete = asyncio.get_running_loop().create_future()
        self.tasks = set()

    def quic_event_received(self, event):
        if isinstance(event, HandshakeCompleted):
            self.complete.set_result(event)
        super().quic_event_received(event)

    def accept(self, reader, writer):
        task = asyncio.ensure_future(self.answer(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def answer(self, reader, writer):
        data = await reader.read()
        done = await self.complete
        report = {
            "alpn": done.alpn_protocol,
            "early": done.early_data_accepted,
            "peer": "%s:%d" % self._quic._network_paths[0].addr[:2],
            "sum": hashlib.sha256(data[8:]).hexdigest(),
        }
        writer.write(json.dumps(report).encode() + b"\n")
        writer.write(pattern(int.from_bytes(data[:8], "big")))
        writer.write_eof()


async def server(cert, key):
    config = QuicConfiguration(is_client=False, alpn_protocols=[ALPN])
    config.load_cert_chain(cert, key)
    tickets = {}
    s = await serve(
        "127.0.0.1",
        0,
        configuration=config,
        create_protocol=Protocol,
        session_ticket_fetcher=lambda label: tickets.pop(label, None),
        session_ticket_handler=lambda t: tickets.__setitem__(t.ticket, t),
    )
    say(addr="%s:%d" % s._transport.get_extra_info("sockname")[:2])
    async for _ in lines():
        pass
    s.close()


async def client(cafile):
    ticket = asyncio.Queue()
    manager = protocol = None
    async for line in lines():
        req = json.loads(line)
        if req["do"] == "connect":
            config = QuicConfiguration(alpn_protocols=[ALPN], server_name="localhost")
            config.load_verify_locations(cafile)
            if req["early"]:
                config.session_ticket = await asyncio.wait_for(ticket.get(), 100)
            host, port = req["addr"].rsplit(":", 1)
            manager = connect(
                host,
                int(port),
                configuration=config,
                create_protocol=Protocol,
                session_ticket_handler=ticket.put_nowait,
                wait_connected=not req["early"],
            )
            protocol = await manager.__aenter__()
            say()
        elif req["do"] == "exchange":
            reader, writer = await protocol.create_stream()
            sent = pattern(req["up"])
            writer.write(req["down"].to_bytes(8, "big") + sent)
            writer.write_eof()
            report = json.loads(await reader.readline())
            got = await reader.read()
            done = await protocol.complete
            say(
                server=report,
                alpn=done.alpn_protocol,
                early=done.early_data_accepted,
                resumed=done.session_resumed,
                intact=got == pattern(req["down"])
                and report["sum"] == hashlib.sha256(sent).hexdigest(),
            )
        elif req["do"] == "close":
            await manager.__aexit__(None, None, None)
            say()


asyncio.run({"server": server, "client": client}[sys.argv[1]](*sys.argv[2:]))
