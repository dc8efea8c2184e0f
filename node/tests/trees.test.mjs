// Several processes: a budget that children share, cluster, and what others make of workers that ran out of memory.

import assert from "node:assert/strict";
import fs from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { forkOptions, run, spawn } from "oomguard";
import { FLAGS, NODE, eats, event } from "./programs.mjs";

const top = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const here = fs.mkdtempSync(path.join(top, "tests/trees-"));
after(() => fs.rmSync(here, { recursive: true }));
function program(name, source) {
  const file = path.join(here, name);
  fs.writeFileSync(file, source);
  return file;
}
const DEADLINE = { timeout: 60_000 };

test("children share the budget of the parent that is run with one", async () => {
  const parent = program(
    "parent.mjs",
    `import { run } from "oomguard";
     const [mib, children] = process.argv.slice(2).map(Number);
     const source = \`const rows = []; for (let i = 0; i < \${mib}; i += 1) rows.push(Buffer.alloc(1 << 20, 1));
       console.log("full"); process.stdin.resume().on("end", () => process.exit(0));\`;
     const all = Array.from({ length: children }, () => run(process.execPath, [...process.execArgv, "-e", source], { limit: "1Gi" }));
     let full = 0;
     const done = () => all.forEach((one) => one.child.stdin.end());
     for (const one of all) {
       one.child.stdout.on("data", () => (full += 1) === children && done());
       one.catch(() => {}).then(() => (full += 1) >= children && done());
     }
     const ended = await Promise.allSettled(all);
     console.log(JSON.stringify(ended.map(({ reason }) => reason ? [reason.name, reason.report?.limit_source, reason.report?.budget] : "ok")));`,
  );
  // Two with 60 MiB each have room beside the parent, and one with 500 MiB has not.
  const fits = await run(NODE, [...FLAGS, parent, "60", "2"], { budget: "600Mi", patience: "0", ...DEADLINE });
  assert.equal(fits.stdout, '["ok","ok"]\n');
  const [[name, source, budget]] = JSON.parse((await run(NODE, [...FLAGS, parent, "500", "1"], { budget: "300Mi", patience: "0", ...DEADLINE })).stdout);
  assert.deepEqual([name, source, budget], ["OutOfMemoryError", "budget", 300 << 20]);
});

test("a worker of cluster that runs out of memory is replaced, and the others go on", async () => {
  const server = program(
    "server.mjs",
    `import cluster from "node:cluster";
     import http from "node:http";
     if (cluster.isPrimary) {
       cluster.fork(); cluster.fork();
       const ends = [];
       cluster.on("exit", (worker, code) => { ends.push(code); if (code === 198) cluster.fork(); });
       let on = 0;
       cluster.on("listening", async (worker, { port }) => {
         on += 1;
         const get = (path) => fetch("http://127.0.0.1:" + port + path).then((answer) => answer.text(), () => "lost");
         if (on === 2) console.log(await get("/eat"));
         if (on === 3) {
           console.log(await get("/"), ends.join(), Object.keys(cluster.workers).length);
           process.exit(0);
         }
       });
     } else {
       http.createServer((request, response) => {
         if (request.url === "/eat") { const rows = []; for (let i = 0; i < 600; i += 1) rows.push(Buffer.alloc(1 << 20, 1)); }
         response.setHeader("connection", "close").end("served");
       }).listen(0);
     }`,
  );
  const done = await run(NODE, [...FLAGS, server], { limit: "200Mi", ...DEADLINE });
  assert.equal(done.stdout, "lost\nserved 198 2\n");
  assert.deepEqual(done.outcome.descendants.map((report) => [report.event, report.limit]), [["out_of_memory", 200 << 20]]);
});

const require = createRequire(import.meta.url);
const installed = (name) => {
  try {
    return require.resolve(`${name}/package.json`) !== "";
  } catch {
    return false;
  }
};

test("Jest names the test file that ate the memory, and the others pass", { skip: !installed("jest") && "no jest" }, async () => {
  fs.mkdirSync(path.join(here, "jest"));
  program("jest/package.json", '{ "private": true }');
  program("jest/small.test.js", 'test("small", () => expect(1).toBe(1));');
  program("jest/other.test.js", 'test("other", () => expect(1).toBe(1));');
  program("jest/large.test.js", `test("large", () => { ${eats(600)} expect(rows.length).toBe(600); });`);
  const words = ["--rootDir", path.join(here, "jest"), "--maxWorkers=2", "--silent"];
  const error = await run(path.join(top, "node_modules/.bin/jest"), words, { limit: "300Mi", ...DEADLINE }).catch((error) => error);
  // Jest ends a worker that begins to die: what it leaves with is told from outside, or is its own.
  assert([1, 198].includes(error.code), error);
  assert.match(error.stderr, /FAIL .*large\.test\.js/);
  assert.match(error.stderr, /PASS .*small\.test\.js/);
  assert.match(error.stderr, /PASS .*other\.test\.js/);
});

const redis = (process.env.PATH ?? "").split(":").some((at) => fs.existsSync(path.join(at, "redis-server")));

test("a job of BullMQ that runs out of memory fails alone", { skip: !(redis && installed("bullmq")) && "no redis-server or no bullmq" }, async () => {
  const socket = path.join(fs.mkdtempSync(path.join(os.tmpdir(), "oomguard-redis-")), "s");
  const server = spawn("redis-server", ["--port", "0", "--unixsocket", socket, "--save", ""], { limit: "500Mi", stdio: "ignore" });
  while (!fs.existsSync(socket)) await new Promise((resolve) => setTimeout(resolve, 20));
  const processor = program("processor.cjs", `module.exports = async (job) => { ${eats("job.data")} return rows.length; };`);
  const { Queue, QueueEvents, Worker } = require("bullmq");
  const connection = { path: socket, maxRetriesPerRequest: null };
  const queue = new Queue("work", { connection });
  const events = new QueueEvents("work", { connection });
  await events.waitUntilReady();
  const worker = new Worker("work", processor, { connection, concurrency: 2, workerForkOptions: forkOptions({ limit: "200Mi", silent: true }) });
  const jobs = await Promise.all([5, 600, 7, 8].map((mib) => queue.add("eat", mib)));
  const ended = await Promise.allSettled(jobs.map((job) => job.waitUntilFinished(events, 60_000)));
  const words = ended.map(({ value, reason }) => value ?? reason.message);
  await Promise.all([worker.close(), queue.close(), events.close()]);
  server.kill();
  await event(server, "exit");
  fs.rmSync(path.dirname(socket), { recursive: true });
  assert.deepEqual([words[0], words[2], words[3]], [5, 7, 8]);
  assert.match(words[1], /198/);
});
