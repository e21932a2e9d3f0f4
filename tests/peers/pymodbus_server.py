"""A Modbus TCP server for tests, controlled by JSON lines.

Usage: pymodbus_server.py PORT

Each line on standard input is a request, {"op": ...}; each is answered by one line on standard
output, {"done": result}. End of input ends the server. Function codes stand for tables: 1 coils,
2 discrete inputs, 3 holding registers, 4 input registers.
"""

import asyncio
import collections
import json
import sys

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

EVERY_UNIT = 0
ADDRESSES = 65536


class Plc:
    """The memory, its injected faults, and the listening socket."""

    def __init__(self, port):
        self.port = port
        self.server = None
        self.refused = []
        self.delay = 0.0
        self.is_own_access = False
        self.function_codes = collections.Counter()
        self.connection_count = 0

    async def open(self, _request):
        if self.server is None:
            self.server = self.make_server()
        if not await self.server.listen():
            raise RuntimeError(f"cannot listen on port {self.port}")

    def make_server(self):
        # One list of values each: with count=65536 this library takes seconds and gigabytes.
        bits = [SimData(0, values=[False] * ADDRESSES, datatype=DataType.BITS)]
        registers = [SimData(0, values=[0] * ADDRESSES, datatype=DataType.REGISTERS)]
        device = SimDevice(
            EVERY_UNIT, simdata=(bits, bits, registers, registers), action=self.on_access
        )
        return ModbusTcpServer(
            device,
            address=("127.0.0.1", self.port),
            trace_pdu=self.on_pdu,
            trace_connect=self.on_connect,
        )

    async def close(self, _request):
        self.server.close()

    async def set(self, request):
        self.is_own_access = True
        await self.server.context.async_setValues(
            EVERY_UNIT, request["code"], request["first"], request["values"]
        )
        self.is_own_access = False

    async def get(self, request):
        self.is_own_access = True
        values = await self.server.context.async_getValues(
            EVERY_UNIT, request["code"], request["first"], request["count"]
        )
        self.is_own_access = False
        return values

    async def refuse(self, request):
        self.refused.append(request)

    async def refuse_nothing(self, _request):
        self.refused.clear()

    async def answer_after(self, request):
        self.delay = request["seconds"]

    async def count_function_codes(self, _request):
        return dict(self.function_codes)

    async def count_connections(self, _request):
        return self.connection_count

    async def on_access(self, code, _start, address, count, _registers, _values):
        if self.is_own_access:
            return None
        if self.delay:
            await asyncio.sleep(self.delay)
        table = 3 if code in (3, 6, 16, 22, 23) else code
        for refused in self.refused:
            is_touched = address <= refused["last"] and refused["first"] < address + count
            if table == refused["code"] and is_touched:
                return ExcCodes(refused["exception"])
        return None

    def on_pdu(self, is_answer, pdu):
        if not is_answer:
            self.function_codes[pdu.function_code] += 1
        return pdu

    def on_connect(self, is_connected):
        self.connection_count += is_connected


async def serve(port):
    plc = Plc(port)
    operations = {
        "open": plc.open,
        "close": plc.close,
        "set": plc.set,
        "get": plc.get,
        "refuse": plc.refuse,
        "refuse_nothing": plc.refuse_nothing,
        "answer_after": plc.answer_after,
        "function_codes": plc.count_function_codes,
        "connections": plc.count_connections,
    }
    requests = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
    while line := await requests.readline():
        request = json.loads(line)
        done = await operations[request["op"]](request)
        print(json.dumps({"done": done}), flush=True)


asyncio.run(serve(int(sys.argv[1])))
