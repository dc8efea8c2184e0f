// `spawn` and `fork` are child_process's, with a limit.

import assert from "node:assert/strict";
import child_process from "node:child_process";
import fs from "node:fs";
import { createRequire } from "node:module";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import * as oomguard from "oomguard";
import { FLAGS, NODE, eats, event, text } from "./programs.mjs";

const { OutOfMemoryError, fork, spawn } = oomguard;
const directory = fs.mkdtempSync(path.join(os.tmpdir(), "oomguard-node-"));
after(() => fs.rmSync(directory, { recursive: true }));
let programs = 0;
/** Returns the path of a program that can be forked. */
function program(source) {
  const file = path.join(directory, `program-${(programs += 1)}.mjs`);
  fs.writeFileSync(file, source);
  return file;
}

test("import and require give the same", () => {
  const required = createRequire(import.meta.url)("oomguard");
  assert.deepEqual(Object.keys(required).sort(), Object.keys(oomguard).filter((name) => name !== "default").sort());
  for (const name of Object.keys(required)) assert.equal(required[name], oomguard[name]);
});

test("spawn tells of the end as child_process does, and why", async () => {
  const child = spawn(NODE, [...FLAGS, "-e", eats(200)], { limit: "100Mi", stdio: ["ignore", "pipe", "ignore"] });
  assert(child instanceof child_process.ChildProcess);
  assert.deepEqual([child.outcome, child.report, child.exitCode, child.signalCode], [null, null, null, null]);
  assert.deepEqual([child.spawnfile, child.spawnargs], [NODE, [NODE, ...FLAGS, "-e", eats(200)]]);
  const events = [];
  child.on("outOfMemory", (error) => events.push("outOfMemory", error));
  child.on("exit", (...words) => events.push("exit", ...words));
  const [stdout, closed] = await Promise.all([text(child.stdout), event(child, "close")]);
  assert.equal(stdout, "begins\n");
  const [name, error, ...more] = events;
  assert.deepEqual([name, ...more, ...closed], ["outOfMemory", "exit", 198, null, 198, null]);
  assert(error instanceof OutOfMemoryError && error.report === child.report && error.limit === 100 << 20, error);
  assert.equal(child.outcome.kind, "out_of_memory");
  assert.equal(child.outcome.pid, child.report.pid);
  assert.notEqual(child.pid, child.report.pid);
});

test("what no report proves is the command's own 198", async () => {
  const child = spawn("sh", ["-c", "exit 198"], { limit: "1Gi" });
  child.on("outOfMemory", () => assert.fail("no memory ran out"));
  assert.deepEqual(await event(child, "close"), [198, null]);
  assert.deepEqual([child.outcome.kind, child.report], ["exited", null]);
});

test("a signal is told by its name", async () => {
  for (const name of ["SIGKILL", "SIGTERM", "SIGABRT", "SIGIO", "SIGUSR1"]) {
    const child = spawn("sh", ["-c", `kill -${name.slice(3)} $$`], { limit: "1Gi" });
    const [exited, closed] = await Promise.all([event(child, "exit"), event(child, "close")]);
    assert.deepEqual([...exited, ...closed, child.exitCode, child.signalCode], [null, name, null, name, null, name]);
    assert.equal(child.outcome.signal, name);
  }
});

test("kill reaches the command", async () => {
  const waits = "process.on('SIGUSR2', () => process.exit(7)); console.log('on'); setInterval(() => {}, 1000)";
  const child = spawn(NODE, [...FLAGS, "-e", waits], { limit: "1Gi" });
  await event(child.stdout, "data");
  assert(child.kill("SIGUSR2") && child.killed);
  assert.deepEqual(await event(child, "exit"), [7, null]);
  for (const name of ["SIGTERM", "SIGKILL"]) {
    const sleeps = spawn("sh", ["-c", "echo on; exec sleep 600"], { limit: "1Gi" });
    await event(sleeps.stdout, "data");
    sleeps.kill(name);
    assert.deepEqual(await event(sleeps, "close"), [null, name]);
  }
});

test("a killed launcher takes the command along", async () => {
  const child = spawn("sh", ["-c", "echo $$; exec sleep 600"], { limit: "1Gi" });
  const pid = Number((await event(child.stdout, "data"))[0]);
  process.kill(child.pid, "SIGKILL");
  assert.deepEqual(await event(child, "close"), [null, "SIGKILL"]);
  assert.equal(child.outcome.kind, "signaled");
  await gone(pid);
});

async function gone(pid) {
  for (let i = 0; i < 1200; i += 1) {
    try {
      process.kill(pid, 0);
      if (/^State:\tZ/m.test(fs.readFileSync(`/proc/${pid}/status`, "utf8"))) return;
    } catch {
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.fail(`${pid} is still there`);
}

test("timeout and AbortSignal are heeded", async () => {
  const late = spawn("sleep", ["600"], { timeout: 200, killSignal: "SIGKILL", limit: "1Gi" });
  assert.deepEqual(await event(late, "exit"), [null, "SIGKILL"]);
  const controller = new AbortController();
  const aborted = spawn("sleep", ["600"], { signal: controller.signal, limit: "1Gi" });
  const [told, exited] = [event(aborted, "error"), event(aborted, "exit")];
  controller.abort();
  assert.equal((await told)[0].name, "AbortError");
  assert.deepEqual(await exited, [null, "SIGTERM"]);
});

test("what cannot be started is an error as in child_process", async () => {
  for (const given of [["no-such-program", ["word"]], ["/etc/passwd"], ["true", { cwd: "/no/such/directory" }]]) {
    const told = async (child) => {
      const [error] = await event(child, "error");
      const { message, code, errno, syscall, path, spawnargs } = error;
      return { message, code, errno, syscall, path, spawnargs, pid: child.pid, closed: await event(child, "close") };
    };
    assert.deepEqual(await told(spawn(...given)), await told(child_process.spawn(...given)));
  }
  const child = spawn(NODE, [...FLAGS, "-e", ""], { limit: "64Ki", measure: "data", stdio: "ignore" });
  const exited = event(child, "exit");
  const [error] = await event(child, "error");
  assert.equal(error.name, "CannotGuardError");
  assert.deepEqual(await exited, [125, null]);
});

test("a command of another user's tells its end as well", { skip: process.getuid() !== 0 }, async () => {
  const child = spawn("id", ["-u"], { uid: 65534, gid: 65534, cwd: "/", limit: "1Gi", stdio: ["ignore", "pipe", "inherit"] });
  const [stdout, closed] = await Promise.all([text(child.stdout), event(child, "close")]);
  assert.deepEqual([stdout, ...closed, child.outcome.kind], ["65534\n", 0, null, "success"]);
});

test("a retry has the same streams", async () => {
  const child = spawn(NODE, [...FLAGS, "-e", eats(150)], { limit: "100Mi", retries: 1, grow: 2.5, stdio: ["ignore", "pipe", "ignore"] });
  const [stdout, closed] = await Promise.all([text(child.stdout), event(child, "close")]);
  assert.deepEqual([stdout, ...closed, child.outcome.tries], ["begins\nbegins\n150\n", 0, null, 2]);
});

test("streams of one's own keep their numbers", async () => {
  const child = spawn("sh", ["-c", "echo three >&3; cat <&4; echo $0"], { stdio: ["ignore", "pipe", "inherit", "pipe", "pipe"], limit: "1Gi" });
  child.stdio[4].end("four");
  const all = await Promise.all([text(child.stdio[3]), text(child.stdout), event(child, "close")]);
  assert.deepEqual(all, ["three\n", "foursh\n", [0, null]]);
});

test("'close' does not wait for what the command leaves behind", async () => {
  const child = spawn("sh", ["-c", "sleep 600 >/dev/null 2>&1 </dev/null & echo $!"], { limit: "1Gi" });
  const [stdout] = await Promise.all([text(child.stdout), event(child, "close")]);
  process.kill(Number(stdout), "SIGKILL");
});

test("argv0 is refused by name", () => {
  assert.throws(() => spawn("true", { argv0: "false" }), { name: "TypeError", message: /argv0/ });
});

const ECHO = `
  process.on("message", (message, handle) => {
    process.send({ message, isMap: message instanceof Map, port: handle?.address().port });
    handle?.close();
  });
  process.on("disconnect", () => { console.log("disconnected", process.argv.slice(2).join(), process.execArgv.join()); });
`;

for (const serialization of ["json", "advanced"]) {
  test(`fork has a channel, serialized as ${serialization}`, async () => {
    const file = pathToFileURL(program(ECHO));
    const child = fork(file, ["one", "two"], { execArgv: ["--no-warnings"], serialization, silent: true, limit: "1Gi" });
    assert.deepEqual([child.connected, child.spawnargs.at(-3)], [true, fileURLToPath(file)]);
    const message = serialization === "json" ? { words: ["a", 1, null] } : new Map([["a", 1n]]);
    assert.equal(child.send(message), true);
    const [answer] = await event(child, "message");
    assert.deepEqual(answer, { message, isMap: serialization === "advanced", ...(serialization === "advanced" && { port: undefined }) });
    const stdout = text(child.stdout);
    // Node tells no 'close' after a disconnect of the parent's.
    const exited = event(child, "exit");
    child.disconnect();
    assert.equal(child.connected, false);
    assert.deepEqual(await exited, [0, null]);
    assert.equal(await stdout, "disconnected one,two --no-warnings\n");
  });
}

test("a server is handed over", async () => {
  const server = net.createServer().listen(0);
  await event(server, "listening");
  const child = fork(program(ECHO), { limit: "1Gi", silent: true });
  const { port } = server.address();
  child.send("server", server);
  const [answer] = await event(child, "message");
  assert.equal(answer.port, port);
  server.close();
  child.disconnect();
  await event(child, "exit");
});

test("a child that disconnects and ends is told of", async () => {
  const child = fork(program("process.send('on'); process.on('message', () => { process.disconnect(); process.exitCode = 5; });"), { limit: "1Gi" });
  await event(child, "message");
  const events = [event(child, "disconnect"), event(child, "exit")];
  child.send("go");
  assert.deepEqual(await Promise.all(events), [[], [5, null]]);
});

test("a fork that runs out of memory says so", async () => {
  const child = fork(program(`process.on("message", (mib) => { ${eats(0)}; const more = []; while (mib--) more.push(Buffer.alloc(1 << 20, 1)); process.send(more.length); })`), {
    limit: "120Mi",
    silent: true,
  });
  child.send(10);
  assert.deepEqual((await event(child, "message"))[0], 10);
  const told = event(child, "outOfMemory");
  child.send(300);
  assert.deepEqual(await event(child, "exit"), [198, null]);
  assert((await told)[0].report.limit === 120 << 20);
});

test("a thread that runs out of memory ends the forked child it is in", async () => {
  const source = `
    import { Worker, isMainThread, parentPort } from "node:worker_threads";
    if (isMainThread) {
      const workers = [1, 2, 3].map(() => new Worker(new URL(import.meta.url)));
      for (const worker of workers) worker.on("message", (message) => process.send(message));
      process.on("message", ({ to, mib }) => workers[to].postMessage(mib));
    } else {
      parentPort.on("message", (mib) => { const rows = []; while (mib--) rows.push(Buffer.alloc(1 << 20, 1)); parentPort.postMessage(rows.length); });
    }`;
  const child = fork(program(source), { limit: "250Mi", silent: true });
  for (const to of [0, 1, 2]) {
    child.send({ to, mib: 5 });
    assert.deepEqual((await event(child, "message"))[0], 5);
  }
  child.send({ to: 1, mib: 600 });
  assert.deepEqual(await event(child, "exit"), [198, null]);
  assert.equal(child.outcome.kind, "out_of_memory");
});

test("options that others pass on to fork", async () => {
  const child = child_process.fork(program(eats(300)), { ...oomguard.forkOptions({ limit: "100Mi", silent: true }) });
  assert.deepEqual(await event(child, "exit"), [198, null]);
});
