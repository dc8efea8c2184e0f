// `run` is promisify(execFile), with a limit.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import fs from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { CannotGuardError, OutOfMemoryError, run } from "oomguard";
import { FLAGS, KEYS, NODE, eats } from "./programs.mjs";

const plain = promisify(execFile);
const failed = (promise) => promise.then(() => assert.fail("did not reject"), (error) => error);
/** What execFile says of an error, but for the stack. */
const said = (error) =>
  Object.fromEntries(["name", "message", "code", "killed", "signal", "cmd", "stdout", "stderr"].map((key) => [key, error[key]]));

test("a command that runs out of memory rejects with the report", async () => {
  const error = await failed(run(NODE, [...FLAGS, "-e", eats(200)], { limit: "100Mi" }));
  assert(error instanceof OutOfMemoryError && error instanceof Error, error);
  assert.deepEqual([error.name, error.limit, error.tries, error.code], ["OutOfMemoryError", 100 << 20, 1, 198]);
  assert.deepEqual(Object.keys(error.report), KEYS);
  assert.equal(error.report.limit, 100 << 20);
  assert.equal(error.stdout, "begins\n");
  assert.match(error.stderr, /^oomguard: out of memory: node/m);
  assert.match(error.message, /^out of memory: node .*; limit 100 MiB of resident$/);
  assert.equal(error.outcome.kind, "out_of_memory");
  const quiet = await failed(run(NODE, [...FLAGS, "-e", eats(200)], { limit: "100Mi", quiet: true, encoding: "buffer" }));
  assert(quiet.report && Buffer.isBuffer(quiet.stderr) && !quiet.stderr.includes("oomguard:"), quiet);
});

test("a heap of JavaScript objects that does not fit is out of memory, too", async () => {
  const source = "const rows = []; for (;;) rows.push({ row: rows.length, text: `row ${rows.length}` });";
  const error = await failed(run(NODE, [...FLAGS, "-e", source], { limit: "150Mi" }));
  assert(error instanceof OutOfMemoryError, error);
});

test("a retry gets more and the same input, and its output alone is kept", async () => {
  const source = `let words = ""; process.stdin.on("data", (part) => (words += part)).on("end", () => { ${eats(150)}; console.log(words) });`;
  const done = await run(NODE, [...FLAGS, "-e", source], { limit: "100Mi", retries: 2, grow: 2.5, input: "words" });
  assert.deepEqual([done.stdout, done.code, done.tries, done.limit], ["begins\n150\nwords\n", 0, 2, 250 << 20]);
});

test("retries end at the largest limit", async () => {
  const error = await failed(run(NODE, [...FLAGS, "-e", eats(300)], { limit: "80Mi", retries: 9, grow: 1.2, maxLimit: "100Mi" }));
  // 80, 96, 100
  assert(error instanceof OutOfMemoryError, error);
  assert.deepEqual([error.tries, error.limit], [3, 100 << 20]);
  assert.match(error.message, /; 3 tries$/);
});

test("without a largest limit, it is 90 % of the container's, or the machine's", async () => {
  const require = createRequire(import.meta.url);
  const { nextLimit } = require(path.join(path.dirname(require.resolve("oomguard")), "lib", "limit.js"));
  const doctor = path.join(fs.mkdtempSync(path.join(os.tmpdir(), "oomguard-")), "doctor");
  for (const [limit, most] of [["1000", 900], ["null", 4000]]) {
    fs.writeFileSync(doctor, `#!/bin/sh\necho '{ "container": { "limit": ${limit} }, "machine": { "memory": 4000 } }'\n`, { mode: 0o755 });
    assert.equal(await nextLimit(500, 100, undefined, doctor), most);
  }

  const done = await run(NODE, [...FLAGS, "-e", eats(100)], { limit: "80Mi", retries: 1, grow: 1e6 });
  assert(done.tries === 2 && done.limit <= os.totalmem() && done.limit > 200 << 20, done);
});

for (const code of [0, 1, 3, 125, 126, 127, 137, 198, 255]) {
  test(`exit code ${code} is the command's`, async () => {
    const command = ["sh", ["-c", `echo out; echo err >&2; exit ${code}`]];
    const [theirs, ours] = await Promise.allSettled([plain(...command), run(...command, { limit: "1Gi" })]);
    assert.equal(ours.status, theirs.status);
    if (code === 0) {
      assert.deepEqual([ours.value.stdout, ours.value.stderr, ours.value.code], ["out\n", "err\n", 0]);
    } else {
      assert.deepEqual(said(ours.reason), said(theirs.reason));
      assert(!(ours.reason instanceof OutOfMemoryError));
    }
  });
}

test("errors are execFile's", async () => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "oomguard-node-"));
  fs.writeFileSync(path.join(directory, "text"), "text");
  for (const [command, args, options] of [
    ["no-such-program", ["word"], {}],
    ["./no-such-program", [], {}],
    ["/etc/passwd", [], {}],
    ["text", [], { env: { PATH: directory } }],
    ["sh", ["-c", "true"], { env: { PATH: "/no/such/directory" } }],
    ["true", [], { cwd: "/no/such/directory" }],
    ["true", [], { cwd: "/etc/passwd" }],
    ["sh", ["-c", "kill -9 $$"], {}],
    ["sh", ["-c", "kill -TERM $$"], {}],
    ["sh", ["-c", "kill -SEGV $$"], {}],
    ["sleep", ["600"], { timeout: 300 }],
    ["sleep", ["600"], { timeout: 300, killSignal: "SIGKILL" }],
    ["seq", ["100000"], { maxBuffer: 1000 }],
    ["sh", ["-c", "seq 100000 >&2; exec sleep 600"], { maxBuffer: 1000 }],
    ["sleep", ["600"], { signal: AbortSignal.abort() }],
    ["no-such-program", [], { shell: true }],
  ]) {
    const [theirs, ours] = await Promise.all([
      failed(Promise.resolve().then(() => plain(command, args, options))),
      failed(Promise.resolve().then(() => run(command, args, { ...options, limit: "1Gi" }))),
    ]);
    const what = JSON.stringify([command, args, options]);
    assert.deepEqual(said(ours), said(theirs), what);
    assert.deepEqual([ours.errno, ours.syscall, ours.path, ours.spawnargs], [theirs.errno, theirs.syscall, theirs.path, theirs.spawnargs], what);
  }
  fs.rmSync(directory, { recursive: true });
});

test("an AbortSignal ends it while it runs", async () => {
  const controller = new AbortController();
  const promise = run("sh", ["-c", "echo on; exec sleep 600"], { signal: controller.signal, limit: "1Gi" });
  promise.child.stdout.once("data", () => controller.abort());
  const error = await failed(promise);
  assert.deepEqual([error.name, error.code], ["AbortError", "ABORT_ERR"]);
});

test("the time limit is that of all tries", async () => {
  const source = `setTimeout(() => { ${eats(300)} }, 200)`;
  const error = await failed(run(NODE, [...FLAGS, "-e", source], { limit: "80Mi", retries: 1000, grow: 1.0001, timeout: 3000 }));
  // Between two tries or in one.
  assert(error.killed || error instanceof OutOfMemoryError, error);
});

test("wrong limits are told before anything runs", () => {
  for (const limit of ["much", "0", 0, -1, 1.5, "512m", "101%", "1.5", " 1Gi", "", NaN]) {
    assert.throws(() => run("true", { limit }), { name: "RangeError", message: /^limit is .*512Mi/ }, String(limit));
  }
  assert.throws(() => run("true", { limit: {} }), TypeError);
  for (const wrong of [{ retries: -1 }, { retries: 1.5 }, { grow: 1 }, { grow: "2" }, { maxLimit: "much" }, { budget: "x" }]) {
    assert.throws(() => run("true", wrong), RangeError, JSON.stringify(wrong));
  }
  for (const wrong of [[""], [7], ["true", [], { cwd: 7 }], ["true", [], { stdio: "nonsense" }]]) {
    assert.throws(() => run(...wrong), { code: /^ERR_INVALID_ARG/ }, JSON.stringify(wrong));
  }
});

test("a limit too small to start with is no out of memory", async () => {
  const error = await failed(run(NODE, [...FLAGS, "-e", ""], { limit: "64Ki", measure: "data" }));
  assert(error instanceof CannotGuardError, error);
  assert.deepEqual([error.code, error.outcome.kind], [125, "cannot_start"]);
});

test("a bad option is told by the error", async () => {
  const error = await failed(run("true", { limit: "1Gi", measure: "rss" }));
  assert(error instanceof CannotGuardError, error);
  assert.match(error.message, /--measure "rss"/);
});

test("shell, cwd, env, encoding and input are the command's", async () => {
  const directory = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "oomguard-node-")));
  const env = { ...process.env, WORD: "a word" };
  for (const cwd of [directory, pathToFileURL(directory)]) {
    const done = await run("pwd; echo $WORD; cat", { shell: true, cwd, env, input: "input", limit: "1Gi" });
    assert.equal(done.stdout, `${directory}\na word\ninput`);
  }
  fs.writeFileSync(path.join(directory, "here"), "#!/bin/sh\necho here\n", { mode: 0o755 });
  assert.equal((await run("./here", { cwd: directory, limit: "1Gi" })).stdout, "here\n");
  assert.equal((await run("here", null, { env: { PATH: `/no:${directory}` }, limit: "1Gi" })).stdout, "here\n");
  const bytes = Buffer.from([0, 255, 10]);
  assert.deepEqual((await run("cat", [], { input: bytes, encoding: "buffer", limit: "1Gi" })).stdout, bytes);
  assert.equal((await run("cat", [], { input: bytes, encoding: "hex", limit: "1Gi" })).stdout, "00ff0a");
  const large = Buffer.alloc(600_000, "x").toString();
  assert.equal((await run("cat", { input: large, limit: "1Gi" })).stdout, large);
  // One that does not read it.
  assert.equal((await run("true", { input: large, limit: "1Gi" })).code, 0);
  fs.rmSync(directory, { recursive: true });
});

test("no descriptor is left", async () => {
  const count = () => fs.readdirSync("/proc/self/fd").length;
  const some = () =>
    Promise.allSettled([
      run("true", { limit: "1Gi" }),
      run("no-such-program", { limit: "1Gi" }),
      run("true", { cwd: "/no/such/directory", limit: "1Gi" }),
      run("false", { limit: "1Gi" }),
      run("sleep", ["600"], { signal: AbortSignal.timeout(50), limit: "1Gi" }).catch(() => {}),
    ]);
  const settled = () => new Promise((resolve) => setTimeout(resolve, 100));
  await some();
  await settled();
  const before = count();
  for (let i = 0; i < 5; i += 1) await some();
  // A child that was aborted may take its time.
  for (let i = 0; i < 100 && count() > before; i += 1) await settled();
  assert.equal(count(), before);
});
