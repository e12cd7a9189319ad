// What all Node.js clients share: one call a line on standard input, its outcome a line on standard
// output. `clock` moves the clock that the SDK sees, in seconds.
const readline = require('node:readline');

const RealDate = Date;
let offset = 0;
global.Date = class extends RealDate {
  constructor(...values) {
    if (values.length) super(...values);
    else super(RealDate.now() + offset);
  }
  static now() { return RealDate.now() + offset; }
};

// An API error as the SDK reports it; anything else thrown is trouble of transport or SDK.
class Refused extends Error {
  constructor(error, code, status, message, requestId) {
    super(message);
    Object.assign(this, { exception: error.name, code, status, requestId });
  }
}

async function serve(call) {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    let outcome;
    offset = (request.clock ?? 0) * 1000;
    try {
      outcome = { ok: true, response: await call(request) };
    } catch (error) {
      outcome = { ok: false, exception: error.exception ?? error.name, message: error.message };
      if (error instanceof Refused) {
        Object.assign(outcome, { code: error.code, status: error.status, request_id: error.requestId });
      }
    }
    offset = 0;
    process.stdout.write(`${JSON.stringify(outcome)}\n`);
  }
}

module.exports = { Refused, serve };
