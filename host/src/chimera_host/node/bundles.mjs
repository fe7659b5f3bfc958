// Unpacks a source bundle (tar in gzip) into a folder named by its digest, within the bounds of chimera_host/bundles.py.

import fs from "node:fs";
import path from "node:path";
import { createHash, randomUUID } from "node:crypto";
import { gunzipSync } from "node:zlib";

import { bundleRefused } from "./problem.mjs";

const FILES = 5000, TOTAL = 256 * 1024 * 1024, BLOCK = 512;

export function unpack(data, digest, folder) {
  const target = path.join(folder, digest.replace("sha256:", ""));
  if (fs.existsSync(target)) return target;
  if (`sha256:${createHash("sha256").update(data).digest("hex")}` !== digest)
    throw bundleRefused("the bundle's content is not what its digest says");
  let plain;
  try {
    plain = gunzipSync(data, { maxOutputLength: TOTAL + FILES * 2 * BLOCK });
  } catch (error) {
    throw bundleRefused(`the bundle can't be unpacked: ${error.message}`);
  }
  const draft = `${target}.${randomUUID()}`;
  fs.mkdirSync(draft, { recursive: true });
  try {
    extract(plain, draft);
    fs.renameSync(draft, target);
  } catch (error) {
    if (!fs.existsSync(target)) throw error; // otherwise another host was faster, with the same content
  } finally {
    fs.rmSync(draft, { recursive: true, force: true });
  }
  return target;
}

function extract(plain, draft) {
  let offset = 0, count = 0, total = 0;
  while (offset + BLOCK <= plain.length && plain[offset] !== 0) {
    const field = (start, length) => plain.toString("utf8", offset + start, offset + start + length).replace(/\0.*$/s, "");
    const size = parseInt(field(124, 12).trim() || "0", 8);
    const prefix = field(345, 155), name = prefix ? `${prefix}/${field(0, 100)}` : field(0, 100);
    const type = String.fromCharCode(plain[offset + 156]);
    count += 1;
    total += size;
    if (count > FILES || total > TOTAL || !(size >= 0) || offset + BLOCK + size > plain.length)
      throw bundleRefused("the bundle holds too much, or ends too early");
    const parts = name.split("/").filter((part) => part !== "");
    if (name.startsWith("/") || parts.length === 0 || parts.includes("..") || parts.includes(".") || /[\0\\]/.test(name))
      throw bundleRefused(`${JSON.stringify(name)} is not a name inside the bundle`);
    const place = path.join(draft, ...parts);
    if (type === "5") fs.mkdirSync(place, { recursive: true });
    else if (type === "0" || type === "\0") {
      fs.mkdirSync(path.dirname(place), { recursive: true });
      fs.writeFileSync(place, plain.subarray(offset + BLOCK, offset + BLOCK + size), { flag: "wx", mode: 0o600 });
    } else throw bundleRefused(`${JSON.stringify(name)} is neither a file nor a folder`);
    offset += BLOCK + Math.ceil(size / BLOCK) * BLOCK;
  }
}
