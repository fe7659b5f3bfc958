// The file that says which calls run and still says so after a kill; the layout is chimera_host/blackbox.py's.
//
// Records are written in place with pwrite: the pages belong to the kernel, so they survive this process.

import fs from "node:fs";
import path from "node:path";

const HEADER = 64, SLOT = 320, WORDS = 8192, HEARTBEAT = 24;

export class BlackBox {
  constructor(file, slots) {
    fs.mkdirSync(path.dirname(file), { recursive: true });
    this.fd = fs.openSync(file, fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_TRUNC, 0o600);
    fs.ftruncateSync(this.fd, HEADER + slots * SLOT + WORDS);
    const header = Buffer.alloc(HEADER);
    header.write("CHIMBOX1", 0, "latin1");
    header.writeUInt32LE(process.pid, 8);
    header.writeUInt32LE(slots, 12);
    header.writeDoubleLE(Date.now() / 1000, 16);
    header.writeDoubleLE(Date.now() / 1000, HEARTBEAT);
    fs.writeSync(this.fd, header, 0, HEADER, 0);
    this.free = Array.from({ length: slots }, (_, index) => slots - 1 - index);
  }

  begin(request) {
    const slot = this.free.pop();
    if (slot === undefined) return undefined;
    const now = Date.now() / 1000, record = Buffer.alloc(SLOT - 1);
    record.writeDoubleLE(now, 7);
    record.writeDoubleLE(now + request.deadline, 15);
    const texts = [[request.tenant, 64], [request.agent, 64], [request.call, 64], [request.revision, 72]];
    let offset = 23;
    for (const [text, size] of texts) {
      record.write(text, offset, size, "utf8");
      offset += size;
    }
    // The first byte says that the slot is in use: written last, so that a torn record is never taken for a call.
    fs.writeSync(this.fd, record, 0, record.length, HEADER + slot * SLOT + 1);
    fs.writeSync(this.fd, Buffer.from([1]), 0, 1, HEADER + slot * SLOT);
    return slot;
  }

  markCancelled(slot) {
    if (slot !== undefined) fs.writeSync(this.fd, Buffer.from([1]), 0, 1, HEADER + slot * SLOT + 1);
  }

  end(slot) {
    if (slot === undefined) return;
    fs.writeSync(this.fd, Buffer.from([0]), 0, 1, HEADER + slot * SLOT);
    this.free.push(slot);
  }

  beat() {
    const now = Buffer.alloc(8);
    now.writeDoubleLE(Date.now() / 1000);
    fs.writeSync(this.fd, now, 0, 8, HEARTBEAT);
  }
}
