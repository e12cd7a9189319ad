// The Explorer in a real browser, against a running control plane.
//
//   npm install playwright-core      (anywhere; set NODE_PATH to it)
//   node browser.cjs URL KEY SECRET CLUSTER [DIRECTORY]
//
// CLUSTER must have more than two images. KEY and SECRET are empty for a server that checks no
// signatures. Fills in, runs, pages, provokes errors, changes the language, and writes the sample code
// into DIRECTORY, from where it can be run as it is. Called by run.sh beside this file.
// CHROMIUM names the browser (default /usr/bin/chromium). Ends with 0 if all is as it should be.
const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { chromium } = require('playwright-core');

const [base, key, secret, cluster, directory] = process.argv.slice(2);
assert.ok(cluster, 'usage: browser.cjs URL KEY SECRET CLUSTER [DIRECTORY]');

const signed = key !== '';
const shows_secret = (text) => signed && text.includes(secret);

async function main() {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
  const page = await (await browser.newContext({ locale: 'en-US' })).newPage();
  const requests = [];
  const problems = [];
  page.on('request', (r) => requests.push({ url: r.url(), text: JSON.stringify(r.headers()) + r.url() + (r.postData() ?? '') }));
  page.on('pageerror', (error) => problems.push(String(error)));
  page.on('dialog', (dialog) => { problems.push(dialog.message()); dialog.dismiss(); });
  page.on('console', (m) => { if (/Content Security Policy/.test(m.text())) problems.push(m.text()); });

  await page.goto(`${base}/explorer`);
  assert.equal(await page.isVisible('#access-key-id'), signed);
  assert.equal(await page.isVisible('#open-access'), !signed);
  if (signed) {
    await page.fill('#access-key-id', key);
    await page.fill('#access-key-secret', secret);
  }
  await page.fill('#cluster-id', cluster);
  await page.fill('#page-size', '2');

  // Run, and turn to the second page and back.
  assert.ok(await page.isHidden('#pager'), 'there is no page to turn yet');
  await page.click('#run');
  await page.waitForSelector('#status[data-state=ok]');
  assert.equal(await page.locator('#images tbody tr').count(), 2);
  assert.ok(await page.isDisabled('#previous'));
  const row = await page.locator('#images tbody tr').first().locator('td').allTextContents();
  const first = JSON.parse(await page.textContent('#raw-response'));
  assert.equal(first.PageNumber, 1);
  const titles = await page.locator('#images th').allTextContents();
  assert.deepEqual(row, titles.map((title) => first.Images.Images[0][title]));
  const shows = (number) => page.waitForFunction((n) => JSON.parse(document.querySelector('#raw-response').textContent || '{}').PageNumber === n, number);
  await page.click('#next');
  await shows(2);
  await page.click('#previous');
  await shows(1);
  // Back from beyond the end is the last page.
  await page.fill('#page-number', '999');
  await page.click('#run');
  await shows(999);
  await page.click('#previous');
  const end = Math.ceil(first.TotalCount / 2);
  await shows(end);
  // Who turns pages with the keyboard keeps the place, also at the end, and stays there.
  await page.click('#previous');
  await shows(end - 1);
  await page.focus('#next');
  await page.keyboard.press('Enter');
  await shows(end);
  assert.ok(await page.isDisabled('#next'));
  assert.equal(await page.evaluate(() => document.activeElement.id), 'next');
  await page.keyboard.press('Enter');
  assert.equal(await page.inputValue('#page-number'), String(end));
  assert.equal(await page.getByRole('table', { name: `Page ${end} of ${end}` }).count(), 1);
  await page.fill('#page-number', '1');
  await page.click('#run');
  await shows(1);
  const authorization = /Authorization: ACS3-HMAC-SHA256 Credential=/;
  assert.equal(authorization.test(await page.textContent('#raw-request')), signed);

  // Sample code, without the secret.
  for (const tab of await page.locator('#tabs button').allTextContents()) {
    await page.click(`#tabs button:text-is("${tab}")`);
    assert.deepEqual(await page.locator('#tabs [aria-pressed=true]').allTextContents(), [tab]);
    const code = await page.textContent('#sample');
    assert.ok(code.includes(cluster) && !shows_secret(code), tab);
    if (directory) fs.writeFileSync(path.join(directory, tab.replace(/\W+/g, '_')), code);
  }
  await page.click('#copy');
  await page.waitForFunction(() => document.querySelector('#copy').textContent === 'Copied');

  // Errors are shown with a link to what to do.
  const fails = async (code) => {
    await page.click('#run');
    await page.waitForFunction((c) => document.querySelector('#error-code').textContent === c, code);
    assert.equal(await page.getAttribute('#error-link', 'href'), `/errors#${code}`);
    assert.ok(await page.isHidden('#images') && await page.isHidden('#pager'));
  };
  await page.fill('#page-size', '51');
  await fails('InvalidParams');
  await page.fill('#page-size', '2');
  await page.fill('#cluster-id', 'no-such-cluster');
  await fails('LoginNotFound');
  // What is read about it takes nothing away of what was filled in.
  const [explained] = await Promise.all([page.waitForEvent('popup'), page.click('#error-link')]);
  await explained.waitForSelector('h2:target:text-is("LoginNotFound")');
  await explained.close();
  assert.equal(await page.inputValue('#cluster-id'), 'no-such-cluster');
  if (signed) {
    await page.fill('#access-key-secret', `${secret}-wrong`);
    await fails('SignatureDoesNotMatch');
    // Not for want of a server.
    await page.fill('#access-key-id', 'ｋｅｙ');
    await page.click('#run');
    await page.waitForSelector('#status[data-state=unsendable]');
    assert.ok(await page.isHidden('#error'));
  }

  await page.click('#language');
  assert.equal(await page.textContent('#run'), '发起调用');
  assert.equal(await page.title(), 'ListContainerImages 调试');
  await page.goto(`${base}/errors#SignatureDoesNotMatch`);
  assert.equal(await page.locator('h2:target').count(), 1);

  // Nothing left the page but signed requests, to its own server; nothing stays behind.
  assert.deepEqual(problems, []);
  for (const { url, text } of requests) {
    assert.ok(url.startsWith(base) || url.startsWith('data:'), url);
    assert.ok(!shows_secret(text), url);
  }
  assert.equal(await page.evaluate(() => localStorage.length + sessionStorage.length + document.cookie.length), 0);
  await browser.close();
}

main().catch((error) => { console.error(error); process.exit(1); });
