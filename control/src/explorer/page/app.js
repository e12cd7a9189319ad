// The page: form, call, table, raw exchange, sample code. Nothing is stored anywhere.

import { nonce, sign, unsigned } from './signature.js';
import { SAMPLES } from './samples.js';
import { TEXTS } from './texts.js';

const $ = (id) => document.getElementById(id);
const inputs = { ClusterId: 'cluster-id', ContainerType: 'container-type', PageNumber: 'page-number', PageSize: 'page-size' };
/** Whether the server checks no signatures; it says so in the page. */
const open = document.documentElement.dataset.auth === 'none';
let language = navigator.language?.startsWith('zh') ? 'zh' : 'en';
let sample = Object.keys(SAMPLES)[0];
let last = null;
let run = 0;

const text = (name, ...values) => values.reduce((t, v, i) => t.replace(`{${i}}`, v), TEXTS[language][name]);

/** Parameters as typed; an empty field is not sent. */
function parameters() {
  return Object.entries(inputs)
    .map(([name, id]) => [name, $(id).value.trim()])
    .filter(([, value]) => value !== '');
}

function target() {
  return { scheme: location.protocol.slice(0, -1), host: location.host, parameters: parameters() };
}

function showTexts() {
  document.documentElement.lang = language === 'zh' ? 'zh-CN' : 'en';
  document.title = text('title');
  for (const element of document.querySelectorAll('[data-text]')) element.textContent = text(element.dataset.text);
  $('language').textContent = language === 'zh' ? 'English' : '中文';
  $('language').lang = language === 'zh' ? 'en' : 'zh';
  showStatus();
}

function showStatus() {
  const status = $('status');
  status.dataset.state = last?.state ?? 'idle';
  if (!last) status.textContent = text('idle');
  else if (last.state === 'running') status.textContent = text('running');
  else if (last.state === 'unreachable' || last.state === 'unsendable') status.textContent = text(last.state);
  else status.textContent = text('answered', last.status, last.milliseconds);
  if (last?.reply?.Images) {
    const { PageNumber: page, PageSize: rows, TotalCount: total } = last.reply;
    const pages = Math.max(1, Math.ceil(total / last.size));
    $('page-info').textContent = text('pageInfo', page, pages, rows, total);
    // Not `disabled`, which would take the focus from who turns pages with the keyboard.
    $('previous').ariaDisabled = String(page <= 1);
    $('next').ariaDisabled = String(page >= pages);
  }
}

function showSample() {
  $('sample').textContent = SAMPLES[sample](target());
  for (const tab of $('tabs').children) tab.ariaPressed = String(tab.textContent === sample);
}

function showReply() {
  const reply = last.reply;
  const images = last.ok ? reply?.Images?.Images : null;
  // Where nothing came back there is no error of the API to show.
  $('error').hidden = last.ok || !last.status;
  $('images').hidden = $('pager').hidden = !images;
  if (!last.ok) {
    $('error-code').textContent = reply?.Code ?? `HTTP ${last.status}`;
    $('error-message').textContent = reply?.Message ?? '';
    $('error-request-id').textContent = reply?.RequestId ?? '';
    // The link of the reply may name another host; the page explains its own server's codes.
    $('error-link').href = `/errors#${encodeURIComponent(reply?.Code ?? '')}`;
  }
  const body = $('images').tBodies[0];
  body.replaceChildren();
  for (const image of images ?? []) {
    const row = body.insertRow();
    for (const { textContent: field } of $('images').tHead.rows[0].cells) {
      const cell = row.insertCell();
      // Text, never markup: names come from other users' files.
      cell.textContent = cell.title = image[field] ?? '';
    }
  }
  $('raw-response').textContent = last.raw;
}

/** Whether headers can be written at all: a key typed with full-width letters cannot. */
function isSendable(headers) {
  try {
    return Boolean(new Headers(headers));
  } catch {
    return false;
  }
}

async function call() {
  const mine = ++run;
  const { scheme, host, parameters: sent } = target();
  last = { state: 'running' };
  showStatus();
  showSample();
  const date = new Date().toISOString().replace(/\.\d+Z$/, 'Z');
  const request = open ? unsigned(sent) : await sign({
    keyId: $('access-key-id').value.trim(),
    secret: $('access-key-secret').value,
    token: $('security-token').value.trim(),
    host, parameters: sent, date, nonce: nonce(),
  });
  const lines = Object.entries(request.headers).map(([n, v]) => `${n}: ${v}\n`).join('');
  $('raw-request').textContent = `GET ${scheme}://${host}/?${request.query}\nhost: ${host}\n${lines}`;
  const started = performance.now();
  const size = Number($('page-size').value.trim()) || 10;
  let result;
  try {
    const response = await fetch(`/?${request.query}`, { headers: request.headers, credentials: 'omit', cache: 'no-store', redirect: 'error' });
    const raw = await response.text();
    result = { state: response.ok ? 'ok' : 'error', ok: response.ok, status: response.status, raw, size };
    try {
      result.reply = JSON.parse(raw);
      result.raw = JSON.stringify(result.reply, null, 2);
    } catch { /* Shown as it came. */ }
  } catch (error) {
    result = { state: isSendable(request.headers) ? 'unreachable' : 'unsendable', ok: false, status: 0, raw: String(error) };
  }
  // A newer call has taken the page over.
  if (mine !== run) return;
  last = { ...result, milliseconds: Math.round(performance.now() - started) };
  showReply();
  showStatus();
}

function turn(button, by) {
  // Until there is an answer nobody knows which page the next one is.
  if (!last?.reply?.Images || button.ariaDisabled === 'true') return;
  const { PageNumber: page, TotalCount: total } = last.reply;
  // Back from beyond the end is the last page.
  const end = by < 0 ? Math.ceil(total / last.size) : Infinity;
  $('page-number').value = String(Math.max(1, Math.min(page + by, end)));
  call();
}

$('form').addEventListener('submit', (event) => { event.preventDefault(); call(); });
$('form').addEventListener('input', showSample);
$('previous').addEventListener('click', (event) => turn(event.currentTarget, -1));
$('next').addEventListener('click', (event) => turn(event.currentTarget, 1));
$('language').addEventListener('click', () => { language = language === 'zh' ? 'en' : 'zh'; showTexts(); });
$('copy').addEventListener('click', async () => {
  try {
    await navigator.clipboard.writeText($('sample').textContent);
  } catch {
    // No clipboard outside of secure contexts: select, and copy the old way.
    getSelection().selectAllChildren($('sample'));
    document.execCommand('copy');
  }
  $('copy').textContent = text('copied');
  setTimeout(() => { $('copy').textContent = text('copy'); }, 1500);
});
for (const name of Object.keys(SAMPLES)) {
  const tab = document.createElement('button');
  tab.type = 'button';
  tab.textContent = name;
  tab.addEventListener('click', () => { sample = name; showSample(); });
  $('tabs').append(tab);
}
// A disabled field is not required.
if (open) $('who').disabled = $('who').hidden = true;
$('open-access').hidden = !open;
showTexts();
showSample();
