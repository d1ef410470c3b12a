// Nodes, and text in Markdown as nodes. Its source is hostile: nothing is ever parsed as HTML, links are http or https,
// every search is linear in the text, and nesting ends at DEEPEST.

const $ = id => document.getElementById(id)

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value)
    else if (value !== undefined) node.setAttribute(name, value)
  }
  node.append(...children)
  return node
}

function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg')
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use')
  svg.setAttribute('aria-hidden', 'true')
  use.setAttribute('href', '#i-' + name)
  svg.append(use)
  return svg
}

const iconButton = (label, name, onclick) => el('button', {type: 'button', 'aria-label': label, title: label, onclick}, icon(name))

function setIcon(button, name, label) {
  button.replaceChildren(icon(name))
  button.title = label
  button.setAttribute('aria-label', label)
}

function say(sentence) { // to a screen reader
  $('say').textContent = sentence
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text)
  } catch { // pages of other machines without TLS have no clipboard
    const area = el('textarea', {class: 'unseen'})
    area.value = text
    document.body.append(area)
    area.select()
    document.execCommand('copy')
    area.remove()
  }
  if (button.dataset.copied) return
  button.dataset.copied = 1
  const before = [...button.childNodes]
  button.replaceChildren(button.matches('.tools *') ? icon('done') : 'Copied')
  say('Copied')
  setTimeout(() => { button.replaceChildren(...before); delete button.dataset.copied }, 1200)
}

// ---- Markdown -------------------------------------------------------------------------------------------------------

const DEEPEST = 8
const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`]*)$/, HEADING = /^ {0,3}(#{1,6})[ \t]+(.*)$/, QUOTE = /^ {0,3}>/
const RULE = /^ {0,3}([-*_])(?: *\1){2,} *$/, ITEM = /^( *)(?:[-*+]|(\d{1,9})[.)])(?: +|$)/

const cellsOf = line => line.trim().replace(/^\||\|$/g, '').split(/(?<!\\)\|/).map(c => c.trim().replaceAll('\\|', '|'))
const indentOf = line => line.length - line.trimStart().length

function tableBegins(lines, i) {
  if (!lines[i].includes('|') || i + 1 >= lines.length || !lines[i + 1].includes('-')) return false
  const marks = cellsOf(lines[i + 1])
  return marks.length === cellsOf(lines[i]).length && marks.every(c => /^:?-+:?$/.test(c))
}

const blockBegins = (lines, i) => FENCE.test(lines[i]) || HEADING.test(lines[i]) || QUOTE.test(lines[i]) || RULE.test(lines[i]) ||
  ITEM.test(lines[i]) || tableBegins(lines, i)

// Where the list ends that begins at line i, and its items.
function readList(lines, i) {
  const first = ITEM.exec(lines[i]), base = first[1].length, items = []
  let inside = 0, j = i
  for (; j < lines.length; j++) {
    const line = lines[j], m = ITEM.exec(line)
    if (m && m[1].length < base + 2 && !RULE.test(line)) {
      if (!m[2] !== !first[2]) break
      inside = m[0].length
      items.push([line.slice(inside)])
    } else if (!line.trim()) {
      const next = lines[j + 1]
      if (next === undefined || !next.trim() || (indentOf(next) < base + 2 && !ITEM.test(next))) break
      items.at(-1).push('')
    } else if (indentOf(line) >= base + 2) items.at(-1).push(line.slice(Math.min(indentOf(line), inside)))
    else if (lines[j - 1].trim() && !blockBegins(lines, j)) items.at(-1).push(line.trim())
    else break
  }
  return {end: j, items: items.map(item => item.join('\n'))}
}

// The blocks of a text: [{kind, src, ...}]. What is not closed yet ends with the text.
function blocksOf(text, depth) {
  const lines = text.split('\n'), blocks = []
  for (let i = 0, end; i < lines.length; i = end) {
    const line = lines[i]
    let block, m
    end = i + 1
    if (!line.trim()) continue
    if (depth < DEEPEST && (m = FENCE.exec(line))) {
      const closes = l => l.length >= m[1].length && l === m[1][0].repeat(l.length)
      while (end < lines.length && !closes(lines[end].trim())) end++
      const indent = indentOf(line)
      block = {kind: 'code', language: m[2].trim().split(' ')[0],
        code: lines.slice(i + 1, end).map(l => l.slice(Math.min(indent, indentOf(l)))).join('\n')}
      end++
    } else if (depth < DEEPEST && (m = HEADING.exec(line))) {
      block = {kind: 'heading', level: Math.min(m[1].length, 4), text: m[2].replace(/ #+ *$/, '')}
    } else if (RULE.test(line)) block = {kind: 'rule'}
    else if (depth < DEEPEST && QUOTE.test(line)) {
      while (end < lines.length && QUOTE.test(lines[end])) end++
      block = {kind: 'quote', text: lines.slice(i, end).map(l => l.replace(/^ *> ?/, '')).join('\n')}
    } else if (depth < DEEPEST && (m = ITEM.exec(line))) {
      const list = readList(lines, i)
      end = list.end
      block = {kind: 'list', start: m[2], items: list.items}
    } else if (tableBegins(lines, i)) {
      for (end = i + 2; end < lines.length && lines[end].includes('|'); end++);
      block = {kind: 'table', rows: lines.slice(i, end).map(cellsOf)}
    } else {
      while (end < lines.length && lines[end].trim() && (depth >= DEEPEST || !blockBegins(lines, end))) end++
      block = {kind: 'text', text: lines.slice(i, end).join('\n').trim()}
    }
    blocks.push({...block, src: lines.slice(i, end).join('\n')})
  }
  return blocks
}

function nodeOf(block, depth) {
  const inside = (node, text) => { node.append(...blocksOf(text, depth + 1).map(b => nodeOf(b, depth + 1))); return node }
  switch (block.kind) {
  case 'code': {
    const code = el('code', {}, block.code)
    const button = el('button', {type: 'button', onclick: () => copy(code.textContent, button)}, 'Copy')
    return el('div', {class: 'block'}, el('div', {}, el('span', {}, block.language), button), el('pre', {tabindex: 0}, code))
  }
  case 'heading': return el('h' + block.level, {}, ...inline(block.text))
  case 'rule': return el('hr')
  case 'quote': return inside(el('blockquote'), block.text)
  case 'list': return el(block.start ? 'ol' : 'ul', {start: block.start}, ...block.items.map(item => inside(el('li'), item)))
  case 'table': {
    const [head, marks, ...rows] = block.rows
    const side = marks.map(m => m.endsWith(':') ? m.startsWith(':') ? 'center' : 'right' : '')
    const row = (tag, cells) => el('tr', {}, ...head.map((_, i) => el(tag, {class: side[i]}, ...inline(cells[i] ?? ''))))
    return el('div', {class: 'wide', tabindex: 0}, el('table', {}, el('thead', {}, row('th', head)), el('tbody', {}, ...rows.map(r => row('td', r)))))
  }
  default: return el('p', {}, ...inline(block.text))
  }
}

const MATH = {'\\(': '\\)', '\\[': '\\]', '$$': '$$'}
const MARKS = {'**': 'strong', '__': 'strong', '~~': 'del', '*': 'em', '_': 'em'}

function webAddress(text) { // null: not one that may be a link
  try {
    const url = new URL(text)
    return /^https?:$/.test(url.protocol) ? url.href : null
  } catch {
    return null
  }
}

const link = (href, ...children) => el('a', {href, target: '_blank', rel: 'noopener noreferrer'}, ...children)

function bareAddress(text, from) { // of http:// or https:// at this place; '': none
  let url = /https?:\/\/[^\s<>"`{}|\\^]+/y
  url.lastIndex = from
  url = (url.exec(text) ?? [''])[0]
  let n = url.length
  while (n && (/[.,;:!?'*_~\]]/.test(url[n - 1]) || (url[n - 1] === ')' && !url.includes('(')))) n--
  return webAddress(url.slice(0, n)) ? url.slice(0, n) : ''
}

// Nodes and strings of a text inside of a block.
function inline(text, depth = 0) {
  const out = [], next = {} // next: where each closing mark comes, looked for once
  let plain = '', i = 0, ticks // ticks: length -> where so many backticks stand, the first one last
  const put = (node, end) => { out.push(plain, node); plain = ''; i = end }
  const find = (mark, from, fits = () => true, name = mark) => {
    if (name in next && (next[name] < 0 || next[name] >= from)) return next[name]
    let at = text.indexOf(mark, from)
    while (at >= 0 && !fits(at)) at = text.indexOf(mark, at + 1)
    return next[name] = at
  }
  while (i < text.length) {
    const c = text[i], two = text.slice(i, i + 2)
    if (c === '`') {
      let n = 1
      while (text[i + n] === '`') n++
      if (!ticks) {
        ticks = {}
        for (const run of [...text.matchAll(/`+/g)].reverse()) (ticks[run[0].length] ??= []).push(run.index)
      }
      while (ticks[n]?.at(-1) < i + n) ticks[n].pop()
      const end = ticks[n]?.at(-1)
      if (end) put(el('code', {}, text.slice(i + n, end).replace(/^ (.*) $/s, '$1')), end + n)
      else { plain += text.slice(i, i + n); i += n }
      continue
    }
    if (two in MATH) {
      const end = find(MATH[two], i + 2, undefined, 'math ' + two)
      if (end >= 0) { put(el('span', {class: 'math'}, text.slice(i, end + 2)), end + 2); continue }
    }
    if (c === '\\' && /[\\`*_{}#+.!|>~<-]/.test(text[i + 1] ?? '')) { plain += text[i + 1]; i += 2; continue }
    const mark = two in MARKS ? two : c in MARKS ? c : ''
    if (mark && depth < DEEPEST && /\S/.test(text[i + mark.length] ?? ' ') && (mark[0] !== '_' || !/\w/.test(text[i - 1] ?? ' '))) {
      let end = find(mark, i + mark.length + 1, at => /\S/.test(text[at - 1]) && (mark.length > 1 || (text[at - 1] !== c && text[at + 1] !== c)) &&
        (c !== '_' || !/\w/.test(text[at + mark.length] ?? ' ')))
      if (end >= 0) {
        if (mark.length > 1 && text[end + 2] === c) end++ // of ***both*** the inner mark goes with the inner text
        put(el(MARKS[mark], {}, ...inline(text.slice(i + mark.length, end), depth + 1)), end + mark.length)
        continue
      }
      plain += mark
      i += mark.length
      continue
    }
    if (c === '[' || two === '![') {
      const from = i + (c === '[' ? 1 : 2), middle = find('](', from), end = middle < 0 ? -1 : find(')', middle)
      const label = text.slice(from, Math.max(middle, from)), href = end < 0 || label.includes('[') ? null : webAddress(text.slice(middle + 2, end).split(' ')[0])
      if (href && depth < DEEPEST) { put(link(href, ...inline(label || href, DEEPEST)), end + 1); continue }
    }
    if (c === 'h' && depth < DEEPEST && !/\w/.test(text[i - 1] ?? ' ')) {
      const url = bareAddress(text, i)
      if (url) { put(link(webAddress(url), url), i + url.length); continue }
    }
    if (two === '<b' && /^<br ?\/?>/.test(text.slice(i, i + 6))) { put(el('br'), text.indexOf('>', i) + 1); continue }
    plain += c
    i++
  }
  return plain ? [...out, plain] : out
}

// Shows a text in a node. Blocks that did not change keep their nodes: a selection survives, and little is drawn.
function show(node, text) {
  if (node.source === text) return
  node.source = text
  const now = blocksOf(text, 0), old = node.blocks ?? []
  let same = 0
  while (same < now.length && same < old.length && now[same].kind === old[same].kind && now[same].src === old[same].src) same++
  const a = now[same], b = old[same]
  if (a && b && a.kind === 'code' && b.kind === 'code' && a.language === b.language) {
    node.childNodes[same].querySelector('code').textContent = a.code
    same++
  }
  while (node.childNodes.length > same) node.lastChild.remove()
  node.append(...now.slice(same).map(block => nodeOf(block, 0)))
  node.blocks = now
}
