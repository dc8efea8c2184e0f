"use strict";
// `run`, `spawn` and `fork` of child_process, under a memory limit.

const { CannotGuardError, EXIT_CANNOT_GUARD, EXIT_OUT_OF_MEMORY, OutOfMemoryError } = require("./lib/outcome.js");
const { launcher } = require("./lib/launcher.js");
const { fork, forkOptions, spawn } = require("./lib/spawn.js");
const { run } = require("./lib/run.js");

module.exports = {
  CannotGuardError,
  EXIT_CANNOT_GUARD,
  EXIT_OUT_OF_MEMORY,
  OutOfMemoryError,
  fork,
  forkOptions,
  launcher,
  run,
  spawn,
};
