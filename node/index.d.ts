import {
  ChildProcess,
  ChildProcessByStdio,
  ChildProcessWithoutNullStreams,
  ForkOptions,
  SpawnOptions,
  SpawnOptionsWithoutStdio,
  SpawnOptionsWithStdioTuple,
  StdioNull,
  StdioPipe,
} from "node:child_process";
import { Readable, Writable } from "node:stream";

/** Bytes, `"512M"` (powers of 1000), `"512Mi"` (powers of 1024), `"80%"` of the container's limit, `"auto"` (90 % of it), `"off"`. */
export type Limit = number | bigint | string;

/** What is said beside child_process's own options. All but the first five are as the options of `oomguard run`. */
export interface GuardOptions {
  /** The most that each process of the command may use. Default: `OOMGUARD_LIMIT`, else `"auto"`. */
  limit?: Limit | undefined;
  /** What the command and all that it starts may use together. */
  budget?: Limit | undefined;
  /** How often the command is started again when it ran out of memory. Default: 0. */
  retries?: number | undefined;
  /** What the limit is multiplied by for each retry; above 1. Default: 2. */
  grow?: number | undefined;
  /** The largest limit to retry with. Default: 90 % of the container's limit, or the machine's memory. */
  maxLimit?: Limit | undefined;
  /** What the limit counts. Default: `"resident"`. */
  measure?: "resident" | "data" | "address-space" | undefined;
  /** How long a request in a budget waits for others: `"0"`, `"500ms"`, `"5s"`. */
  patience?: string | undefined;
  /** The exit code that means out of memory. Default: 198. */
  exitCode?: number | undefined;
  onRefusal?: "deferred" | "immediate" | undefined;
  verdict?: "likely" | "exact" | undefined;
  stall?: string | undefined;
  /** Where reports go as well: a file's path, or `"fd:N"`. */
  report?: string | undefined;
  /** A directory that keeps what is left of each death. */
  postmortem?: string | undefined;
  anyDescendant?: boolean | undefined;
  dieWithParent?: boolean | undefined;
  exitOnUncaught?: boolean | undefined;
  hard?: boolean | undefined;
  hints?: boolean | undefined;
  noInfer?: boolean | undefined;
  noInherit?: boolean | undefined;
  noPreload?: boolean | undefined;
  quiet?: boolean | undefined;
}

/** The report: one for each process that ran out of memory. `null` where a number is not known. */
export interface Report {
  oomguard: number;
  event: "out_of_memory";
  cause: "heap" | "stack" | "thread" | "mapping" | "injected" | "resident" | "asked_to_leave" | (string & {});
  pid: number;
  tid: number | null;
  program: string | null;
  thread: string | null;
  requested: number | null;
  align: number | null;
  limit: number | null;
  limit_source: "environment" | "source" | "cgroup" | "rlimit" | "budget" | "changed" | (string & {}) | null;
  measure: "address_space" | "data" | "resident" | (string & {}) | null;
  address_space: number | null;
  data: number | null;
  resident: number | null;
  resident_peak: number | null;
  heap_live: number | null;
  heap_peak: number | null;
  refusals: number | null;
  exit_code: number;
  uptime_ms: number | null;
  token: string | null;
  evidence: "exact" | "fault" | "said" | "missing" | "straight" | "outside" | (string & {});
  own_exit_code: number | null;
  own_signal: number | null;
  budget: number | null;
  budget_used: number | null;
  waited_ms: number | null;
  [key: string]: unknown;
}

/** How a command ended, as the launcher saw it. */
export interface Outcome {
  /** `oom_killed`: by the kernel. `cannot_start`: nothing ran, and `error` says why. */
  kind: "success" | "out_of_memory" | "oom_killed" | "exited" | "signaled" | "cannot_start";
  isOutOfMemory: boolean;
  exitCode: number | null;
  signal: NodeJS.Signals | null;
  report: Report | null;
  /** The limit of the last try, in bytes. */
  limit: number | null;
  measure: string | null;
  /** The command's; `child.pid` is the launcher's, which passes every signal on. */
  pid: number | null;
  tries: number;
  error: string | null;
  residentPeak: number | null;
  ranForMs: number | null;
  refusals: number | null;
  /** The reports of those below the command that ran out of memory. */
  descendants: Report[];
}

/** A command reached its own memory limit and could not go on. */
export class OutOfMemoryError<Output extends string | Buffer = string> extends Error {
  constructor(of?: { report?: Report | null; limit?: number | null; tries?: number; code?: number });
  readonly name: "OutOfMemoryError";
  report: Report | null;
  /** The limit of the last try, in bytes. */
  limit: number | null;
  tries: number;
  /** The exit code: 198, unless another one was chosen. */
  code: number;
  cmd?: string;
  outcome?: Outcome;
  /** What `run` captured of the last try. */
  stdout?: Output;
  stderr?: Output;
}

/** The launcher could not do its job: nothing ran, or the limit was too small to start with. */
export class CannotGuardError extends Error {
  constructor(message: string);
  readonly name: "CannotGuardError";
  code: number;
  outcome?: Outcome;
}

/** What a child has beside child_process's own. */
export interface Guarded {
  /** How the command ended; null until `'exit'`. */
  readonly outcome: Outcome | null;
  /** The report of a command that ran out of memory. */
  readonly report: Report | null;
  /** Emitted before `'exit'`. */
  on(event: "outOfMemory", listener: (error: OutOfMemoryError) => void): this;
  once(event: "outOfMemory", listener: (error: OutOfMemoryError) => void): this;
}

/** As child_process.spawn, for a command with a memory limit. */
export function spawn(command: string, options?: SpawnOptionsWithoutStdio & GuardOptions): ChildProcessWithoutNullStreams & Guarded;
export function spawn<
  I extends StdioNull | StdioPipe,
  O extends StdioNull | StdioPipe,
  E extends StdioNull | StdioPipe,
>(command: string, options: SpawnOptionsWithStdioTuple<I, O, E> & GuardOptions): Streams<I, O, E> & Guarded;
export function spawn(command: string, options: SpawnOptions & GuardOptions): ChildProcess & Guarded;
export function spawn(
  command: string,
  args?: readonly string[],
  options?: SpawnOptionsWithoutStdio & GuardOptions,
): ChildProcessWithoutNullStreams & Guarded;
export function spawn<
  I extends StdioNull | StdioPipe,
  O extends StdioNull | StdioPipe,
  E extends StdioNull | StdioPipe,
>(command: string, args: readonly string[], options: SpawnOptionsWithStdioTuple<I, O, E> & GuardOptions): Streams<I, O, E> & Guarded;
export function spawn(command: string, args: readonly string[], options: SpawnOptions & GuardOptions): ChildProcess & Guarded;

type Streams<I, O, E> = ChildProcessByStdio<
  I extends StdioPipe ? Writable : null,
  O extends StdioPipe ? Readable : null,
  E extends StdioPipe ? Readable : null
>;

/** As child_process.fork, for a Node program with a memory limit. */
export function fork(modulePath: string | URL, options?: ForkOptions & GuardOptions): ChildProcess & Guarded;
export function fork(
  modulePath: string | URL,
  args?: readonly string[],
  options?: ForkOptions & GuardOptions,
): ChildProcess & Guarded;

/**
 * Returns options for whoever passes them on to child_process.fork (BullMQ's workerForkOptions, jest-worker's forkOptions,
 * workerpool's forkOpts): what is forked has a memory limit.
 */
export function forkOptions<T extends ForkOptions>(
  options?: T & GuardOptions,
): Omit<T, keyof GuardOptions | "execPath" | "execArgv"> & { execPath: string; execArgv: string[] };

export interface RunOptions extends GuardOptions, Omit<SpawnOptions, "argv0" | "detached"> {
  /** What the command reads from its stdin, in each try. */
  input?: string | NodeJS.ArrayBufferView | undefined;
  /** Default: `"utf8"`. With `"buffer"`, what was captured are Buffers. */
  encoding?: BufferEncoding | "buffer" | null | undefined;
  /** The most that is captured of stdout, and of stderr. Default: 1 MiB. */
  maxBuffer?: number | undefined;
  /** Of all tries together, in milliseconds. */
  timeout?: number | undefined;
}

export interface RunResult<Output extends string | Buffer = string> {
  stdout: Output;
  stderr: Output;
  code: 0;
  signal: null;
  outcome: Outcome;
  /** The limit of the last try, in bytes. */
  limit: number | null;
  tries: number;
}

export interface RunPromise<Output extends string | Buffer = string> extends Promise<RunResult<Output>> {
  /** The child of the try that runs. */
  child: ChildProcess & Guarded;
}

/**
 * Runs a command and resolves to what it printed.
 *
 * Rejects with OutOfMemoryError where the last try ran out of memory, with CannotGuardError where the launcher could not do
 * its job, and else as `promisify(child_process.execFile)`: where the exit code is not 0, a signal ended it, it could not be
 * found, took too long or printed too much.
 */
export function run(
  command: string,
  args: readonly string[] | null | undefined,
  options: RunOptions & { encoding: "buffer" | null },
): RunPromise<Buffer>;
export function run(command: string, options: RunOptions & { encoding: "buffer" | null }): RunPromise<Buffer>;
export function run(
  command: string,
  args?: readonly string[] | null,
  options?: RunOptions & { encoding?: BufferEncoding | undefined },
): RunPromise;
export function run(command: string, options?: RunOptions & { encoding?: BufferEncoding | undefined }): RunPromise;

/** Returns the path of the launcher. */
export function launcher(): string;

/** The exit code that means out of memory, unless another one was chosen. */
export const EXIT_OUT_OF_MEMORY: 198;
/** The exit code of a guard or launcher that could not do its job. */
export const EXIT_CANNOT_GUARD: 125;
