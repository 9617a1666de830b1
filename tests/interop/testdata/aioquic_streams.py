"""A client of aioquic that sends and receives bytes on streams, for the tests of MQTT
with a foreign QUIC stack.

It does what the lines of its standard input say, and answers each with a line: see
mqtt_aioquic_test.go. Bytes are hexadecimal.
"""

import asyncio
import json
import sys

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StopSendingReceived, StreamDataReceived, StreamReset

PATIENCE = 100


class Stream:
    def __init__(self):
        self.data = bytearray()
        self.fin = False
        self.reset = None
        self.stop = None


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kw):
        super().__init__(*args, **kw)
        self.streams = {}
        self.closed = None
        self.changed = asyncio.Event()

    def stream(self, n):
        return self.streams.setdefault(n, Stream())

    def quic_event_received(self, event):
        if isinstance(event, StreamDataReceived):
            s = self.stream(event.stream_id)
            s.data += event.data
            s.fin = s.fin or event.end_stream
        elif isinstance(event, StreamReset):
            self.stream(event.stream_id).reset = event.error_code
        elif isinstance(event, StopSendingReceived):
            self.stream(event.stream_id).stop = event.error_code
        elif isinstance(event, ConnectionTerminated):
            self.closed = event.error_code
        self.changed.set()

    async def until(self, done):
        async def wait():
            while not done():
                self.changed.clear()
                await self.changed.wait()

        await asyncio.wait_for(wait(), PATIENCE)

    async def do(self, req):
        quic, n = self._quic, req.get("stream")
        match req["do"]:
            case "send":
                # aioquic numbers the client's bidirectional streams 0, 4, 8 ...
                quic.send_stream_data(n, bytes.fromhex(req["data"]), req.get("fin", False))
                self.transmit()
            case "reset":
                quic.reset_stream(n, req["code"])
                self.transmit()
            case "stop":
                quic.stop_stream(n, req["code"])
                self.transmit()
            case "receive":
                s = self.stream(n)
                await self.until(lambda: len(s.data) >= req["n"] or s.fin or s.reset is not None or self.closed is not None)
                data = bytes(s.data[: req["n"]])
                del s.data[: req["n"]]
                return {"data": data.hex()}
            case "end":
                s = self.stream(n)
                await self.until(lambda: s.fin or s.reset is not None or self.closed is not None)
                return {"data": bytes(s.data).hex(), "fin": s.fin, "reset": s.reset, "closed": self.closed}
            case "closed":
                await self.until(lambda: self.closed is not None)
                return {"closed": self.closed}
            case "streams":
                return {"opened": sorted(self.streams)}
        return {}


async def main():
    host, port = sys.argv[1].rsplit(":", 1)
    conf = QuicConfiguration(is_client=True, alpn_protocols=["mqtt"], cafile=sys.argv[2], server_name="localhost")
    async with connect(host.strip("[]"), int(port), configuration=conf, create_protocol=Client) as client:
        while line := await asyncio.to_thread(sys.stdin.readline):
            try:
                answer = await client.do(json.loads(line))
            except Exception as e:  # what went wrong is for the test to say
                answer = {"error": repr(e)}
            print(json.dumps(answer), flush=True)


asyncio.run(main())
