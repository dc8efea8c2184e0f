// Runs worker.mjs under `oomguard run` and, whenever its memory proves too small, again with twice as much.
//
//     node parent.mjs FIRST_MIB CEILING_MIB INPUT
//
// Needs `oomguard` in PATH. The limit counts what is resident, the launcher's default. (With `--measure data` Node 20 needs
// 48 MiB to start, and hangs below that, guarded or not.) Every failure but a lack of memory is passed on at once.

import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";

const OUT_OF_MEMORY = 198;
const WORKER = fileURLToPath(new URL("worker.mjs", import.meta.url));

/** The exit code, the output, and the report if the worker ran out of memory. */
async function attempt(limitMib, input, directory) {
  const token = randomUUID();
  const reportPath = join(directory, token);
  const launcher = ["run", "--limit", `${limitMib}Mi`, "--report", reportPath, "--"];
  const worker = spawn("oomguard", [...launcher, process.execPath, WORKER, input], {
    env: { ...process.env, OOMGUARD_TOKEN: token },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exit = new Promise((resolve, reject) => worker.on("error", reject).on("close", resolve));
  const [code, output] = await Promise.all([exit, text(worker.stdout)]);
  // Any program may exit with 198; only what we started knows the token.
  const report = code === OUT_OF_MEMORY ? reportsIn(reportPath).find((found) => found.token === token) : undefined;
  return { code, output, report };
}

function reportsIn(path) {
  try {
    return readFileSync(path, "utf8").trimEnd().split("\n").map((line) => JSON.parse(line));
  } catch {
    return [];
  }
}

async function runWithEnough(limitMib, ceilingMib, input, directory) {
  for (;;) {
    const { code, output, report } = await attempt(limitMib, input, directory);
    if (code === 0) {
      process.stdout.write(output);
      return code;
    }
    if (report === undefined || limitMib >= ceilingMib) {
      console.error(`parent.mjs: giving up with a limit of ${limitMib} MiB: exit code ${code}`);
      return code ?? 1;
    }
    const larger = Math.min(limitMib * 2, ceilingMib);
    console.error(`parent.mjs: ${limitMib} MiB were not enough, trying ${larger} MiB`);
    limitMib = larger;
  }
}

if (process.argv.length !== 5) {
  console.error("usage: parent.mjs FIRST_MIB CEILING_MIB INPUT");
  process.exit(2);
}
const [firstMib, ceilingMib] = process.argv.slice(2, 4).map(Number);
const directory = mkdtempSync(join(tmpdir(), "oomguard-parent-"));
try {
  process.exitCode = await runWithEnough(firstMib, ceilingMib, process.argv[4], directory);
} catch (error) {
  console.error(`parent.mjs: ${error.message}`);
  process.exitCode = 1;
} finally {
  rmSync(directory, { recursive: true, force: true });
}
