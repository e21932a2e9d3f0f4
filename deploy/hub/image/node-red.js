// Settings of Node-RED in compose.yaml. The hash of the password is made at each start.
const { readFileSync } = require("fs");
// Node-RED's own.
const { hashSync } = require.main.require("bcryptjs");

const password = readFileSync("/run/secrets/node_red_password", "utf8").trim();
if (!password) throw new Error("/run/secrets/node_red_password is empty");

module.exports = {
    uiHost: "127.0.0.1",
    uiPort: 1880,
    flowFile: "flows.json",
    adminAuth: {
        type: "credentials",
        users: [{ username: "admin", password: hashSync(password, 10), permissions: "*" }],
    },
};
