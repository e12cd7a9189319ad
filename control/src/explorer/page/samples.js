// Sample code for the request on the page. Key and secret always come from the environment.

import { ACTION, VERSION, canonicalQuery } from './signature.js';

const quoted = (text) => JSON.stringify(text).replace(/[\u007f-\uffff]/g, (c) => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'));
const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
/** A number where it is one: what the SDKs expect; otherwise the text as typed. */
const numeric = (text) => (/^-?(0|[1-9]\d{0,14})$/.test(text) ? text : quoted(text));

const PYTHON_NAMES = { ClusterId: 'cluster_id', ContainerType: 'container_type', PageNumber: 'page_number', PageSize: 'page_size' };
const NUMBERS = new Set(['PageNumber', 'PageSize']);
const value = ([name, text]) => (NUMBERS.has(name) ? numeric(text) : quoted(text));

function python({ scheme, host, parameters }) {
  const request = parameters.map((p) => `    ${PYTHON_NAMES[p[0]]}=${value(p)},\n`).join('');
  return `# pip install alibabacloud-ehpc20180412==3.0.2
# Set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET.
import json
import os

from alibabacloud_ehpc20180412.client import Client
from alibabacloud_ehpc20180412.models import ListContainerImagesRequest
from alibabacloud_tea_openapi.models import Config

client = Client(Config(
    access_key_id=os.environ["ALIBABA_CLOUD_ACCESS_KEY_ID"],
    access_key_secret=os.environ["ALIBABA_CLOUD_ACCESS_KEY_SECRET"],
    security_token=os.environ.get("ALIBABA_CLOUD_SECURITY_TOKEN"),
    endpoint=${quoted(host)},
    protocol=${quoted(scheme)},
))
reply = client.list_container_images(ListContainerImagesRequest(
${request}))
print(json.dumps(reply.body.to_map(), indent=2, ensure_ascii=False))
`;
}

function node({ scheme, host, parameters }) {
  const request = parameters.map((p) => `  ${p[0]}: ${value(p)},\n`).join('');
  return `// npm install @alicloud/pop-core@1.8.0
// Set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET.
const { RPCClient } = require('@alicloud/pop-core');

const client = new RPCClient({
  accessKeyId: process.env.ALIBABA_CLOUD_ACCESS_KEY_ID,
  accessKeySecret: process.env.ALIBABA_CLOUD_ACCESS_KEY_SECRET,
  securityToken: process.env.ALIBABA_CLOUD_SECURITY_TOKEN,
  endpoint: ${quoted(`${scheme}://${host}`)},
  apiVersion: '${VERSION}',
});

client.request('${ACTION}', {
${request}}).then(
  (reply) => console.log(JSON.stringify(reply, null, 2)),
  (error) => {
    console.error(error.message);
    process.exitCode = 1;
  },
);
`;
}

function pythonPlain({ scheme, host, parameters }) {
  const request = parameters.map(([n, v]) => `    ${quoted(n)}: ${quoted(v)},\n`).join('');
  return `# Python 3, standard library only.
# Set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET.
import hashlib
import hmac
import os
import sys
import urllib.error
import urllib.request
import uuid
from datetime import datetime, timezone
from urllib.parse import quote

key_id = os.environ["ALIBABA_CLOUD_ACCESS_KEY_ID"]
secret = os.environ["ALIBABA_CLOUD_ACCESS_KEY_SECRET"]
token = os.environ.get("ALIBABA_CLOUD_SECURITY_TOKEN")
parameters = {
${request}}
query = "&".join(f"{n}={quote(v, safe='~')}" for n, v in sorted(parameters.items()))
body_hash = hashlib.sha256(b"").hexdigest()
headers = {
    "host": ${quoted(host)},
    "x-acs-action": "${ACTION}",
    "x-acs-content-sha256": body_hash,
    "x-acs-date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    "x-acs-signature-nonce": uuid.uuid4().hex,
    "x-acs-version": "${VERSION}",
}
if token:
    headers["x-acs-security-token"] = token
names = ";".join(sorted(headers))
lines = "".join(f"{n}:{headers[n]}\\n" for n in sorted(headers))
canonical = "\\n".join(["GET", "/", query, lines, names, body_hash])
text = "ACS3-HMAC-SHA256\\n" + hashlib.sha256(canonical.encode()).hexdigest()
signature = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
headers["Authorization"] = (
    f"ACS3-HMAC-SHA256 Credential={key_id},SignedHeaders={names},Signature={signature}"
)
request = urllib.request.Request(${quoted(`${scheme}://${host}/?`)} + query, headers=headers)
try:
    with urllib.request.urlopen(request) as reply:
        print(reply.read().decode())
except urllib.error.HTTPError as error:
    sys.exit(error.read().decode())
`;
}

function curl({ scheme, host, parameters }) {
  return `#!/usr/bin/env bash
# Needs bash, curl and openssl.
# Set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET.
set -euo pipefail
host=${shell(host)}
query=${shell(canonicalQuery(parameters))}
key_id=$ALIBABA_CLOUD_ACCESS_KEY_ID
token=\${ALIBABA_CLOUD_SECURITY_TOKEN:-}

sha256() { openssl dgst -sha256 -r | cut -d' ' -f1; }
bytes() { local hex=$1 out=; while [ -n "$hex" ]; do out+="\\\\x\${hex:0:2}"; hex=\${hex:2}; done; printf "$out"; }
# HMAC-SHA256 of stdin. The secret never becomes an argument of a process, where others see it.
hmac() {
  local key i inner= outer=
  key=$(printf %s "$ALIBABA_CLOUD_ACCESS_KEY_SECRET" | od -An -v -tx1 | tr -d ' \\n')
  if [ \${#key} -gt 128 ]; then key=$(bytes "$key" | sha256); fi
  while [ \${#key} -lt 128 ]; do key+=00; done
  for ((i = 0; i < 128; i += 2)); do
    inner+=$(printf %02x $((16#\${key:i:2} ^ 0x36)))
    outer+=$(printf %02x $((16#\${key:i:2} ^ 0x5c)))
  done
  inner=$({ bytes "$inner"; cat; } | sha256)
  { bytes "$outer"; bytes "$inner"; } | sha256
}

date=$(date -u +%Y-%m-%dT%H:%M:%SZ)
nonce=$(openssl rand -hex 16)
body_hash=$(printf '' | sha256)
headers=(
  "host:$host"
  "x-acs-action:${ACTION}"
  "x-acs-content-sha256:$body_hash"
  "x-acs-date:$date"
  \${token:+"x-acs-security-token:$token"}
  "x-acs-signature-nonce:$nonce"
  "x-acs-version:${VERSION}"
)
names=$(printf '%s\\n' "\${headers[@]}" | cut -d: -f1 | paste -sd';')
request=$(printf 'GET\\n/\\n%s\\n' "$query"; printf '%s\\n' "\${headers[@]}"; printf '\\n%s\\n%s' "$names" "$body_hash")
signature=$(printf 'ACS3-HMAC-SHA256\\n%s' "$(printf %s "$request" | sha256)" | hmac)
options=()
for header in "\${headers[@]}"; do options+=(-H "$header"); done
curl -sS "\${options[@]}" \\
  -H "Authorization: ACS3-HMAC-SHA256 Credential=$key_id,SignedHeaders=$names,Signature=$signature" \\
  "${scheme}://$host/?$query"
echo
`;
}

function cli({ scheme, host, parameters }) {
  const option = { ClusterId: 'cluster', ContainerType: 'container-type', PageNumber: 'page-number', PageSize: 'page-size' };
  const options = parameters.map(([n, v]) => ` \\\n  --${option[n]}=${shell(v)}`).join('');
  return `# Set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET.
sifter-control call ${ACTION} \\
  --endpoint ${shell(`${scheme}://${host}`)}${options}
`;
}

/** By the name of the tab. */
export const SAMPLES = {
  'Python': python,
  'Node.js': node,
  'curl': curl,
  'Python (no SDK)': pythonPlain,
  'sifter-control': cli,
};
