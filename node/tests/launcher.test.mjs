// The command `oomguard` is the launcher: its signals, codes and descriptors are the program's.

import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { launcher } from "oomguard";
import { FLAGS, NODE, eats, event } from "./programs.mjs";

const top = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const bin = path.join(top, "node_modules/.bin/oomguard");
const ways = [
  ["the command", [bin]],
  ["node and the command", [NODE, bin]],
  ["npx", ["npx", "--no-install", "oomguard"]],
];
const { version } = JSON.parse(fs.readFileSync(path.join(top, "node_modules/oomguard/package.json"), "utf8"));

for (const [name, [program, ...before]] of ways) {
  test(`${name}: codes and reports are passed`, () => {
    const out = spawnSync(program, [...before, "run", "-m", "100Mi", "--", NODE, ...FLAGS, "-e", eats(200)], { encoding: "utf8", cwd: top });
    assert.equal(out.status, 198, out.stderr);
    assert.match(out.stderr, /^oomguard: out of memory: node/m);
    assert.equal(spawnSync(program, [...before, "run", "-m", "1Gi", "--", "sh", "-c", "exit 3"], { cwd: top }).status, 3);
    assert.equal(execFileSync(program, [...before, "--version"], { encoding: "utf8", cwd: top }), `oomguard ${version}\n`);
  });
}

for (const [name, [program, ...before]] of ways.slice(0, 2)) {
  test(`${name}: signals and descriptors are passed`, async () => {
    const waits = "trap 'exit 9' TERM; echo three >&3; echo on; while :; do sleep 0.1; done";
    const words = [...before, "run", "-m", "1Gi", "--json=fd:3", "--", "sh", "-c", waits];
    const file = path.join(top, `told-${before.length}`);
    const told = fs.openSync(file, "w");
    const child = spawn(program, words, { stdio: ["ignore", "pipe", "inherit", told] });
    fs.closeSync(told);
    await event(child.stdout, "data");
    child.kill("SIGTERM");
    assert.deepEqual(await event(child, "close"), [9, null]);
    assert.match(fs.readFileSync(file, "utf8"), /^three\n\{"outcome":"exited","exit_code":9,/);
  });
}

test("the command is the launcher's process, and no node's", async () => {
  const child = spawn(bin, ["run", "-m", "1Gi", "--", "sh", "-c", "echo on; exec sleep 600"]);
  await event(child.stdout, "data");
  assert.equal(fs.realpathSync(`/proc/${child.pid}/exe`), fs.realpathSync(launcher()));
  child.kill();
  await event(child, "close");
});

test("a package without its platform's says which one is missing", () => {
  const alone = fs.mkdtempSync(path.join(top, "alone-"));
  fs.cpSync(path.join(top, "node_modules/oomguard"), path.join(alone, "package"), { recursive: true });
  const away = spawnSync(NODE, [...FLAGS, "-e", "require('./package').launcher()"], { cwd: alone, env: { PATH: "" }, encoding: "utf8" });
  fs.rmSync(alone, { recursive: true });
  // Below this folder the platform's package is found, as node looks for it.
  assert.equal(away.status, 0, away.stderr);
  const elsewhere = fs.mkdtempSync(path.join("/tmp", "oomguard-node-"));
  fs.cpSync(path.join(top, "node_modules/oomguard"), path.join(elsewhere, "package"), { recursive: true });
  const nodes = path.dirname(NODE);
  const lost = spawnSync(path.join(elsewhere, "package/bin/oomguard"), ["run", "--", "true"], { env: { PATH: `${nodes}:/usr/bin:/bin` }, encoding: "utf8" });
  fs.rmSync(elsewhere, { recursive: true });
  if (!(process.env.PATH || "").split(":").some((at) => fs.existsSync(path.join(at, "oomguard")))) {
    assert.equal(lost.status, 125);
    assert.match(lost.stderr, /^oomguard: the launcher is not installed: package oomguard-linux-/);
  }
});
