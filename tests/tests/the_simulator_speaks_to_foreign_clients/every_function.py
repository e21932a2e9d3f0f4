"""Talks to a simulated M241 as pymodbus does, with every function code that it lists and some
that it does not. Argument: the port on 127.0.0.1. %MW10 holds REAL#123.456, input 13 is on."""

import sys

from pymodbus.client import ModbusTcpClient

client = ModbusTcpClient("127.0.0.1", port=int(sys.argv[1]), timeout=5)
assert client.connect(), "no connection"
unit = {"device_id": 255}


def good(answer):
    assert not answer.isError(), answer
    return answer


def refused(code, answer):
    assert answer.isError(), answer
    assert answer.exception_code == code, answer


# 16, 3: words, and a REAL with the low word first.
good(client.write_registers(101, [1, 2, 3], **unit))
assert good(client.read_holding_registers(101, count=3, **unit)).registers == [1, 2, 3]
words = good(client.read_holding_registers(10, count=2, **unit)).registers
real = client.convert_from_registers(words, client.DATATYPE.FLOAT32, word_order="little")
assert abs(real - 123.456) < 1e-4, real
assert len(good(client.read_holding_registers(0, count=125, **unit)).registers) == 125
# 6
good(client.write_register(100, 1234, **unit))
assert good(client.read_holding_registers(100, count=1, **unit)).registers == [1234]
# 15, 1
good(client.write_coils(4, [True, False, True], **unit))
assert good(client.read_coils(3, count=5, **unit)).bits[:5] == [False, True, False, True, False]
# 2
assert good(client.read_discrete_inputs(12, count=2, **unit)).bits[:2] == [False, True]
# 23
exchange = client.readwrite_registers(
    read_address=100, read_count=2, write_address=110, values=[7], **unit
)
assert good(exchange).registers == [1234, 1]
# 8
assert good(client.diag_query_data(b"\xa5\x37", **unit)).message == b"\xa5\x37"
# 43/14, all basic objects and one of them
basic = good(client.read_device_information(read_code=1, object_id=0, **unit)).information
assert basic == {0: b"Schneider Electric", 1: b"TM241CEC24T", 2: b"V5.1.9.44"}, basic
one = good(client.read_device_information(read_code=4, object_id=1, **unit)).information
assert one == {1: b"TM241CEC24T"}, one
# PLC_R: vendor and state
assert good(client.read_holding_registers(60000, count=1, **unit)).registers == [0x101A]
assert good(client.read_holding_registers(60012, count=1, **unit)).registers == [2]

# 4, 5, 22, 7, 17: not in the manual's list.
refused(1, client.read_input_registers(0, count=1, **unit))
refused(1, client.write_coil(0, True, **unit))
refused(1, client.mask_write_register(address=0, and_mask=0, or_mask=1, **unit))
refused(1, client.read_exception_status(**unit))
refused(1, client.report_device_id(**unit))
# Reserved, read-only, across a border.
refused(2, client.read_holding_registers(64000, count=1, **unit))
refused(2, client.write_register(60012, 1, **unit))
refused(2, client.read_holding_registers(59999, count=2, **unit))
# The slave device knows words only; nobody is at unit 2.
assert good(client.read_holding_registers(0, count=80, device_id=1)).registers == [0] * 80
refused(1, client.read_coils(0, count=1, device_id=1))
refused(2, client.write_register(40, 1, device_id=1))
refused(11, client.read_holding_registers(0, count=1, device_id=2))

client.close()
print("all as expected")
