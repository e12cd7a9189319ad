// ACS3-HMAC-SHA256 in the browser. WebCrypto exists only in secure contexts (https, localhost);
// elsewhere a small implementation of SHA-256 takes its place.

export const VERSION = '2018-04-12';
export const ACTION = 'ListContainerImages';
const ALGORITHM = 'ACS3-HMAC-SHA256';

const utf8 = (text) => new TextEncoder().encode(text);
const hex = (bytes) => Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join('');

/** Percent-encodes everything but A-Z a-z 0-9 - _ . ~ */
export function encode(text) {
  return encodeURIComponent(text).replace(/[!'()*]/g, (c) => '%' + c.charCodeAt(0).toString(16).toUpperCase());
}

/** Parameters sorted by name, encoded, joined. */
export function canonicalQuery(parameters) {
  return [...parameters]
    .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
    .map(([name, value]) => `${encode(name)}=${encode(value)}`)
    .join('&');
}

const K = new Uint32Array(64);
const INITIAL = new Uint32Array(8);
{
  // Fractions of the cube and square roots of the first primes.
  const fraction = (x) => ((x - Math.floor(x)) * 0x100000000) >>> 0;
  let count = 0;
  for (let n = 2; count < 64; n++) {
    let prime = true;
    for (let d = 2; d * d <= n; d++) if (n % d === 0) prime = false;
    if (!prime) continue;
    if (count < 8) INITIAL[count] = fraction(Math.sqrt(n));
    K[count++] = fraction(Math.cbrt(n));
  }
}

/** SHA-256 without WebCrypto. */
export function plainSha256(bytes) {
  const length = bytes.length;
  const padded = new Uint8Array((((length + 8) >> 6) + 1) << 6);
  padded.set(bytes);
  padded[length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 8, Math.floor(length / 0x20000000));
  view.setUint32(padded.length - 4, (length << 3) >>> 0);
  const h = INITIAL.slice();
  const w = new Uint32Array(64);
  const rotate = (x, n) => (x >>> n) | (x << (32 - n));
  for (let at = 0; at < padded.length; at += 64) {
    for (let i = 0; i < 16; i++) w[i] = view.getUint32(at + 4 * i);
    for (let i = 16; i < 64; i++) {
      const s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ (w[i - 15] >>> 3);
      const s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ (w[i - 2] >>> 10);
      w[i] = (w[i - 16] + s0 + w[i - 7] + s1) | 0;
    }
    let [a, b, c, d, e, f, g, k] = h;
    for (let i = 0; i < 64; i++) {
      const s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
      const t1 = (k + s1 + ((e & f) ^ (~e & g)) + K[i] + w[i]) | 0;
      const s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      k = g; g = f; f = e; e = (d + t1) | 0;
      d = c; c = b; b = a; a = (t1 + t2) | 0;
    }
    [a, b, c, d, e, f, g, k].forEach((v, i) => { h[i] = (h[i] + v) | 0; });
  }
  const out = new Uint8Array(32);
  h.forEach((v, i) => new DataView(out.buffer).setUint32(4 * i, v));
  return out;
}

/** HMAC-SHA256 without WebCrypto. */
export function plainHmac(key, message) {
  const block = new Uint8Array(64);
  block.set(key.length > 64 ? plainSha256(key) : key);
  const pass = (pad, data) => {
    const joined = new Uint8Array(64 + data.length);
    block.forEach((b, i) => { joined[i] = b ^ pad; });
    joined.set(data, 64);
    return plainSha256(joined);
  };
  return pass(0x5c, pass(0x36, message));
}

const subtle = globalThis.crypto?.subtle;

async function sha256(bytes) {
  return subtle ? new Uint8Array(await subtle.digest('SHA-256', bytes)) : plainSha256(bytes);
}

async function hmac(key, message) {
  if (!subtle) return plainHmac(key, message);
  const imported = await subtle.importKey('raw', key, { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
  return new Uint8Array(await subtle.sign('HMAC', imported, message));
}

/** A nonce; getRandomValues exists in every context. */
export function nonce() {
  return hex(crypto.getRandomValues(new Uint8Array(16)));
}

/** The same request without a signature, for a server that checks none. */
export function unsigned(parameters) {
  const headers = { 'accept': 'application/json', 'x-acs-action': ACTION, 'x-acs-version': VERSION };
  return { query: canonicalQuery(parameters), headers };
}

/**
 * Signs a GET. `host` is what the browser will send; it cannot be set, only predicted.
 * Returns the query and the headers to send.
 */
export async function sign({ keyId, secret, token, host, parameters, date, nonce: once }) {
  const query = canonicalQuery(parameters);
  const bodyHash = hex(await sha256(new Uint8Array()));
  const headers = {
    'accept': 'application/json',
    'x-acs-action': ACTION,
    'x-acs-content-sha256': bodyHash,
    'x-acs-date': date,
    'x-acs-signature-nonce': once,
    'x-acs-version': VERSION,
  };
  if (token) {
    headers['x-acs-accesskey-id'] = keyId;
    headers['x-acs-security-token'] = token;
  }
  const signed = { ...headers, host };
  const names = Object.keys(signed).sort();
  const lines = names.map((name) => `${name}:${signed[name].trim()}\n`).join('');
  const request = ['GET', '/', query, lines, names.join(';'), bodyHash].join('\n');
  const text = `${ALGORITHM}\n${hex(await sha256(utf8(request)))}`;
  const signature = hex(await hmac(utf8(secret), utf8(text)));
  headers.Authorization = `${ALGORITHM} Credential=${keyId},SignedHeaders=${names.join(';')},Signature=${signature}`;
  return { query, headers };
}
