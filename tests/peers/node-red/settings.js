// Settings of Node-RED as a consumer of the tests: only the flow, on loopback.
module.exports = {
    uiHost: "127.0.0.1",
    uiPort: Number(process.env.E2E_EDITOR_PORT),
    flowFile: "flows.json",
    credentialSecret: "e2e",
    diagnostics: { enabled: false },
    telemetry: { enabled: false, updateNotification: false },
    externalModules: { autoInstall: false },
    editorTheme: { projects: { enabled: false }, tours: false },
    // Standard output is only for the messages.
    logging: {
        console: { level: "off", metrics: false, audit: false },
        stderr: {
            level: "info",
            metrics: false,
            audit: false,
            handler: () => (entry) => process.stderr.write(`${JSON.stringify(entry.msg)}\n`),
        },
    },
};
