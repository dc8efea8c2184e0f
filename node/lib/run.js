"use strict";
// `run`: a promise as that of `promisify(execFile)`, for a command with a memory limit, and tried again with more.

const { launcher, takeOptions } = require("./launcher.js");
const { nextLimit } = require("./limit.js");
const { OutOfMemoryError } = require("./outcome.js");
const { spawn } = require("./spawn.js");

/**
 * Runs a command and resolves to what it printed. Rejects as `promisify(execFile)` does, and with OutOfMemoryError where the
 * last try ran out of memory.
 */
function run(command, args, options) {
  if (args !== undefined && args !== null && !Array.isArray(args)) [args, options] = [[], args];
  args ??= [];
  const { input, encoding = "utf8", maxBuffer = 1 << 20, timeout = 0, killSignal = "SIGTERM", ...others } = options ?? {};
  checkNumber(maxBuffer, "maxBuffer");
  checkNumber(timeout, "timeout");
  const { guard } = takeOptions(others);
  const { retries = 0, grow = 2, maxLimit } = guard;
  const cmd = [command, ...args].join(" ");
  const until = timeout > 0 ? Date.now() + timeout : Infinity;
  // Each try is a launcher of its own: what is captured is that of the last one, and each finds the same input.
  const once = { ...others, killSignal, retries: undefined, grow: undefined, maxLimit: undefined };
  const collected = { input, encoding: encoding === "buffer" ? null : encoding, maxBuffer, killSignal, cmd, until };

  // The first one starts at once, so that wrong arguments throw where they stand.
  const first = spawn(command, args, once);
  const promise = tryAll();
  promise.child = first;
  return promise;

  async function tryAll() {
    let child = first;
    for (let tries = 1; ; tries += 1) {
      const ended = await collect(child, collected);
      const { outcome, stdout, stderr } = ended;
      if (ended.error === null && outcome.isOutOfMemory) {
        const larger = tries <= retries ? await nextLimit(outcome.limit, grow, maxLimit, launcher()) : null;
        if (larger === null) {
          const { report, limit } = outcome;
          throw new OutOfMemoryError({ report, limit, tries, code: child.exitCode, cmd, outcome, stdout, stderr });
        }
        child = spawn(command, args, { ...once, limit: larger });
        promise.child = child;
        continue;
      }
      const error = ended.error ?? failure(child, cmd, ended);
      if (error !== null) throw Object.assign(error, { cmd: error.cmd ?? cmd, outcome, tries, stdout, stderr });
      return { stdout, stderr, code: 0, signal: null, outcome, limit: outcome.limit, tries };
    }
  }
}

function checkNumber(value, name) {
  if (typeof value !== "number" || !(value >= 0)) {
    throw Object.assign(new RangeError(`${name} is ${String(value)}; accepted: a number, 0 or above`), {
      code: "ERR_OUT_OF_RANGE",
    });
  }
}

// As execFile says it.
function failure(child, cmd, { stderr, wasKilled }) {
  const [code, signal] = [child.exitCode, child.signalCode];
  if (code === 0 && signal === null) return null;
  return Object.assign(new Error(`Command failed: ${cmd}\n${stderr}`), { code, killed: child.killed || wasKilled, signal });
}

/** Waits for the end, as execFile does: with its output, a largest size of that, and a time limit. */
function collect(child, { input, encoding, maxBuffer, killSignal, until }) {
  return new Promise((resolve) => {
    let error = null;
    let wasKilled = false;
    const stdout = collector(child.stdout, "stdout");
    const stderr = collector(child.stderr, "stderr");

    function collector(stream, name) {
      const parts = [];
      if (stream) {
        let length = 0;
        if (encoding !== null) stream.setEncoding(encoding);
        stream.on("data", (part) => {
          const size = encoding === null ? part.length : Buffer.byteLength(part, encoding);
          const left = maxBuffer - length;
          length += size;
          if (size <= left) {
            parts.push(part);
          } else if (left >= 0 && error === null) {
            parts.push(part.slice(0, left));
            error = Object.assign(new RangeError(`${name} maxBuffer length exceeded`), {
              code: "ERR_CHILD_PROCESS_STDIO_MAXBUFFER",
            });
            kill();
          }
        });
      }
      return () => (encoding === null ? Buffer.concat(parts) : parts.join(""));
    }

    function kill() {
      // Whoever else holds them is waited for no longer.
      child.stdout?.destroy();
      child.stderr?.destroy();
      wasKilled = true;
      try {
        child.kill(killSignal);
      } catch (cause) {
        error ??= cause;
        finish();
      }
    }

    const timer = until === Infinity ? null : setTimeout(kill, Math.min(Math.max(until - Date.now(), 0), 2 ** 31 - 1));

    function finish() {
      if (timer !== null) clearTimeout(timer);
      resolve({ error, wasKilled, outcome: child.outcome, stdout: stdout(), stderr: stderr() });
    }

    child.on("close", finish);
    child.on("error", (cause) => {
      error ??= cause;
      child.stdout?.destroy();
      child.stderr?.destroy();
      finish();
    });
    if (input !== undefined && input !== null && child.stdin) {
      // A command that does not read all of it is no error.
      child.stdin.on("error", () => {});
      child.stdin.end(input);
    }
  });
}

module.exports = { run };
