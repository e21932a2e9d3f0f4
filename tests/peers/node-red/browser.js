// A page in Chromium, driven by lines of JSON on standard input. Each is answered with one line:
// {} when it is done, {"error": ..} when it is not.
//   {"see": "text in a pattern", "in": ".class"}   waits until an element has a text like this
//   {"type": "21.5", "in": ".class input"}         types a text, and Enter
//   {"picture": "path.png"}                         makes a picture of the page
const readline = require("node:readline");
const { chromium } = require("playwright-core");

const TIMEOUT = 60_000;
// Without a sandbox: tests may run as root, and the page is their own.
const ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];

async function follow(page, step) {
    if (step.see !== undefined) {
        const shown = page.locator(step.in).filter({ hasText: new RegExp(step.see) });
        await shown.first().waitFor({ timeout: TIMEOUT });
    } else if (step.type !== undefined) {
        await page.locator(step.in).fill(step.type);
        await page.locator(step.in).press("Enter");
    } else {
        const note = page.getByRole("button", { name: "Close" });
        if (await note.isVisible()) {
            await note.click();
        }
        await page.screenshot({ path: step.picture });
    }
}

async function main(url) {
    const executablePath = "/usr/bin/chromium";
    const browser = await chromium.launch({ executablePath, headless: true, args: ARGUMENTS });
    const page = await browser.newPage({ viewport: { width: 1180, height: 860 } });
    await page.goto(url, { waitUntil: "load", timeout: TIMEOUT });
    for await (const line of readline.createInterface({ input: process.stdin })) {
        try {
            await follow(page, JSON.parse(line));
            console.log("{}");
        } catch (error) {
            const text = await page.locator("body").innerText();
            console.log(JSON.stringify({ error: `${error.message}\n${text}` }));
        }
    }
    await browser.close();
}

main(process.argv[2]);
