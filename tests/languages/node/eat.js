// Ways of a Node program to meet the end of its memory: node eat.js WAY [CODE].
"use strict";

const code = Number(process.argv[3] ?? 0);

function eatBuffers() {
  const held = [];
  for (;;) held.push(Buffer.alloc(1 << 20, 7));
}

// Leaves V8 itself the room to throw.
function eatLargeBuffers() {
  const held = [];
  for (;;) held.push(Buffer.alloc(64 << 20, 7));
}

function eatHeap() {
  const held = [];
  for (;;) held.push(new Array(1000).fill(held.length).map((i) => ({ i, name: "node" + i })));
}

function work() {
  const table = new Map();
  for (let i = 0; i < 4000; i++) table.set(String(i % 100), Buffer.alloc(16 << 10, i % 256));
  let sum = 0;
  for (const [name, block] of table) sum += name.length + block[0];
  return sum;
}

const ways = {
  buffers: eatBuffers,
  "large-buffers": eatLargeBuffers,
  heap: eatHeap,
  worker() {
    const { Worker } = require("node:worker_threads");
    new Worker(`(${eatBuffers})()`, { eval: true, resourceLimits: { maxOldGenerationSizeMb: 4096 } });
  },
  rejected() {
    Promise.resolve().then(eatLargeBuffers);
  },
  caught() {
    try {
      eatLargeBuffers();
    } catch (error) {
      console.error(`eat: ${error.message}`);
      process.exit(1);
    }
  },
  // At its very limit V8 dies of its own next collection: what can be recovered from is a request that is too large.
  recover() {
    try {
      Buffer.alloc(2 ** 31);
      process.exit(77);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
    }
    console.log("recovered", work());
    process.exit(code);
  },
  own() {
    console.log("own", work());
    process.exit(code);
  },
};

require("node:fs").writeSync(1, `pid ${process.pid}\n`);
ways[process.argv[2]]();
