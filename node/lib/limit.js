"use strict";
// How limits are written, and what they come to: the same grammar as the launcher's and the environment's.

const { execFile } = require("node:child_process");
const { promisify } = require("node:util");

const UNITS = { K: 1000, k: 1000, M: 1000 ** 2, G: 1000 ** 3, T: 1000 ** 4 };
const BINARY_UNITS = { K: 1024, k: 1024, M: 1024 ** 2, G: 1024 ** 3, T: 1024 ** 4 };
const SIZE = /^([0-9]+(?:\.[0-9]+)?)([kKMGT])(i?)B?$/;
const PERCENT = /^([0-9]+(?:\.[0-9]+)?)%$/;
const MOST = 2n ** 64n - 1n;

const ACCEPTED =
  'accepted: bytes (536870912), "512M" (powers of 1000), "512Mi" (powers of 1024), "80%" (of the container\'s limit), ' +
  '"auto" (90 % of it), "off"';

/** Throws TypeError or RangeError where it is no limit. */
function checkLimit(limit, what) {
  if (typeof limit !== "string" && typeof limit !== "number" && typeof limit !== "bigint") {
    throw new TypeError(`${what} is ${String(limit)}; ${ACCEPTED}`);
  }
  if (!isLimit(String(limit))) {
    throw new RangeError(`${what} is ${typeof limit === "string" ? JSON.stringify(limit) : limit}; ${ACCEPTED}`);
  }
}

function isLimit(text) {
  if (text === "auto" || text === "off") return true;
  if (/^[0-9]+$/.test(text)) return BigInt(text) > 0n && BigInt(text) <= MOST;
  const bytes = sizeOf(text);
  if (bytes !== null) return bytes >= 1 && bytes <= Number(MOST);
  const share = PERCENT.exec(text);
  return share !== null && Number(share[1]) > 0 && Number(share[1]) <= 100;
}

function sizeOf(text) {
  const size = SIZE.exec(text);
  return size === null ? null : Math.floor(Number(size[1]) * (size[3] ? BINARY_UNITS : UNITS)[size[2]]);
}

/** Returns the limit of the next try, or null where more cannot be had. */
async function nextLimit(limit, grow, maxLimit, launcher) {
  if (limit === null) return null;
  const larger = Math.min(Math.floor(limit * grow), await bytesOf(maxLimit, launcher));
  return larger > limit ? larger : null;
}

/** Returns the bytes of a largest limit; without one, 90 % of the container's limit, or the machine's memory. */
async function bytesOf(limit, launcher) {
  const text = limit === undefined ? "auto" : String(limit);
  if (text === "off") return Infinity;
  if (/^[0-9]+$/.test(text)) return Number(text);
  const bytes = sizeOf(text);
  if (bytes !== null) return bytes;
  // Only the launcher knows how containers are asked.
  const { stdout } = await promisify(execFile)(launcher, ["doctor", "--json"]).catch((error) => error);
  const { container, machine } = JSON.parse(stdout);
  if (text === "auto") return container.limit === null ? machine.memory : Math.floor(container.limit * 0.9);
  return Math.floor(((container.limit ?? machine.memory) * Number(PERCENT.exec(text)[1])) / 100);
}

/** Returns a size for people, as the reports write it: `512 MiB`. */
function size(count) {
  for (const [unit, name] of [
    [2 ** 30, "GiB"],
    [2 ** 20, "MiB"],
    [2 ** 10, "KiB"],
  ]) {
    if (count >= 10 * unit || (count >= unit && count % unit === 0)) {
      return `${count % unit === 0 ? count / unit : (count / unit).toFixed(1)} ${name}`;
    }
  }
  return `${count} bytes`;
}

module.exports = { checkLimit, nextLimit, size };
