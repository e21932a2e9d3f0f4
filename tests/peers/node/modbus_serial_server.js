// modbus-serial as the PLC of the tests: node modbus_serial_server.js PORT
//
// Standard input: lines "TABLE ADDRESS VALUE", TABLE being coil, discrete, input or holding, then
// end of file. Writes "ready" when it accepts connections.
"use strict";

const fs = require("node:fs");
const { ServerTCP } = require("modbus-serial");

const EVERY_UNIT = 255;
const memory = { coil: [], discrete: [], input: [], holding: [] };

for (const line of fs.readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  const [table, address, value] = line.split(" ");
  memory[table][Number(address)] = Number(value);
}

const memoryOf = {
  getCoil: (address) => Boolean(memory.coil[address]),
  getDiscreteInput: (address) => Boolean(memory.discrete[address]),
  getInputRegister: (address) => memory.input[address] ?? 0,
  getHoldingRegister: (address) => memory.holding[address] ?? 0,
};

const port = Number(process.argv[2]);
const server = new ServerTCP(memoryOf, { host: "127.0.0.1", port, unitID: EVERY_UNIT });
server.on("initialized", () => console.log("ready"));
server.on("serverError", (error) => {
  console.error(error);
  process.exit(1);
});
