// The page: conversations and how they are kept, answers as they come, the view of the server's state.

// ---- what is kept: each conversation under a name of its own, the settings, the key ---------------------------------

const PREFIX = 'hadal.chat.'
const chats = new Map() // by id
const running = new Map() // id of a conversation -> {control, message} of the answer that is being written
let here // the conversation that is shown
let settings = {}
let leaving = false // the page is being closed: what breaks off now is no error

const newId = () => [...crypto.getRandomValues(new Uint8Array(12))].map(b => b.toString(16).padStart(2, '0')).join('')
const newest = () => [...chats.values()].sort((a, b) => b.updated - a.updated)
const titleOf = chat => (chat.messages.find(m => m.role === 'user')?.content.trim() || 'New conversation').slice(0, 80)

// A conversation from a file or from storage with nothing in it but what belongs there; null: it is none.
function cleanChat(c) {
  const text = v => typeof v === 'string' ? v : ''
  const time = v => Number.isFinite(v) ? v : Date.now()
  if (!c || !Array.isArray(c.messages)) return null
  const messages = c.messages.filter(m => m?.role === 'user' || m?.role === 'assistant').map(m => ({role: m.role, content: text(m.content),
    reasoning_content: text(m.reasoning_content),
    info: Object.fromEntries(Object.entries(m.info ?? {}).filter(([, v]) => typeof v === 'string' || Number.isFinite(v)))}))
  return {id: /^[0-9a-f]{24}$/.test(c.id) ? c.id : newId(), created: time(c.created), updated: time(c.updated),
    system: text(c.system ?? c.messages.find(m => m?.role === 'system')?.content), messages}
}

function keep(chat) {
  try {
    localStorage.setItem(PREFIX + chat.id, JSON.stringify(chat))
  } catch {
    notice('This conversation is too long for the browser to keep. Export what you need and delete old ones.')
  }
}

function load(name, value) {
  try {
    const chat = cleanChat(JSON.parse(value))
    if (chat && name === PREFIX + chat.id) chats.set(chat.id, chat)
  } catch { /* not ours: leave it */ }
}

function newChat() {
  here = {id: newId(), created: Date.now(), updated: Date.now(), system: settings.system ?? '', messages: []}
}

function exportChats() {
  const list = [...chats.values()].map(c => ({...c, messages: c.system ? [{role: 'system', content: c.system}, ...c.messages] : c.messages}))
  const url = URL.createObjectURL(new Blob([JSON.stringify({conversations: list}, null, 1)], {type: 'application/json'}))
  el('a', {href: url, download: `hadal-${new Date().toISOString().slice(0, 10)}.json`}).click()
  setTimeout(() => URL.revokeObjectURL(url), 10000)
}

// Takes what Export wrote, or what /save of `hadal chat` did. Of two with one id the newer stays.
async function importChats(file) {
  let list = []
  try {
    const data = JSON.parse(await file.text())
    list = (data.conversations ?? [Array.isArray(data) ? {messages: data} : data]).map(cleanChat).filter(c => c?.messages.length)
  } catch { /* no JSON */ }
  if (!list.length) return notice(`${file.name} holds no conversations.`)
  for (const c of list) {
    if (running.has(c.id) || chats.get(c.id)?.updated > c.updated) continue
    chats.set(c.id, c)
    keep(c)
  }
  open(list[0].id)
}

// ---- the server -----------------------------------------------------------------------------------------------------

let modelId = ''

async function call(path, options = {}) {
  const key = sessionStorage.getItem('hadal.key')
  let r, said
  try {
    r = await fetch(path, {...options, headers: {'Content-Type': 'application/json', ...(key && {Authorization: 'Bearer ' + key})}})
  } catch (e) {
    if (e.name === 'AbortError') throw e
    throw new Error('The server cannot be reached.')
  }
  if (r.ok) return r
  try {
    said = (await r.json()).error.message
  } catch { /* not in the form of an error */ }
  throw Object.assign(new Error(said || `The server answered ${r.status}.`), {status: r.status})
}

// The data of server-sent events, however the bytes were cut on their way.
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  let rest = '', data = []
  for (;;) {
    const {value, done} = await reader.read()
    if (done) return
    const lines = (rest + value).split('\n')
    rest = lines.pop()
    for (const line of lines.map(l => l.replace(/\r$/, ''))) {
      if (line.startsWith('data:')) data.push(line.slice(5).replace(/^ /, ''))
      else if (!line && data.length) yield data.splice(0).join('\n')
    }
  }
}

// Asks for the model's name until there is one.
async function connect() {
  const tell = (text, kind) => {
    $('model').className = kind
    $('model').firstElementChild.textContent = text
    $('empty').querySelector('h1').textContent = modelId || 'hadal'
    $('empty').querySelector('p').textContent = modelId ? 'What do you want to know?' : text
  }
  clearTimeout(connect.again)
  try {
    modelId = (await (await call('v1/models')).json()).data[0].id
    document.title = modelId + ' · hadal'
    tell(modelId, 'ready')
  } catch (e) {
    if (e.status === 401) askKey()
    tell(e.message, e.status === 503 ? '' : 'bad')
    if (e.status !== 401) connect.again = setTimeout(connect, 2000)
  }
}

// ---- answers --------------------------------------------------------------------------------------------------------

function requestOf(chat) {
  const number = name => settings[name] === undefined || settings[name] === '' ? undefined : Number(settings[name])
  const messages = chat.messages.filter(m => m.role === 'user' || m.content || m.reasoning_content).map(m =>
    ({role: m.role, content: m.content, ...(m.reasoning_content && {reasoning_content: m.reasoning_content})}))
  if (chat.system) messages.unshift({role: 'system', content: chat.system})
  return {model: modelId || undefined, messages, stream: true, stream_options: {include_usage: true}, temperature: number('temperature'),
    top_p: number('top_p'), max_tokens: number('max_tokens'), seed: number('seed'),
    thinking: settings.thinking ? {type: settings.thinking} : undefined}
}

// Lets the model answer the last message of a conversation.
async function answer(chat) {
  const body = JSON.stringify(requestOf(chat)), control = new AbortController(), began = performance.now()
  const seconds = () => (performance.now() - began) / 1000
  const message = {role: 'assistant', content: '', reasoning_content: '', info: {}}, info = message.info
  chat.messages.push(message)
  running.set(chat.id, {control, message})
  touch(chat)
  drawChats()
  if (chat === here) drawChat(true)
  const tick = setInterval(() => { // seconds of thinking go on; a long answer is kept before it ends
    if (message.reasoning_content && !message.content) info.thought = seconds() - info.first
    paint(message)
    if (Math.round(seconds()) % 4 === 0) keep(chat)
  }, 1000)
  try {
    const response = await call('v1/chat/completions', {method: 'POST', body, signal: control.signal})
    for await (const data of eventsOf(response)) {
      if (data === '[DONE]') break
      const chunk = JSON.parse(data), choice = chunk.choices?.[0], delta = choice?.delta ?? {}
      if (chunk.error) throw new Error(chunk.error.message)
      if (chunk.usage) {
        Object.assign(info, {tokens: chunk.usage.completion_tokens, prompt: chunk.usage.prompt_tokens,
          cached: chunk.usage.prompt_tokens_details?.cached_tokens ?? 0})
      }
      if (delta.reasoning_content || delta.content) {
        info.first ??= seconds()
        info.last = seconds()
      }
      if (delta.reasoning_content) {
        if (!message.reasoning_content) say('Thinking')
        message.reasoning_content += delta.reasoning_content
      }
      if (delta.content) {
        if (!message.content) {
          if (message.reasoning_content) info.thought = seconds() - info.first
          say('Answering')
        }
        message.content += delta.content
      }
      if (choice?.finish_reason) info.finish = choice.finish_reason
      paint(message)
    }
    if (!info.finish) throw new Error('The connection ended before the answer did.')
  } catch (e) {
    if (leaving) return
    if (control.signal.aborted) info.finish = 'stopped by you'
    else { // a TypeError is the network's
      info.error = e instanceof TypeError || e instanceof SyntaxError ? 'The connection ended before the answer did.' : e.message
      info.status = e.status
    }
  }
  clearInterval(tick)
  running.delete(chat.id)
  touch(chat)
  drawChats()
  update(message)
  drawGo()
  say(info.error ? info.error : 'The answer is complete.')
  if (info.status === 401) askKey()
}

function touch(chat) {
  chat.updated = Date.now()
  chats.set(chat.id, chat)
  keep(chat)
}

// Answers again from message number i of the conversation on: what comes after it is dropped.
function answerFrom(chat, i) {
  if (running.has(chat.id)) return
  chat.messages.length = i
  answer(chat)
}

function send() {
  const text = $('prompt').value.trim()
  if (!text || running.has(here.id)) return
  notice('')
  here.messages.push({role: 'user', content: text})
  $('prompt').value = ''
  fit($('prompt'))
  answer(here)
}

const stop = () => running.get(here.id)?.control.abort()

// ---- drawing: conversations and messages ----------------------------------------------------------------------------

const views = new WeakMap() // message -> its nodes
const due = new Set() // messages to be drawn with the next frame
let atEnd = true

function notice(text) { // '': none
  $('notice').textContent = text
  $('notice').hidden = !text
}

function toEnd() {
  $('scroller').scrollTop = $('scroller').scrollHeight
  atEnd = true
}

function follow(change) { // the end stays in sight while an answer grows, unless the reader went elsewhere
  const was = atEnd
  change()
  if (was) toEnd()
  else scrolled()
}

function scrolled() {
  const s = $('scroller')
  atEnd = s.scrollHeight - s.scrollTop - s.clientHeight < 48
  $('down').hidden = atEnd || !$('status').hidden
}

function paint(message) {
  if (!due.size) requestAnimationFrame(() => { for (const m of due) update(m); due.clear() })
  due.add(message)
}

function drawChats() {
  $('chats').replaceChildren(...newest().map(chat => {
    const name = titleOf(chat), open_ = el('button', {class: 'open' + (running.has(chat.id) ? ' busy' : ''), title: name, onclick: () => open(chat.id)}, name)
    const drop = iconButton('Delete ' + name, 'drop', () => { if (confirm(`Delete the conversation “${name}”?`)) remove(chat) })
    drop.className = 'round drop'
    if (chat.id === here.id) open_.setAttribute('aria-current', 'true')
    return el('li', {class: chat.id === here.id ? 'here' : ''}, open_, drop)
  }))
}

function remove(chat) {
  running.get(chat.id)?.control.abort()
  chats.delete(chat.id)
  localStorage.removeItem(PREFIX + chat.id)
  if (chat.id === here.id) open()
  else drawChats()
}

function open(id) { // without one: a new conversation
  if (chats.has(id)) here = chats.get(id)
  else newChat()
  location.hash = ''
  document.body.classList.remove('aside')
  drawChats()
  drawChat(true)
  focusPrompt()
}

function focusPrompt() { // but let no keyboard come up on a phone
  if (!matchMedia('(pointer: coarse)').matches) $('prompt').focus()
}

function drawChat(end) {
  $('messages').replaceChildren(...here.messages.map(m => m.role === 'user' ? userNode(here, m) : answerNode(here, m)))
  drawGo()
  drawView()
  if (end) toEnd()
}

function drawGo() {
  const busy = running.has(here.id)
  setIcon($('go'), busy ? 'stop' : 'send', busy ? 'Stop' : 'Send')
}

function userNode(chat, m) {
  const bubble = el('div', {class: 'bubble'}, m.content), tools = el('div', {class: 'tools'})
  const node = el('article', {class: 'user', 'aria-label': 'You'}, bubble, tools)
  const copyButton = iconButton('Copy', 'copy', () => copy(m.content, copyButton))
  tools.append(copyButton, iconButton('Edit, and answer again', 'edit', () => edit(chat, m, node)),
    iconButton('Delete this question and its answer', 'drop', () => {
      if (running.has(chat.id)) return
      const i = chat.messages.indexOf(m), next = chat.messages.findIndex((x, k) => k > i && x.role === 'user')
      chat.messages.splice(i, (next < 0 ? chat.messages.length : next) - i)
      if (!chat.messages.length) return remove(chat)
      touch(chat)
      drawChats()
      drawChat()
    }))
  return node
}

function edit(chat, m, node) {
  if (running.has(chat.id)) return
  const area = el('textarea', {'aria-label': 'Message', rows: 1})
  const done = () => node.replaceWith(userNode(chat, m))
  const again = () => {
    if (!area.value.trim()) return
    m.content = area.value.trim()
    answerFrom(chat, chat.messages.indexOf(m) + 1)
  }
  area.value = m.content
  area.addEventListener('input', () => fit(area))
  area.addEventListener('keydown', e => {
    if (e.key === 'Escape') done()
    else if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) { e.preventDefault(); again() }
  })
  node.replaceChildren(el('div', {class: 'edit'}, area, el('div', {}, el('button', {type: 'button', class: 'plain', onclick: done}, 'Cancel'),
    el('button', {type: 'button', class: 'plain main', onclick: again}, 'Send'))))
  fit(area)
  area.focus()
}

function answerNode(chat, m) {
  const v = {chat, text: el('div', {class: 'text'}), thought: el('div', {class: 'text'}), title: el('span'), tools: el('div', {class: 'tools'}),
    waiting: el('span', {class: 'waiting', 'aria-label': 'Waiting for the first token'}, el('i'), el('i'), el('i')), end: el('div')}
  v.think = el('details', {class: 'think'}, el('summary', {onclick: () => v.moved = true}, icon('fold'), v.title), v.thought)
  v.node = el('article', {class: 'answer', 'aria-label': 'Answer'}, v.waiting, v.think, v.text, v.end, v.tools)
  views.set(m, v)
  update(m)
  return v.node
}

const numberOf = x => x.toLocaleString('en')
const speedOf = x => x < 100 ? x.toFixed(1) : numberOf(Math.round(x))

function factsOf(info) {
  const n = numberOf, list = []
  if (info.tokens !== undefined) list.push(`${n(info.tokens)} tokens`)
  if (info.tokens > 1 && info.last > info.first) list.push(`${speedOf((info.tokens - 1) / (info.last - info.first))} tokens/s`)
  if (info.first !== undefined) list.push(`first after ${info.first.toFixed(2)} s`)
  if (info.prompt) list.push(`prompt ${n(info.prompt)}` + (info.cached ? `, ${n(info.cached)} cached` : ''))
  return list.join(' · ')
}

// Brings the nodes of an answer up to date.
function update(m) {
  const v = views.get(m), info = m.info
  if (!v || (v.drawn && !v.node.isConnected)) return // another conversation is shown
  v.drawn = true
  const live = running.get(v.chat.id)?.message === m, thinking = live && !m.content
  follow(() => {
    v.node.setAttribute('aria-busy', live)
    v.node.classList.toggle('past', !live && m !== v.chat.messages.at(-1))
    v.waiting.hidden = !live || m.content || m.reasoning_content
    v.think.hidden = !m.reasoning_content
    v.think.classList.toggle('live', thinking)
    if (!v.moved && (thinking || atEnd)) v.think.open = thinking // who reads above does not want it to fold
    v.title.textContent = (thinking ? 'Thinking' : 'Thought') + (info.thought >= 1 ? ` for ${Math.round(info.thought)} s` : thinking ? ' …' : ' for a moment')
    const low = v.thought.scrollHeight - v.thought.scrollTop - v.thought.clientHeight < 24
    show(v.thought, m.reasoning_content)
    if (thinking && low) v.thought.scrollTop = v.thought.scrollHeight
    show(v.text, m.content)
    v.end.replaceChildren()
    v.tools.replaceChildren()
    if (live) return
    const again = () => answerFrom(v.chat, v.chat.messages.indexOf(m))
    if (info.error) {
      v.end.append(el('div', {class: 'error', role: 'alert'}, info.error, el('button', {type: 'button', class: 'plain', onclick: again}, 'Try again')))
    } else if (!info.finish) v.end.append(el('p', {class: 'note'}, 'The page was closed before the answer ended.'))
    else if (info.finish === 'length') v.end.append(el('p', {class: 'note'}, 'Cut here: the longest answer is reached.'))
    else if (info.finish !== 'stop') v.end.append(el('p', {class: 'note'}, `Ended: ${info.finish}.`))
    const copyButton = iconButton('Copy', 'copy', () => copy(m.content, copyButton))
    v.tools.append(el('span', {class: 'facts'}, factsOf(info)), copyButton, iconButton('Answer again', 'again', again))
  })
}

function fit(area) { // as high as its text
  area.style.height = 'auto'
  area.style.height = area.scrollHeight + area.offsetHeight - area.clientHeight + 'px'
}

// ---- settings -------------------------------------------------------------------------------------------------------

const FIELDS = ['temperature', 'top_p', 'max_tokens', 'seed', 'thinking']

function showSettings() {
  for (const name of FIELDS) $(name).value = settings[name] ?? ''
  $('system').value = here.system
  $('key').value = sessionStorage.getItem('hadal.key') ?? ''
  if ($('key').value) $('key-field').hidden = false
}

function openSettings() {
  showSettings()
  if (!$('dialog').open) $('dialog').showModal()
}

function askKey() {
  $('key-field').hidden = false
  openSettings()
  $('key').focus()
}

function keepSettings() {
  for (const name of FIELDS) settings[name] = $(name).value
  if ($('dialog').open) {
    settings.system = here.system = $('system').value
    if (here.messages.length) keep(here)
    if (!$('key-field').hidden) sessionStorage.setItem('hadal.key', $('key').value.trim())
  }
  localStorage.setItem('hadal.settings', JSON.stringify(settings))
}

// ---- the status view ------------------------------------------------------------------------------------------------

const past = [] // of the last minute: {at, generated, prompt}

function drawView() {
  const status = location.hash === '#status'
  $('status').hidden = !status
  $('write').hidden = status
  $('messages').hidden = status || !here.messages.length
  $('empty').hidden = status || here.messages.length
  setIcon($('view'), status ? 'talk' : 'live', status ? 'Back to the conversation' : 'Status of the server')
  $('view').append(status ? 'Chat' : 'Status')
  scrolled()
  if (status) poll()
}

async function poll() {
  clearTimeout(poll.again)
  if ($('status').hidden || document.hidden) return
  try {
    drawStatus(await (await call('status')).json())
    $('status-error').hidden = true
  } catch (e) {
    $('status-error').textContent = e.message
    $('status-error').hidden = false
  }
  $('status-shown').hidden = !$('status-error').hidden
  poll.again = setTimeout(poll, 1000)
}

function bytes(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let k = 0
  for (; n >= 1024 && k < 4; k++) n /= 1024
  return `${n.toFixed(k && n < 100 ? 1 : 0)} ${units[k]}`
}

function duration(s) {
  const d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60
  return d ? `${d} d ${h} h` : h ? `${h} h ${m} min` : m ? `${m} min ${Math.floor(s) % 60} s` : `${Math.floor(s)} s`
}


function drawStatus(s) {
  const n = numberOf, percent = (a, b) => b ? `${(100 * a / b).toFixed(0)} %` : '–'
  const g = s.engine, now = {at: performance.now(), generated: g.generated_tokens, prompt: g.prompt_tokens}
  if (past.length && now.generated < past.at(-1).generated) past.length = 0 // another server
  past.push(now)
  if (past.length > 61) past.shift()
  const rate = (i, what) => i < 1 ? 0 : (past[i][what] - past[i - 1][what]) / (past[i].at - past[i - 1].at) * 1000
  const speed = past.map((_, i) => rate(i, 'generated')), top = Math.max(...speed, 1), last = past.length - 1
  const free = g.pages_total - g.pages_running - g.pages_kept, size = pages => bytes(pages * g.page_bytes)
  const facts = {
    about: `hadal ${s.version} · running for ${duration(s.uptime_seconds)} · context ${n(g.context)} tokens`,
    running: n(g.running), sequences: `of ${n(g.sequences)} at once`, waiting: n(g.waiting), queue: `of ${n(g.queue)}`,
    writing: speedOf(speed[last]), reading: `written, ${n(Math.round(rate(last, 'prompt')))} read`,
    cache: percent(g.pages_running + g.pages_kept, g.pages_total), pages: `of ${size(g.pages_total)}, pages of ${n(g.page_tokens)} tokens`,
    'bar-run': `answers ${size(g.pages_running)}`, 'bar-kept': `kept for later prompts ${size(g.pages_kept)}`, 'bar-free': `free ${size(free)}`,
  }
  for (const [name, text] of Object.entries(facts)) document.querySelector(`[data-is="${name}"]`).textContent = text
  const cells = Math.min(g.sequences, 256)
  if ($('slots').children.length !== cells) $('slots').replaceChildren(...Array.from({length: cells}, () => el('i')))
  ;[...$('slots').children].forEach((cell, i) => cell.classList.toggle('on', i < g.running))
  ;[g.pages_running, g.pages_kept].forEach((pages, i) => { $('bar').children[i].style.width = `${100 * pages / (g.pages_total || 1)}%` })
  $('graph').firstElementChild.setAttribute('points', speed.slice(1).map((v, i) => `${61 - last + i},${(19 - 18 * v / top).toFixed(2)}`).join(' '))
  $('idle').hidden = s.requests.length
  const row = (tag, ...cells) => el('tr', {}, ...cells.map((c, i) => el(tag, {class: i > 1 ? 'right' : ''}, String(c))))
  $('requests').replaceChildren(...s.requests.length ? [row('th', 'Request', 'Path', 'Prompt', 'Cached', 'Written', 'Seconds')] : [],
    ...s.requests.map(r => row('td', r.id.slice(0, 8), r.path, n(r.prompt_tokens), n(r.cached_tokens), n(r.tokens), r.seconds.toFixed(1))))
  const totals = {'Tokens written': n(g.generated_tokens), 'Tokens read': n(g.prompt_tokens),
    'Of them cached': `${n(g.cached_tokens)} (${percent(g.cached_tokens, g.prompt_tokens)})`, 'Steps': n(g.steps),
    'Preempted': n(g.preemptions), 'Drafts accepted': percent(g.draft_accepted, g.draft_proposed), 'Cache on disk': bytes(g.cache_folder_bytes)}
  $('totals').replaceChildren(...Object.entries(totals).map(([k, v]) => el('div', {}, el('dt', {}, k), el('dd', {}, v))))
}

// ---- the start ------------------------------------------------------------------------------------------------------

try {
  for (const [name, value] of Object.entries(localStorage)) if (name.startsWith(PREFIX)) load(name, value)
  settings = {...JSON.parse(localStorage.getItem('hadal.settings'))}
} catch { /* the browser keeps nothing: begin anew */ }

$('write').addEventListener('submit', e => { e.preventDefault(); running.has(here.id) ? stop() : send() })
$('prompt').addEventListener('input', () => fit($('prompt')))
$('prompt').addEventListener('keydown', e => {
  if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) { e.preventDefault(); send() }
})
$('thinking').addEventListener('change', keepSettings)
$('dialog').addEventListener('input', keepSettings)
$('dialog').addEventListener('close', () => { // the key that was asked for is tried at once
  const failed = here.messages.at(-1)?.info?.status === 401
  connect()
  if (failed && $('key').value) answerFrom(here, here.messages.length - 1)
})
$('settings').addEventListener('click', openSettings)
$('view').addEventListener('click', () => { location.hash = location.hash === '#status' ? '' : '#status' })
$('new').addEventListener('click', () => open())
$('menu').addEventListener('click', () => document.body.classList.add('aside'))
$('shade').addEventListener('click', () => document.body.classList.remove('aside'))
$('export').addEventListener('click', exportChats)
$('import').addEventListener('click', () => $('file').click())
$('file').addEventListener('change', async () => { await importChats($('file').files[0]); $('file').value = '' })
$('scroller').addEventListener('scroll', scrolled)
$('down').addEventListener('click', toEnd)
addEventListener('resize', () => follow(() => {}))
addEventListener('hashchange', drawView)
document.addEventListener('visibilitychange', poll)
addEventListener('pagehide', () => { leaving = true; for (const id of running.keys()) keep(chats.get(id)) })
addEventListener('pageshow', e => { if (e.persisted) location.reload() })
addEventListener('storage', e => { // another tab wrote
  const id = e.key?.startsWith(PREFIX) ? e.key.slice(PREFIX.length) : ''
  if (!id || running.has(id)) return
  if (e.newValue) load(e.key, e.newValue)
  else chats.delete(id)
  if (here.id === id && chats.has(id)) { here = chats.get(id); drawChat() }
  drawChats()
})
addEventListener('keydown', e => {
  if (e.key === 'Escape' && document.body.classList.contains('aside')) document.body.classList.remove('aside')
  else if (e.key === 'Escape' && !$('dialog').open) stop()
  else if ((e.ctrlKey || e.metaKey) && e.key === 'k') { e.preventDefault(); open() }
})

here = newest()[0]
if (!here) newChat()
showSettings()
drawChats()
drawChat(true)
connect()
focusPrompt()
