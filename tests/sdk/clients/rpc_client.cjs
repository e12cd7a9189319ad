// @alicloud/rpc-client, between pop-core and openapi-client: the signature in the query, also with a form.
const { default: Client, Config } = require('@alicloud/rpc-client');
const { RuntimeOptions } = require('@alicloud/tea-util');
const { Refused, serve } = require('./lines.cjs');

serve(async (request) => {
  const [scheme, address] = request.endpoint.split('://');
  const client = new Client(new Config({
    accessKeyId: request.key,
    accessKeySecret: request.secret,
    securityToken: request.token,
    type: request.token ? 'sts' : 'access_key',
    endpoint: address,
    protocol: scheme,
    regionId: 'cn-hangzhou',
  }));
  const values = Object.fromEntries(Object.entries(request.parameters).map(([name, value]) => [name, String(value)]));
  const [query, body] = request.style === 'body' ? [{}, values] : [values, {}];
  try {
    return await client.doRequest(
      request.action, scheme.toUpperCase(), request.method ?? 'POST', request.version, 'AK', query, body, new RuntimeOptions({}),
    );
  } catch (error) {
    if (!error.code || !error.data?.Code) throw error;
    // It writes "Error" behind every code.
    throw new Refused(error, error.code.replace(/Error$/, ''), undefined, error.data.Message, error.data.RequestId);
  }
});
