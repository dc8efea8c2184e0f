// Summarises a CSV of requests, all of it held in memory: an ordinary program that knows nothing of oomguard.

import { readFileSync } from "node:fs";

if (process.argv.length !== 3) {
  console.error("usage: worker.mjs INPUT");
  process.exit(2);
}
const [head, ...lines] = readFileSync(process.argv[2], "utf8").trimEnd().split("\n");
const names = head.split(",");
const rows = lines.map((line) => {
  const columns = line.split(",");
  return Object.fromEntries(names.map((name, index) => [name, columns[index]]));
});
const summaries = new Map();
for (const { service, millis } of rows) {
  const summary = summaries.get(service) ?? { requests: 0, millis: 0 };
  summary.requests += 1;
  summary.millis += Number(millis);
  summaries.set(service, summary);
}
for (const [service, { requests, millis }] of [...summaries].sort(([a], [b]) => (a < b ? -1 : 1))) {
  console.log(service, requests, millis);
}
