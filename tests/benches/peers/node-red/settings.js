// No editor and no HTTP server: only the flows run, which costs Node-RED least.
module.exports = {
    flowFile: "flows.json",
    httpAdminRoot: false,
    httpNodeRoot: false,
    credentialSecret: false,
    logging: { console: { level: "warn" } },
    telemetry: { enabled: false, updateNotification: false },
};
