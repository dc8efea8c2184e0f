"use strict";
// How a command ended, and the errors that say so.

const fs = require("node:fs");
const os = require("node:os");
const { size } = require("./limit.js");

/** The exit code that means out of memory, unless OOMGUARD_EXIT_CODE says otherwise. */
const EXIT_OUT_OF_MEMORY = 198;
/** The exit code of a guard or launcher that could not do its job. */
const EXIT_CANNOT_GUARD = 125;

/** A command reached its own memory limit and could not go on. */
class OutOfMemoryError extends Error {
  constructor({ report = null, limit = null, tries = 1, code = EXIT_OUT_OF_MEMORY, ...more } = {}) {
    super(message(report, limit, tries));
    Object.assign(this, { report, limit, tries, code, ...more });
  }
}
// Not enumerable, as those of Error's own kinds are not.
Object.defineProperty(OutOfMemoryError.prototype, "name", { value: "OutOfMemoryError", configurable: true, writable: true });

/** The launcher could not do its job: nothing ran, or the limit was too small to start with. */
class CannotGuardError extends Error {
  constructor(text, more = {}) {
    super(text);
    Object.assign(this, { code: EXIT_CANNOT_GUARD, ...more });
  }
}
Object.defineProperty(CannotGuardError.prototype, "name", { value: "CannotGuardError", configurable: true, writable: true });

function message(report, limit, tries) {
  let line = report ? headline(report) : "out of memory";
  if (limit !== null && !(report && report.limit)) line += `; limit ${size(limit)}`;
  return tries === 1 ? line : `${line}; ${tries} tries`;
}

const CAUSES = {
  thread: " could not start a thread",
  stack: " could not grow its stack",
  resident: " went over its limit, with memory that it had mapped before",
  asked_to_leave: " was asked to leave, before the container overflowed",
};

/** Returns what a report says, in one line without its prefix. */
function headline(report) {
  let line = `out of memory: ${report.program} (pid ${report.pid})`;
  if (report.token) line += ` at ${report.token}`;
  if (report.thread) line += ` in thread ${report.thread}`;
  line += CAUSES[report.cause] ?? " could not go on";
  if (report.requested !== null) line += ` without ${report.requested} bytes more`;
  if (report.limit !== null) line += `; limit ${size(report.limit)} of ${String(report.measure).replace(/_/g, "-")}`;
  return line;
}

/** Returns the outcome that the launcher told; where it was killed before it could, what its own end says. */
function readOutcome(line, code, signal) {
  let told = null;
  try {
    told = JSON.parse(line);
  } catch {
    // It told nothing.
  }
  if (told === null || typeof told !== "object") {
    const kind = signal !== null ? "signaled" : code === 0 ? "success" : code === EXIT_CANNOT_GUARD ? "cannot_start" : "exited";
    told = { outcome: kind, exit_code: code };
  } else {
    signal = told.signal ? signalName(told.signal) : null;
  }
  return {
    kind: told.outcome,
    isOutOfMemory: told.outcome === "out_of_memory",
    exitCode: told.exit_code ?? null,
    signal,
    report: told.report ?? null,
    limit: told.limit ?? null,
    measure: told.measure ?? null,
    pid: told.pid ?? null,
    tries: told.tries ?? 1,
    error: told.error ?? null,
    residentPeak: told.resident_peak ?? null,
    ranForMs: told.ran_for_ms ?? null,
    refusals: told.refusals ?? null,
    descendants: told.descendants ?? [],
  };
}

// Of several names of a number, the first is the one that child_process says. Real-time signals have none.
const SIGNAL_NAMES = new Map(Object.entries(os.constants.signals).reverse().map(([name, number]) => [number, name]));
SIGNAL_NAMES.set(os.constants.signals.SIGIO, "SIGIO");

function signalName(number) {
  return SIGNAL_NAMES.get(number) ?? null;
}

/** Returns the descriptor of a file that is nobody's but ours and goes with its last descriptor. */
function openFileForOutcome() {
  const descriptor = openNamelessFile();
  // The launcher opens it once more, and may be another user's (`uid`). Who has not been given it finds it by no name.
  fs.fchmodSync(descriptor, 0o666);
  return descriptor;
}

function openNamelessFile() {
  const { O_RDWR, O_CREAT, O_EXCL, O_DIRECTORY } = fs.constants;
  // Not among node's constants.
  const O_TMPFILE = 0o20000000 | O_DIRECTORY;
  let failure;
  // In memory first: a container's own file system may be read-only.
  for (const directory of ["/dev/shm", os.tmpdir(), process.cwd()]) {
    try {
      return fs.openSync(directory, O_RDWR | O_TMPFILE, 0o600);
    } catch {
      // A file system that does not know it, or that cannot be written.
    }
    const name = `${directory}/.oomguard-${process.pid}-${process.hrtime.bigint()}`;
    try {
      const descriptor = fs.openSync(name, O_RDWR | O_CREAT | O_EXCL, 0o600);
      fs.unlinkSync(name);
      return descriptor;
    } catch (error) {
      failure ??= error;
    }
  }
  throw failure;
}

/** Returns what was written to the file, and closes it. */
function readAndClose(descriptor) {
  try {
    const text = Buffer.alloc(fs.fstatSync(descriptor).size);
    // From its beginning, wherever the launcher's writing left it.
    const length = fs.readSync(descriptor, text, 0, text.length, 0);
    return text.toString("utf8", 0, length);
  } catch {
    return "";
  } finally {
    fs.closeSync(descriptor);
  }
}

module.exports = {
  CannotGuardError,
  EXIT_CANNOT_GUARD,
  EXIT_OUT_OF_MEMORY,
  OutOfMemoryError,
  openFileForOutcome,
  readAndClose,
  readOutcome,
};
