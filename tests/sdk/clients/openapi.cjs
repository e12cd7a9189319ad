// @alicloud/openapi-client and its successor @alicloud/openapi-core: the generic call, which is all there
// is for this product on Node.js.
const fs = require('node:fs');
const { Refused, serve } = require('./lines.cjs');

const core = require('@alicloud/openapi-core');
const old = require('@alicloud/openapi-client');
const { RuntimeOptions } = require('@alicloud/tea-util');
const LIBRARIES = {
  client: { ...old, Client: old.default, runtime: () => new RuntimeOptions({}) },
  core: { ...core.$OpenApiUtil, Client: core.default, runtime: () => new RuntimeOptions({}) },
};

serve(async (request) => {
  const { Client, Config, Params, OpenApiRequest, runtime } = LIBRARIES[request.library];
  const [scheme, address] = request.endpoint.split('://');
  const client = new Client(new Config({
    accessKeyId: request.key,
    accessKeySecret: request.secret,
    securityToken: request.token,
    type: request.token ? 'sts' : 'access_key',
    endpoint: address,
    protocol: scheme,
    ca: request.ca ? fs.readFileSync(request.ca, 'utf8') : undefined,
    // The SDK's name for the signature in the query.
    signatureAlgorithm: request.algorithm,
  }));
  const params = new Params({
    action: request.action,
    version: request.version,
    protocol: scheme.toUpperCase(),
    pathname: '/',
    method: request.method ?? 'POST',
    authType: 'AK',
    style: 'RPC',
    reqBodyType: 'formData',
    bodyType: 'json',
  });
  const values = Object.fromEntries(Object.entries(request.parameters).map(([name, value]) => [name, String(value)]));
  const call = new OpenApiRequest({ [request.style === 'body' ? 'body' : 'query']: values });
  try {
    return (await client.callApi(params, call, runtime())).body;
  } catch (error) {
    const status = error.statusCode ?? error.data?.statusCode;
    if (!error.code || !status) throw error;
    throw new Refused(error, error.code, status, error.message, error.requestId ?? error.data?.RequestId);
  }
});
