"""What a good afternoon's work gives: asyncio, one task per PLC, blocks of registers cut by hand.

    script.py '{"broker": PORT, "period": SECONDS, "plcs": [[NAME, PORT], ..],
                "blocks": [[FIRST, COUNT, [[TAG, KIND, OFFSET], ..]], ..]}'
"""

import asyncio
import json
import sys

import aiomqtt
from pymodbus.client import AsyncModbusTcpClient as Plc

TYPES = {
    "i16": (Plc.DATATYPE.INT16, 1),
    "u16": (Plc.DATATYPE.UINT16, 1),
    "i32": (Plc.DATATYPE.INT32, 2),
    "f32": (Plc.DATATYPE.FLOAT32, 2),
}


async def cycle(plc, blocks):
    values = {}
    for first, count, tags in blocks:
        answer = await plc.read_holding_registers(first, count=count, device_id=255)
        if answer.isError():
            raise OSError(answer)
        for tag, kind, offset in tags:
            datatype, words = TYPES[kind]
            registers = answer.registers[offset : offset + words]
            values[tag] = plc.convert_from_registers(registers, datatype, word_order="little")
    return json.dumps(values)


async def poll(name, port, task, broker):
    plc = Plc("127.0.0.1", port=port, timeout=3)
    due = asyncio.get_running_loop().time()
    while True:
        if plc.connected or await plc.connect():
            await broker.publish(f"script/{name}", await cycle(plc, task["blocks"]))
        due = max(due + task["period"], asyncio.get_running_loop().time())
        await asyncio.sleep(due - asyncio.get_running_loop().time())


async def main(task):
    async with aiomqtt.Client("127.0.0.1", task["broker"]) as broker, asyncio.TaskGroup() as group:
        for name, port in task["plcs"]:
            group.create_task(poll(name, port, task, broker))


asyncio.run(main(json.loads(sys.argv[1])))
