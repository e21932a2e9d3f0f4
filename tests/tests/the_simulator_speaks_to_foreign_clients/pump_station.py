"""Watches the pump station of a simulated M251 and gives it a setpoint and a mode.
Argument: the port on 127.0.0.1."""

import sys
import time

from pymodbus.client import ModbusTcpClient

client = ModbusTcpClient("127.0.0.1", port=int(sys.argv[1]), timeout=5)
assert client.connect(), "no connection"
REAL = client.DATATYPE.FLOAT32


def words(first, count):
    answer = client.read_holding_registers(first, count=count, device_id=255)
    assert not answer.isError(), answer
    return answer.registers


def real(first):
    return client.convert_from_registers(words(first, 2), REAL, word_order="little")


def until(what, holds):
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, f"not within 10 s: {what}"


assert 15 < real(10) < 30, "a cold start"
assert real(20) == 60
life = words(0, 1)
until("the program runs", lambda: words(0, 1) != life)

setpoint = client.convert_to_registers(90.0, REAL, word_order="little")
assert not client.write_registers(20, setpoint, device_id=255).isError()
cold = real(10)
until("it gets warmer", lambda: real(10) > cold + 1)
assert real(20) == 90, "the setpoint is the client's"

assert not client.write_register(62200, 2, device_id=255).isError()
until("the pump speeds up", lambda: words(15, 1)[0] > 1000)
assert words(40, 1) == [2], "the relocated mode"
assert words(28, 1)[0] & 1, "%MX56.0, running"
assert client.read_coils(0, count=1, device_id=255).bits[0], "%Q0.0, the pump"
assert client.read_discrete_inputs(2, count=1, device_id=255).bits[0], "%I0.2, the pump turns"

client.close()
print("all as expected")
