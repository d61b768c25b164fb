'use strict';
// Text only ever enters the page as text: no markup is made from what the API answers.
const $ = (id) => document.getElementById(id);
let token = sessionStorage.getItem('token') || '';
let stream = null;

const say = (text) => { $('message').textContent = text || ''; };

async function call(method, path, body, headers = {}) {
  const response = await fetch(path, {
    method,
    headers: {
      authorization: 'Bearer ' + token,
      ...(body ? { 'content-type': 'application/json' } : {}),
      ...headers,
    },
    body: body ? JSON.stringify(body) : undefined,
  });
  const answer = response.status === 204 ? null : await response.json();
  if (response.ok) return answer;
  if (response.status === 401) signOut();
  const faults = (answer.errors || []).map((fault) => fault.pointer + ': ' + fault.detail);
  throw new Error(faults.length ? faults.join('; ') : answer.title + ': ' + answer.detail);
}

const attempt = (action) => async (event) => {
  if (event) event.preventDefault();
  say();
  try { await action(); } catch (error) { say(error.message); }
};

function button(label, action) {
  const element = document.createElement('button');
  element.textContent = label;
  element.addEventListener('click', attempt(action));
  return element;
}

function statusOf(instance) {
  if (!instance.pending) return instance.status;
  const { queue_position: place, eta_s: eta } = instance.pending;
  return 'pending (no. ' + place + (eta ? ', about ' + eta + ' s' : '') + ')';
}

function row(instance) {
  const element = document.createElement('tr');
  const total = instance.timings_ms.total;
  const cells = [instance.name, statusOf(instance), instance.health, total === undefined ? '' : total + ' ms'];
  for (const text of cells) element.insertCell().textContent = text;
  const actions = element.insertCell();
  if (instance.status === 'running') actions.append(button('Open', () => open(instance)));
  actions.append(button('Delete', () => remove(instance)));
  return element;
}

async function open(instance) {
  // Opened before the call, or the browser takes it for a pop-up.
  const page = window.open('about:blank');
  try {
    const link = await call('POST', '/v1/instances/' + instance.id + '/login_links', {});
    if (page) { page.opener = null; page.location = link.url; } else location.href = link.url;
  } catch (error) {
    if (page) page.close();
    throw error;
  }
}

async function remove(instance) {
  if (!confirm('Delete ' + instance.name + ' and all that it holds?')) return;
  await call('DELETE', '/v1/instances/' + instance.id);
  await refresh();
}

async function create() {
  const name = $('name').value.trim();
  await call('POST', '/v1/instances', { name }, {
    'idempotency-key': crypto.randomUUID ? crypto.randomUUID() : name + Date.now(),
    prefer: 'wait=2',
  });
  $('name').value = '';
  await refresh();
}

async function refresh() {
  const [list, pool] = await Promise.all([call('GET', '/v1/instances?limit=200'), call('GET', '/v1/pool')]);
  $('instances').replaceChildren(...list.data.map(row));
  $('empty').hidden = list.data.length > 0;
  $('pool').textContent = pool.pools
    .map((one) => one.tier + '/' + one.region + ': ' + one.warm + ' of ' + one.target + ' warm')
    .join(', ');
  $('sign-in').hidden = true;
  $('main').hidden = false;
}

// EventSource cannot send the token, so the stream is read by fetch; any event means: look again.
async function follow() {
  stream = new AbortController();
  const { signal } = stream;
  while (!signal.aborted) {
    try {
      const headers = { authorization: 'Bearer ' + token };
      const response = await fetch('/v1/events/stream', { headers, signal });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      await refresh();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        if (value.includes('id:')) await refresh();
      }
    } catch (error) {
      if (signal.aborted) return;
    }
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}

function signOut() {
  sessionStorage.removeItem('token');
  if (stream) stream.abort();
  $('sign-in').hidden = false;
  $('main').hidden = true;
}

async function signIn() {
  token = $('token').value.trim() || token;
  await refresh();
  sessionStorage.setItem('token', token);
  $('token').value = '';
  follow();
}

$('sign-in').addEventListener('submit', attempt(signIn));
$('create').addEventListener('submit', attempt(create));
if (token) attempt(signIn)();
