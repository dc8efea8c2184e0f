// The same objects as `require("oomguard")` gives, so that an error of the one is an error of the other.
import oomguard from "./index.js";

export const {
  CannotGuardError,
  EXIT_CANNOT_GUARD,
  EXIT_OUT_OF_MEMORY,
  OutOfMemoryError,
  fork,
  forkOptions,
  launcher,
  run,
  spawn,
} = oomguard;
