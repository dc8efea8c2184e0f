// What the tests start.

export const NODE = process.execPath;

/** What Node 18 has to be told (docs/node.md), as these tests are. */
export const FLAGS = process.execArgv.filter((word) => word === "--no-write-protect-code-memory");

/** Prints a word, and then takes so many MiB. */
export const eats = (mib, after = "") =>
  `process.stdout.write("begins\\n"); const rows = []; ` +
  `for (let i = 0; i < ${mib}; i += 1) rows.push(Buffer.alloc(1 << 20, 1)); console.log(rows.length); ${after}`;

export const KEYS = (
  "oomguard event cause pid tid program thread requested align limit limit_source measure address_space data resident " +
  "resident_peak heap_live heap_peak refusals exit_code uptime_ms token evidence own_exit_code own_signal budget " +
  "budget_used waited_ms"
).split(" ");

/** Returns the first arguments of an event, or rejects: however slow the machine is, it comes within a minute. */
export function event(emitter, name) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no '${name}' in a minute`)), 60_000);
    emitter.once(name, (...words) => {
      clearTimeout(timer);
      resolve(words);
    });
  });
}

/** Returns all that a stream brings. */
export async function text(stream) {
  let all = "";
  for await (const part of stream.setEncoding("utf8")) all += part;
  return all;
}
