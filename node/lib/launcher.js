"use strict";
// The launcher, which a package of its own carries for each platform, and how it is told what to do.

const fs = require("node:fs");
const path = require("node:path");
const { checkLimit } = require("./limit.js");

/** Returns the path of the launcher: the one in the platform's package, else the first `oomguard` in PATH that is a program. */
function launcher() {
  const name = `oomguard-linux-${process.arch}`;
  try {
    return require.resolve(`${name}/bin/oomguard`);
  } catch {
    // In a source tree: a build of it. The script of this package would only come back here.
    for (const directory of (process.env.PATH || "").split(path.delimiter)) {
      const file = path.join(directory, "oomguard");
      if (isProgram(file)) return file;
    }
  }
  throw new Error(
    `the launcher is not installed: package ${name} is missing (was npm told to omit optional packages?), ` +
      "and there is no oomguard in PATH",
  );
}

function isProgram(file) {
  try {
    fs.accessSync(file, fs.constants.X_OK);
    const descriptor = fs.openSync(file, "r");
    try {
      const head = Buffer.alloc(4);
      fs.readSync(descriptor, head, 0, 4, 0);
      return head.toString("latin1") === "\x7fELF";
    } finally {
      fs.closeSync(descriptor);
    }
  } catch {
    return false;
  }
}

// What `oomguard run` can be told beside the limits and the retries, by our name of it.
const WORDS = ["measure", "patience", "exitCode", "onRefusal", "verdict", "stall", "report", "postmortem"];
const FLAGS = [
  "anyDescendant",
  "dieWithParent",
  "exitOnUncaught",
  "hard",
  "hints",
  "noInfer",
  "noInherit",
  "noPreload",
  "quiet",
];
const LIMITS = ["limit", "budget"];
const RETRY = ["retries", "grow", "maxLimit"];

/** Takes options apart: `guard` is for the launcher, `rest` for child_process. */
function takeOptions(options) {
  const guard = {};
  const rest = { ...options };
  for (const name of [...LIMITS, ...RETRY, ...WORDS, ...FLAGS]) {
    if (rest[name] !== undefined && rest[name] !== null) guard[name] = rest[name];
    delete rest[name];
  }
  if (rest.argv0 !== undefined) {
    throw new TypeError("argv0 cannot be had under a limit: the launcher gives a program its path as its own name");
  }
  checkGuard(guard);
  return { guard, rest };
}

function checkGuard(guard) {
  for (const name of [...LIMITS, "maxLimit"]) {
    if (guard[name] !== undefined) checkLimit(guard[name], name);
  }
  const { retries = 0, grow = 2 } = guard;
  if (!Number.isSafeInteger(retries) || retries < 0) {
    throw new RangeError(`retries is ${show(retries)}; accepted: 0, 1, 2 …`);
  }
  if (typeof grow !== "number" || !(grow > 1) || grow === Infinity) {
    throw new RangeError(`grow is ${show(grow)}; accepted: a number above 1`);
  }
  for (const name of WORDS) {
    if (guard[name] !== undefined && typeof guard[name] !== "string" && typeof guard[name] !== "number") {
      throw new TypeError(`${name} is ${show(guard[name])}; accepted: a string or a number`);
    }
  }
}

function show(value) {
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}

/** Returns what the launcher is to be called with, before the command. */
function launcherArguments(guard, jsonTo) {
  const words = ["run"];
  for (const name of [...LIMITS, ...WORDS]) {
    if (guard[name] !== undefined) words.push(`${optionOf(name)}=${guard[name]}`);
  }
  for (const name of FLAGS) {
    if (guard[name]) words.push(optionOf(name));
  }
  if (guard.retries) {
    for (const name of RETRY) {
      if (guard[name] !== undefined) words.push(`${optionOf(name)}=${guard[name]}`);
    }
  }
  if (jsonTo !== undefined) words.push(`--json=fd:${jsonTo}`);
  words.push("--");
  return words;
}

function optionOf(name) {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

module.exports = { launcher, launcherArguments, takeOptions };
