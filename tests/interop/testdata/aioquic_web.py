"""An HTTP/3 server or client of aioquic for the tests with foreign peers.

Both print one JSON object a line. The server prints its address and ends with its
standard input. The client does what the lines of its standard input say: see
http3_aioquic_test.go.
"""

import asyncio
import hashlib
import json
import sys

from aioquic.asyncio import QuicConnectionProtocol, connect, serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, DatagramReceived, HeadersReceived, WebTransportStreamDataReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import (
    ConnectionTerminated,
    HandshakeCompleted,
    ProtocolNegotiated,
    StreamDataReceived,
    StreamReset,
)

MASK = b"\x12\x34\x56\x78"
PATIENCE = 100


def pattern(n):
    return (bytes(range(251)) * (n // 251 + 1))[:n]


def digest(data):
    return hashlib.sha256(data).hexdigest()


def say(**kw):
    print(json.dumps(kw), flush=True)


async def lines():
    while line := await asyncio.to_thread(sys.stdin.readline):
        yield line


def frame(opcode, payload, masked):
    """A WebSocket frame (RFC 6455, Section 5.2) of a whole message."""
    n = len(payload)
    bit = 0x80 if masked else 0
    head = bytes([0x80 | opcode])
    if n < 126:
        head += bytes([bit | n])
    elif n < 1 << 16:
        head += bytes([bit | 126]) + n.to_bytes(2, "big")
    else:
        head += bytes([bit | 127]) + n.to_bytes(8, "big")
    if not masked:
        return head + payload
    return head + MASK + bytes(b ^ MASK[i % 4] for i, b in enumerate(payload))


class Inbox:
    """What came on a stream of HTTP/3 or WebTransport."""

    def __init__(self):
        self.heads = []  # of messages, and trailers
        self.data = bytearray()
        self.ended = False
        self.error = None
        self.changed = asyncio.Event()

    async def until(self, done):
        async def wait():
            while not done():
                if self.error:
                    raise Exception(self.error)
                self.changed.clear()
                await self.changed.wait()

        await asyncio.wait_for(wait(), PATIENCE)

    async def take(self, n):
        await self.until(lambda: len(self.data) >= n)
        part, self.data = self.data[:n], self.data[n:]
        return bytes(part)

    async def frame(self):
        opcode, length = await self.take(2)
        assert opcode & 0x80, "the message is one frame"
        n = length & 0x7F
        if n == 126:
            n = int.from_bytes(await self.take(2), "big")
        elif n == 127:
            n = int.from_bytes(await self.take(8), "big")
        mask = await self.take(4) if length & 0x80 else bytes(4)
        payload = await self.take(n)
        return opcode & 0xF, bytes(b ^ mask[i % 4] for i, b in enumerate(payload)), length & 0x80


class Protocol(QuicConnectionProtocol):
    def __init__(self, *args, **kw):
        super().__init__(*args, **kw)
        self.complete = asyncio.get_running_loop().create_future()
        self.boxes = {}
        self.datagrams = asyncio.Queue()
        self.raw = set()  # WebTransport streams of this side, which are not HTTP
        self.opened = asyncio.Queue()  # streams of the peer for WebTransport
        self.tasks = set()
        self.h3 = None
        if self._quic.configuration.is_client:
            self.h3 = H3Connection(self._quic, enable_webtransport=True)

    def box(self, stream):
        return self.boxes.setdefault(stream, Inbox())

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated) and self.h3 is None:
            self.h3 = H3Connection(self._quic, enable_webtransport=True)
        if isinstance(event, HandshakeCompleted):
            self.complete.set_result(event)
        elif isinstance(event, StreamReset):
            box = self.box(event.stream_id)
            box.error = "stream reset: 0x%x" % event.error_code
            box.changed.set()
        elif isinstance(event, ConnectionTerminated):
            for box in self.boxes.values():
                box.error = "connection ended: 0x%x %s" % (event.error_code, event.reason_phrase)
                box.changed.set()
        if isinstance(event, StreamDataReceived) and event.stream_id in self.raw:
            self.add(event.stream_id, event.data, event.end_stream)
            return
        if self.h3 is None:
            return
        for e in self.h3.handle_event(event):
            if isinstance(e, HeadersReceived):
                box = self.box(e.stream_id)
                box.heads.append({k.decode(): v.decode() for k, v in e.headers})
                self.add(e.stream_id, b"", e.stream_ended)
                if not self._quic.configuration.is_client and len(box.heads) == 1:
                    self.run(self.answer(e.stream_id, box))
            elif isinstance(e, DataReceived):
                self.add(e.stream_id, e.data, e.stream_ended)
            elif isinstance(e, WebTransportStreamDataReceived):
                if e.stream_id not in self.boxes:
                    self.opened.put_nowait(e.stream_id)
                    if not self._quic.configuration.is_client:
                        self.run(self.echo(e.stream_id, e.session_id))
                self.add(e.stream_id, e.data, e.stream_ended)
            elif isinstance(e, DatagramReceived):
                if self._quic.configuration.is_client:
                    self.datagrams.put_nowait(e.data)
                else:
                    self.h3.send_datagram(e.stream_id, e.data)
                    self.transmit()

    def add(self, stream, data, ended):
        box = self.box(stream)
        box.data += data
        box.ended = box.ended or ended
        box.changed.set()

    def run(self, what):
        task = asyncio.ensure_future(what)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def open(self, session, unidirectional=False):
        stream = self.h3.create_webtransport_stream(session, is_unidirectional=unidirectional)
        self.raw.add(stream)
        return stream

    def head(self, stream, fields, ended=False):
        self.h3.send_headers(stream, [(k.encode(), str(v).encode()) for k, v in fields.items()], ended)
        self.transmit()

    def body(self, stream, data, ended=False):
        self.h3.send_data(stream, data, ended)
        self.transmit()

    # The server.

    async def answer(self, stream, box):
        head = box.heads[0]
        path = head[":path"].partition("?")[0]
        if head.get(":protocol") == "websocket":
            return await self.websocket(stream, box)
        if head.get(":protocol") == "webtransport":
            self.head(stream, {":status": 200, "sec-webtransport-http3-draft": "draft02"})
            own = self.open(stream)
            self._quic.send_stream_data(own, b"hello from the server", end_stream=True)
            self.transmit()
            await box.until(lambda: box.ended)
            self.body(stream, b"", True)
            return
        await box.until(lambda: box.ended)
        fields = {":status": 200, "x-method": head[":method"], "x-sum": digest(box.data), "x-user-agent": head.get("user-agent", "")}
        if path.startswith("/bytes/"):
            data = pattern(int(path[7:]))
            fields["content-length"] = len(data)
            self.head(stream, fields, head[":method"] == "HEAD")
            if head[":method"] != "HEAD":
                self.body(stream, data, True)
        elif path == "/trailers":
            self.head(stream, {**fields, "trailer": "x-trailer"})
            self.body(stream, b"body")
            self.head(stream, {"x-trailer": "at the end"}, True)
        else:
            self.head(stream, {":status": 404}, True)

    async def websocket(self, stream, box):
        self.head(stream, {":status": 200, "sec-websocket-protocol": "echo"})
        while True:
            opcode, payload, masked = await box.frame()
            assert masked, "a client masks"
            self.body(stream, frame(opcode, payload, False), opcode == 8)
            if opcode == 8:
                return

    async def echo(self, stream, session):
        box = self.box(stream)
        await box.until(lambda: box.ended)
        if stream % 4 != 0:
            stream = self.open(session, True)
        self._quic.send_stream_data(stream, bytes(box.data), end_stream=True)
        self.transmit()


async def server(cert, key):
    config = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN, max_datagram_frame_size=65536)
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


class Client:
    def __init__(self, cafile):
        self.cafile = cafile
        self.tickets = asyncio.Queue()
        self.manager = self.p = None

    async def connect(self, addr, early=False):
        config = QuicConfiguration(alpn_protocols=H3_ALPN, server_name="localhost", max_datagram_frame_size=65536)
        config.load_verify_locations(self.cafile)
        if early:
            config.session_ticket = await asyncio.wait_for(self.tickets.get(), PATIENCE)
        host, port = addr.rsplit(":", 1)
        self.authority = addr
        self.manager = connect(
            host,
            int(port),
            configuration=config,
            create_protocol=Protocol,
            session_ticket_handler=self.tickets.put_nowait,
            wait_connected=not early,
        )
        self.p = await self.manager.__aenter__()
        return {}

    async def close(self):
        await self.manager.__aexit__(None, None, None)
        return {}

    def ask(self, fields, ended):
        stream = self.p._quic.get_next_available_stream_id()
        self.p.head(stream, {":scheme": "https", ":authority": self.authority, **fields}, ended)
        return stream, self.p.box(stream)

    async def request(self, method, path, up=0, trailer=None):
        fields = {":method": method, ":path": path, "user-agent": "aioquic"}
        if trailer is not None:
            fields["trailer"] = "x-trailer"
        stream, box = self.ask(fields, not up)
        if up:
            self.p.body(stream, pattern(up), trailer is None)
            if trailer is not None:
                self.p.head(stream, {"x-trailer": trailer}, True)
        await box.until(lambda: box.ended)
        done = await asyncio.wait_for(self.p.complete, PATIENCE)
        return {
            "alpn": done.alpn_protocol,
            "early": done.early_data_accepted,
            "heads": box.heads,
            "sum": digest(box.data),
            "text": box.data[:1000].decode("latin-1"),
        }

    async def parallel(self, paths):
        return {"answers": await asyncio.gather(*(self.request("GET", path) for path in paths))}

    def extended(self, protocol, path, **fields):
        return self.ask({":method": "CONNECT", ":protocol": protocol, ":path": path, **fields}, False)

    async def websocket(self, path, origin, messages):
        fields = {"sec-websocket-version": "13", "sec-websocket-protocol": "echo"}
        if origin:
            fields["origin"] = origin
        stream, box = self.extended("websocket", path, **fields)
        await box.until(lambda: box.heads)
        if box.heads[0][":status"] != "200":
            return {"heads": box.heads, "echo": []}
        echo = []
        for opcode, size in messages:
            self.p.body(stream, frame(opcode, b"a" * size if opcode == 1 else pattern(size), True))
            got, payload, masked = await box.frame()
            assert not masked, "a server does not mask"
            echo.append([got, len(payload), digest(payload)])
        self.p.body(stream, frame(8, b"\x03\xe8bye", True))
        opcode, payload, _ = await box.frame()
        await box.until(lambda: box.ended)
        return {"heads": box.heads, "echo": echo, "close": [opcode, int.from_bytes(payload[:2], "big")]}

    async def webtransport(self, path, origin, size):
        p = self.p
        fields = {"origin": origin} if origin else {}
        session, box = self.extended("webtransport", path, **fields)
        await box.until(lambda: box.heads)
        result = {"heads": box.heads}
        if box.heads[0][":status"] != "200":
            return result
        hello = await asyncio.wait_for(p.opened.get(), PATIENCE)
        await p.box(hello).until(lambda: p.box(hello).ended)
        result["hello"] = p.box(hello).data.decode()

        stream = p.open(session)
        p._quic.send_stream_data(stream, pattern(size), end_stream=True)
        p.transmit()
        await p.box(stream).until(lambda: p.box(stream).ended)
        result["bidi"] = digest(p.box(stream).data)

        stream = p.open(session, True)
        p._quic.send_stream_data(stream, pattern(size), end_stream=True)
        p.transmit()
        back = await asyncio.wait_for(p.opened.get(), PATIENCE)
        await p.box(back).until(lambda: p.box(back).ended)
        result["uni"] = digest(p.box(back).data)

        for _ in range(PATIENCE):  # one may be lost
            p.h3.send_datagram(session, b"datagram")
            p.transmit()
            try:
                result["datagram"] = (await asyncio.wait_for(p.datagrams.get(), 1)).decode()
                break
            except asyncio.TimeoutError:
                pass
        p.body(session, b"", True)
        await box.until(lambda: box.ended)
        return result


async def client(cafile):
    c = Client(cafile)
    async for line in lines():
        req = json.loads(line)
        try:
            say(**await getattr(c, req.pop("do"))(**req))
        except Exception as e:
            say(error="%s: %s" % (type(e).__name__, e))


asyncio.run({"server": server, "client": client}[sys.argv[1]](*sys.argv[2:]))
