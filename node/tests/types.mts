// What the types have to allow, and what not. Checked, never run.

import type { ChildProcess, ChildProcessWithoutNullStreams } from "node:child_process";
import type { Readable } from "node:stream";
import { CannotGuardError, OutOfMemoryError, fork, forkOptions, launcher, run, spawn, type Outcome, type Report } from "oomguard";

async function all(): Promise<void> {
  const done = await run("./report.sh", ["--year"], { limit: "512Mi", retries: 2, grow: 2, timeout: 1000 });
  const words: string = done.stdout;
  const bytes: Buffer = (await run("cat", { encoding: "buffer", input: words, limit: 1 << 20, maxLimit: "80%" })).stdout;
  const started = run("true");
  started.child.kill("SIGTERM");
  try {
    await run("true", null, { cwd: new URL("file:///"), env: { A: "b" }, shell: true, stdio: "inherit", maxBuffer: bytes.length });
  } catch (error) {
    if (error instanceof OutOfMemoryError) {
      const report: Report | null = error.report;
      const [limit, tries, code]: [number | null, number, number] = [error.limit, error.tries, error.code];
      console.log(report?.evidence, limit, tries, code);
    } else if (error instanceof CannotGuardError) {
      console.log(error.message);
    }
  }
}

const child: ChildProcessWithoutNullStreams = spawn("cat", ["file"], { limit: "1Gi", budget: "2Gi", hard: true });
child.stdin.end();
const streams = spawn("cat", [], { stdio: ["ignore", "pipe", "inherit"], limit: "auto" });
const stdout: Readable = streams.stdout;
const none: null = streams.stdin;
const inherits: ChildProcess = spawn("cat", { stdio: "inherit", limit: "off" });
const guarded = spawn("cat");
guarded.on("outOfMemory", (error) => console.log(error.report?.pid, error.tries));
guarded.on("exit", (code, signal) => console.log(code, signal, guarded.report));
const outcome: Outcome | null = guarded.outcome;

const forked: ChildProcess = fork(new URL("file:///worker.js"), ["word"], { limit: "400Mi", serialization: "advanced" });
forked.send({});
fork("./worker.js", { limit: "400Mi" }).once("outOfMemory", (error) => console.log(error.cmd));
const path: string = forkOptions({ limit: "400Mi", silent: true }).execPath;

// @ts-expect-error a limit is a number or a text
spawn("cat", { limit: true });
// @ts-expect-error there is no such option
spawn("cat", [], { limits: "1Gi" });
// @ts-expect-error of two measures none is this one
spawn("cat", [], { measure: "virtual" });

console.log(all, stdout, none, inherits, outcome, path, launcher());
