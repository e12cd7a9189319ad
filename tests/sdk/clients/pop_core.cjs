// @alicloud/pop-core: the signature in the query, or in the form with POST.
const fs = require('node:fs');
const { RPCClient } = require('@alicloud/pop-core');
const { Refused, serve } = require('./lines.cjs');

serve(async (request) => {
  const client = new RPCClient({
    accessKeyId: request.key,
    accessKeySecret: request.secret,
    securityToken: request.token,
    endpoint: request.endpoint,
    apiVersion: request.version,
  });
  const options = { method: request.method ?? 'GET' };
  if (request.ca) options.ca = fs.readFileSync(request.ca);
  try {
    return await client.request(request.action, request.parameters, options);
  } catch (error) {
    if (!error.code || !error.data) throw error;
    const status = error.entry?.response?.statusCode;
    throw new Refused(error, error.code, status, error.data.Message, error.data.RequestId);
  }
});
