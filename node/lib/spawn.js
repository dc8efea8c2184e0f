"use strict";
// `spawn` and `fork`: child_process's, with the launcher before the command.
//
// How the command ended comes by a file that only the launcher writes to (`--json=fd:N`), and never from stderr, which is
// the command's. A file and no pipe: a pipe would keep 'close' waiting for whoever holds it below the command.

const child_process = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { fileURLToPath } = require("node:url");
const { launcher, launcherArguments, takeOptions } = require("./launcher.js");
const { CannotGuardError, OutOfMemoryError, openFileForOutcome, readAndClose, readOutcome } = require("./outcome.js");

/** As child_process.spawn, for a command with a memory limit. */
function spawn(command, ...given) {
  const [args, options] = split(given);
  if (typeof command !== "string" || command === "" || !Array.isArray(args) || !isOptions(options)) {
    // It says what is wrong as nobody else could.
    return child_process.spawn(command, ...given);
  }
  const { guard, rest } = takeOptions(options);
  let [file, words] = [command, args.map(String)];
  if (rest.shell) {
    [file, words] = [typeof rest.shell === "string" ? rest.shell : "/bin/sh", ["-c", [command, ...words].join(" ")]];
  }
  const stdio = stdioOf(rest.stdio, "pipe");
  return start({ command: file, args: words, guard, stdio, options: rest }, (program, before, streams) =>
    child_process.spawn(program, [...before, file, ...words], { ...rest, shell: false, stdio: streams }),
  );
}

/** As child_process.fork, for a Node program with a memory limit. */
function fork(modulePath, ...given) {
  const [args, options] = split(given);
  if (!Array.isArray(args) || !isOptions(options)) return child_process.fork(modulePath, ...given);
  const { guard, rest } = takeOptions(options);
  const command = rest.execPath || process.execPath;
  const stdio = stdioOf(rest.stdio, rest.silent ? "pipe" : "inherit", "ipc");
  const nodeArgs = rest.execArgv || ownExecArgv();
  const file = modulePath instanceof URL ? fileURLToPath(modulePath) : String(modulePath);
  return start({ command, args: [...nodeArgs, file, ...args], guard, stdio, options: rest }, (program, before, streams) =>
    child_process.fork(modulePath, args, {
      ...rest,
      execPath: program,
      execArgv: [...before, command, ...nodeArgs],
      stdio: streams,
    }),
  );
}

/**
 * Returns options for whoever passes them on to child_process.fork (BullMQ's workerForkOptions, jest-worker's forkOptions,
 * workerpool's forkOpts): what is forked has a memory limit.
 */
function forkOptions(options = {}) {
  const { guard, rest } = takeOptions(options);
  const node = rest.execPath || process.execPath;
  const nodeArgs = rest.execArgv || ownExecArgv();
  return { ...rest, execPath: launcher(), execArgv: [...launcherArguments(guard), node, ...nodeArgs] };
}

function split(given) {
  if (given[0] === undefined || given[0] === null) return [[], given[1] ?? {}];
  if (typeof given[0] === "object" && !Array.isArray(given[0])) return [[], given[0]];
  return [given[0], given[1] ?? {}];
}

function isOptions(options) {
  return typeof options === "object" && !Array.isArray(options);
}

// As child_process.fork takes its own: what `node -e` was given is for this process only.
function ownExecArgv() {
  const words = [...process.execArgv];
  const source = process._eval;
  const at = source === undefined || source === null ? -1 : words.lastIndexOf(source);
  if (at > 0) words.splice(at - 1, 2);
  return words;
}

/** Returns the streams as an array, to which one can be added; or as they are, where child_process has to say what is wrong. */
function stdioOf(stdio, otherwise, ...more) {
  if (stdio === undefined || stdio === null) stdio = otherwise;
  if (["ignore", "inherit", "overlapped", "pipe"].includes(stdio)) return [stdio, stdio, stdio, ...more];
  if (!Array.isArray(stdio)) return stdio;
  const streams = [...stdio];
  while (streams.length < 3) streams.push(undefined);
  return streams;
}

function start({ command, args, guard, stdio, options }, begin) {
  const streams = Array.isArray(stdio) ? stdio : [];
  const missing = whatIsMissing(command, options);
  const program = missing?.code ? NO_PROGRAM : launcher();
  const told = openFileForOutcome();
  let child;
  try {
    const before = launcherArguments(guard, streams.length);
    child = begin(program, before, Array.isArray(stdio) ? [...stdio, told] : stdio);
  } catch (error) {
    fs.closeSync(told);
    throw error;
  }
  child.spawnfile = command;
  child.spawnargs = [command, ...args];
  return watch(child, { command, args, missing, told });
}

// Nothing runs: child_process finds no such file, and says so in its own time.
const NO_PROGRAM = "/proc/self/no-such-program";

/** Returns what child_process would miss: a program, with the error's code, or the directory, of which it tells by itself. */
function whatIsMissing(command, options) {
  let directory = process.cwd();
  if (options.cwd !== undefined && options.cwd !== null) {
    try {
      directory = options.cwd instanceof URL ? fileURLToPath(options.cwd) : String(options.cwd);
      fs.accessSync(directory, fs.constants.X_OK);
    } catch {
      return { directory };
    }
  }
  const env = options.env ?? process.env;
  const places = command.includes("/") ? [""] : (env.PATH ?? "/bin:/usr/bin").split(":");
  // What another user may execute, that one has to find out.
  const mode = options.uid === undefined && options.gid === undefined ? fs.constants.X_OK : fs.constants.F_OK;
  let code = "ENOENT";
  for (const place of places) {
    const file = path.resolve(directory, place, command);
    try {
      if (fs.statSync(file).isFile()) {
        fs.accessSync(file, mode);
        return null;
      }
      code = "EACCES";
    } catch (error) {
      if (error.code === "EACCES") code = "EACCES";
    }
  }
  return { code };
}

function spawnError(command, args, code) {
  return Object.assign(new Error(`spawn ${command} ${code}`), {
    errno: -os.constants.errno[code],
    code,
    syscall: `spawn ${command}`,
    path: command,
    spawnargs: args,
  });
}

/** Makes the child say how the command ended, where child_process would say how the launcher did. */
function watch(child, { command, args, missing, told }) {
  child.outcome = null;
  child.report = null;
  const emit = child.emit;
  let isSettled = false;

  function settle() {
    isSettled = true;
    const line = readAndClose(told);
    const outcome = readOutcome(line, child.exitCode, child.signalCode);
    if (outcome.signal !== null && child.signalCode === null && ["signaled", "oom_killed"].includes(outcome.kind)) {
      child.exitCode = null;
      child.signalCode = outcome.signal;
    }
    child.outcome = outcome;
    child.report = outcome.report;
    return outcome;
  }

  function tell(event, ...words) {
    if (event === "exit" && !isSettled) {
      const outcome = settle();
      if (outcome.kind === "cannot_start") {
        const error = cannotStart(outcome, command, args, child.exitCode);
        if (error !== null) emit.call(child, "error", error);
      } else if (outcome.isOutOfMemory) {
        const { report, limit, tries } = outcome;
        const error = new OutOfMemoryError({ report, limit, tries, code: child.exitCode, cmd: [command, ...args].join(" ") });
        emit.call(child, "outOfMemory", Object.assign(error, { outcome }));
      }
    }
    if (event === "exit" || event === "close") {
      if (event === "close" && !isSettled) closeUnread();
      if (child.pid === undefined && missing?.code) child.exitCode = -os.constants.errno[missing.code];
      words = [child.exitCode, child.signalCode];
    }
    if (event === "error" && typeof words[0]?.syscall === "string" && words[0].syscall.startsWith("spawn") && child.pid === undefined) {
      if (!isSettled) closeUnread();
      if (missing !== null) words = [spawnError(command, args, missing.code ?? words[0].code)];
    }
    return emit.call(child, event, ...words);
  }

  function closeUnread() {
    isSettled = true;
    fs.closeSync(told);
  }

  // Of this child alone; not enumerable, as the method is not.
  Object.defineProperty(child, "emit", { value: tell, configurable: true, writable: true });
  return child;
}

function cannotStart(outcome, command, args, code) {
  if (code === 127) return spawnError(command, args, "ENOENT");
  if (code === 126) return spawnError(command, args, "EACCES");
  return new CannotGuardError(outcome.error ?? "the launcher could not do its job; see stderr", { code, outcome });
}

module.exports = { fork, forkOptions, spawn };
