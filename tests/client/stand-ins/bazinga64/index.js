'use strict';

const utf8 = new TextEncoder();

const bytesOf = data => {
  if (typeof data === 'string') {
    return utf8.encode(data);
  }
  if (ArrayBuffer.isView(data)) {
    return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  }
  return new Uint8Array(data);
};

const bufferOf = data => {
  const bytes = bytesOf(data);
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
};

/** Text or bytes → Base64. */
const Encoder = {
  toBase64: data => {
    const asString = bufferOf(data).toString('base64');
    return { asString, asBytes: utf8.encode(asString) };
  },
};

/** Base64 → bytes. */
const Decoder = {
  fromBase64: text => {
    const buffer = Buffer.from(typeof text === 'string' ? text : bufferOf(text).toString('latin1'), 'base64');
    return { asString: buffer.toString('utf8'), asBytes: new Uint8Array(buffer) };
  },
};

const Converter = {
  stringToArrayBufferViewUTF8: text => utf8.encode(text),
  arrayBufferViewToStringUTF8: bytes => bufferOf(bytes).toString('utf8'),
  arrayBufferViewToBaselineString: bytes => bufferOf(bytes).toString('latin1'),
  baselineStringToArrayBufferView: text => new Uint8Array(Buffer.from(text, 'latin1')),
};

module.exports = { Converter, Decoder, Encoder };
