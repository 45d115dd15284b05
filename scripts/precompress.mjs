// Writes the compressed form of every file of a folder beside it, where that is worth it: node precompress.mjs FOLDER

import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { constants, gzipSync } from 'node:zlib';

const COMPRESSED_ALREADY = /\.(gz|png|jpe?g|webp|gif|woff2?|mp3|ogg|webm)$/;
const LEAST_BYTES = 1024;

const folder = process.argv[2];
let [plain, sent, wasm] = [0, 0, 0];
for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
  const path = join(entry.parentPath ?? entry.path, entry.name);
  if (!entry.isFile() || COMPRESSED_ALREADY.test(entry.name)) {
    continue;
  }
  const content = readFileSync(path);
  const small = gzipSync(content, { level: constants.Z_BEST_COMPRESSION });
  const worthIt = content.length >= LEAST_BYTES && small.length < content.length * 0.9;
  if (worthIt) {
    writeFileSync(`${path}.gz`, small);
  }
  const bytes = worthIt ? small.length : content.length;
  plain += content.length;
  sent += bytes;
  wasm += entry.name.endsWith('.wasm') ? bytes : 0;
}
const kib = bytes => `${Math.round(bytes / 1024)} KiB`;
console.log(`web client: ${kib(plain)}, compressed ${kib(sent)}, of that ${kib(wasm)} WebAssembly`);
