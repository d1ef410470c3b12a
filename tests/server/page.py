"""The page of `hadal serve` in Chromium, as a person uses it: python3 tests/server/page.py HADAL [FOLDER]

Against a server that says always the same (page_fake.py), then against the program with models/tiny. Into FOLDER go
pictures of the page. Prints `ok NAME` or `FAIL NAME why`.
"""
import json
import os
import subprocess
import sys
import tempfile
import time

import kit
from kit import check
from page_browser import Browser, find_chromium
from page_fake import HOSTILE, PARTS, Fake

FACTS = "document.querySelector('article.answer:last-child .facts')?.innerText"
LAST = "document.querySelector('article.answer:last-child')"
BUSY = LAST + "?.getAttribute('aria-busy') === 'true'"


def fresh(browser, url, **how):
    p = browser.page(url, **how)
    p.js("localStorage.clear(); sessionStorage.clear()")
    p.reload()
    if not p.wait("document.querySelector('#model.ready')"):
        raise RuntimeError("the page finds no model")
    return p


def ask(p, text, wait=True):
    p.click("#prompt")
    p.type(text)
    p.key("Enter")
    return p.wait("!(%s) && (%s?.querySelector('.error, .note, .facts')?.innerText)" % (BUSY, LAST)) if wait else None


def press(p, label, where="article"):
    p.click("%s button[aria-label^=%s]" % (where, json.dumps(label)))


def answers(browser, fake, url):
    p = fresh(browser, url)
    check("page: the model's name", p.text("#model") == "deep-sea-7b" and "deep-sea-7b" in p.js("document.title"), p.text("#model"))
    check("page: waits for a message", p.seen("#empty") and p.js("document.activeElement.id") == "prompt")
    p.key("Enter")
    check("send: not an empty message", p.count("article") == 0 and not fake.requests)
    p.type("two")
    p.key("Enter", shift=True)
    p.type("lines")
    p.key("Enter")
    p.wait(FACTS)
    check("send: Shift+Enter makes a line, Enter sends", fake.requests[-1]["messages"] == [{"role": "user", "content": "two\nlines"}])
    check("send: what is asked for", {k: v for k, v in fake.requests[-1].items() if k != "messages"} ==
          {"model": "deep-sea-7b", "stream": True, "stream_options": {"include_usage": True}}, fake.requests[-1])
    check("answer: its text", p.text(".answer .text") == "You said: two\nlines", p.text(".answer .text"))
    facts = p.js(FACTS)
    check("answer: tokens, speed, first token, cache", all(w in facts for w in
          (" tokens ·", " tokens/s · first after ", " s · prompt 9, 4 cached")), facts)
    fake.pause = 0.02
    ask(p, "think", wait=False)
    check("thinking: open while it lasts", p.wait("document.querySelector('.think[open]')?.innerText.includes('First I look')"))
    check("thinking: says so", p.text(".think summary").startswith("Thinking") and p.text("#say") == "Thinking" and p.js(BUSY))
    check("thinking: seconds", p.wait("/^Thinking for \\d+ s$/.test([...document.querySelectorAll('.think summary')].at(-1).innerText)"))
    check("thinking: folds when the answer begins", p.wait(LAST + ".querySelector('.text:not(.think .text)').innerText && " + LAST +
                                                          ".querySelector('.think:not([open])') && true"))
    p.wait(FACTS)
    fake.pause = 0
    check("answer: characters that came in pieces", p.text(".answer .text") == "The answer is 42 🐟.", p.text(".answer .text"))
    check("thinking: how long", "Thought for " in p.text(".think summary"), p.text(".think summary"))
    press(p, "Answer again")
    p.wait(FACTS)
    p.click(".think summary")
    check("thinking: opens again", p.wait(LAST + ".querySelector('.think[open] .text').innerText.endsWith('Größe ≤ 10 °C 🐟.')"))
    check("answer: complete is said", p.wait("document.querySelector('#say').innerText === 'The answer is complete.'"))
    check("request: reasoning goes back", ask(p, "more") and "Größe" in fake.requests[-1]["messages"][3]["reasoning_content"])
    ask(p, "only thinking")
    check("answer: cut while thinking", p.text(".answer .note").startswith("Cut here") and p.seen("article:last-child .think"))
    check("no errors", not p.errors, p.errors)
    p.close()


def stopping(browser, fake, url):
    p = fresh(browser, url)
    fake.pause = 0.005
    for how in ("Esc", "button"):
        gone = fake.gone
        ask(p, "long", wait=False)
        p.wait(LAST + "?.innerText.includes('line 40')")
        check("stop: the button says so", p.js("document.querySelector('#go').title") == "Stop")
        at_end = "(s => s.scrollHeight - s.scrollTop - s.clientHeight < 60)(document.querySelector('#scroller'))"
        check("scroll: the end stays in sight", p.wait(at_end, 2) and not p.seen("#down"))
        p.js("document.querySelector('#scroller').scrollTop = 10")
        p.wait("document.querySelector('#down').checkVisibility()")
        lines = p.js(LAST + ".innerText.length")
        p.wait(LAST + ".innerText.length > %d" % (lines + 100))
        check("scroll: who reads above stays there", p.js("document.querySelector('#scroller').scrollTop") == 10 and p.seen("#down"))
        p.click("#down")
        check("scroll: the way down", p.wait(at_end) and p.wait("!document.querySelector('#down').checkVisibility()"))
        p.key("Escape") if how == "Esc" else p.click("#go")
        check("stop: by " + how, p.wait("!(%s)" % BUSY) and p.text(".answer .note") == "Ended: stopped by you.")
        for _ in range(100):
            if fake.gone > gone:
                break
            time.sleep(0.05)
        check("stop: the server hears of it", fake.gone == gone + 1)
    check("stop: what was said stays", "line 40" in p.text(".answer .text") and p.js("document.querySelector('#go').title") == "Send")
    ask(p, "long", wait=False)
    p.wait(LAST + "?.innerText.includes('line 1')")
    p.reload()
    p.wait("document.querySelector('article')")
    check("reload: an answer that was not ended", p.text(".answer .note") == "The page was closed before the answer ended." and
          "line 1" in p.text(".answer .text"), p.text(".answer .note"), p.text(".answer .text"))
    fake.pause = 0
    check("no errors", not p.errors, p.errors)
    p.close()


def conversations(browser, fake, url, folder):
    p = fresh(browser, url)
    for text in ("one", "two", "three"):
        ask(p, text)
    users = "[...document.querySelectorAll('.bubble')].map(b => b.innerText)"
    p.click("article.user:nth-of-type(3) button[aria-label^=Edit]")
    p.call("Input.dispatchKeyEvent", type="keyDown", key="a", modifiers=2, commands=["selectAll"])
    p.type("zwei")
    p.key("Enter")
    p.wait(FACTS)
    check("edit: answers from there on", p.js(users) == ["one", "zwei"] and p.text(".answer .text") == "You said: zwei", p.js(users))
    check("edit: the request", [m["content"] for m in fake.requests[-1]["messages"]] == ["one", "You said: one", "zwei"])
    press(p, "Edit")
    p.key("Escape")
    check("edit: Esc gives up", p.js(users) == ["one", "zwei"] and not p.count(".edit"))
    n = len(fake.requests)
    press(p, "Answer again")
    p.wait("document.querySelectorAll('article').length === 4 && " + FACTS)
    check("again: the same request", len(fake.requests) == n + 1 and fake.requests[-1] == fake.requests[-2])
    browser.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    press(p, "Copy", ".answer")
    check("copy", p.wait("navigator.clipboard.readText().then(t => t === 'You said: zwei')"))
    press(p, "Delete this")
    check("delete: a question with its answer", p.js(users) == ["one"] and p.count("article") == 2)
    p.key("k", ctrl=True)
    check("new: Ctrl-K", p.wait("document.querySelector('#empty').checkVisibility()") and p.count("#chats li") == 1)
    ask(p, "second conversation")
    names = "[...document.querySelectorAll('#chats .open')].map(b => b.innerText)"
    check("list: the newest first", p.js(names) == ["second conversation", "one"], p.js(names))
    check("request: conversations are apart", len(fake.requests[-1]["messages"]) == 1)
    p.reload()
    check("reload: all is there", p.wait(FACTS) and p.js(names) == ["second conversation", "one"] and p.js(users) == ["second conversation"])
    p.click("#chats li:last-child .open")
    check("list: the other one", p.js(users) == ["one"] and p.js("document.querySelector('#chats [aria-current]').innerText") == "one")
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=folder)
    p.click("#export")
    for _ in range(200):
        files = [f for f in os.listdir(folder) if f.endswith(".json")]
        if files:
            break
        time.sleep(0.05)
    path = os.path.join(folder, files[0])
    check("export: the conversations", sorted(c["messages"][0]["content"] for c in json.load(open(path))["conversations"]) == ["one", "second conversation"])
    for _ in range(2):
        p.click("#chats li .drop")
    check("delete: asks first", p.wait("!document.querySelector('#chats li')") and p.asked == [
        "Delete the conversation “one”?", "Delete the conversation “second conversation”?"], p.asked)
    p.upload("#file", path)
    check("import: they are back", p.wait("document.querySelectorAll('#chats li').length === 2") and sorted(p.js(names)) == ["one", "second conversation"])
    importing(p, folder, names)
    check("no errors", not p.errors, p.errors)
    p.close()


def importing(p, folder, names):
    def take(name, text):
        path = os.path.join(folder, name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        p.upload("#file", path)

    take("saved.json", json.dumps({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "from hadal chat"},
                                                {"role": "assistant", "content": "yes", "reasoning_content": "hm"}]}))
    check("import: what hadal chat saved", p.wait("(%s)[0] === 'from hadal chat'" % names) and p.count("article") == 2)
    p.click("#settings")
    check("import: its system prompt", p.js("document.querySelector('#system').value") == "Be brief.")
    p.key("Escape")
    for name, text in (("a.json", "{"), ("b.json", "[]"), ("c.json", '{"conversations": [1, null, {"messages": 5}, {"messages": [7, {"role": "x"}]}]}'),
                       ("d.json", '{"conversations": 5}')):
        p.js("document.querySelector('#notice').hidden = true")
        take(name, text)
        check("import: refuses " + text, p.wait("document.querySelector('#notice').checkVisibility()") and name in p.text("#notice"))
    # each of these makes a careless parser of Markdown quadratic or recurse too deep
    hostile = ["*a " * 60000, "**a " * 60000, "_a" * 60000, "`" * 60000 + "a", "".join("`" * k + "a" for k in range(1, 500)), "[" * 120000, "[a](" * 40000,
               "![" * 60000, ">" * 120000, "- " * 60000, "> - " * 30000, "\\(" * 60000, "$$a" * 40001, "|" * 60000 + "\n" + "|-" * 60000, "1. " * 40000,
               "http://" + "a." * 60000, "http://" * 20000, "<b" * 60000, "#" * 120000, "~~~" * 40000, "\n".join(" " * k + "- a" for k in range(400)),
               "\n".join("a | b" for _ in range(8000)), "- a\n\n" * 10000]
    take("deep.json", json.dumps({"messages": [{"role": "user", "content": "deep"}, *({"role": "assistant", "content": t} for t in hostile)]}))
    check("Markdown: nothing hangs the page", p.wait("document.querySelectorAll('article.answer').length === %d" % len(hostile)))
    p.js("document.querySelector('#chats .drop').click()")


def settings(browser, fake, url):
    p = fresh(browser, url)
    p.click("#settings")
    for name, value in (("system", "Be deep."), ("temperature", "0.5"), ("top_p", "0.9"), ("max_tokens", "50"), ("seed", "7")):
        p.js("document.querySelector('#%s').focus()" % name)
        p.type(value)
    p.click("dialog .main")
    p.js("(e => { e.value = 'disabled'; e.dispatchEvent(new Event('change', {bubbles: true})) })(document.querySelector('#thinking'))")
    check("settings: the key is asked for only when it is wanted", not p.seen("#key-field"))
    for when in ("", " after a reload"):
        ask(p, "hello")
        r = fake.requests[-1]
        check("settings: in the request" + when, (r["temperature"], r["top_p"], r["max_tokens"], r["seed"], r["thinking"], r["messages"][0]) ==
              (0.5, 0.9, 50, 7, {"type": "disabled"}, {"role": "system", "content": "Be deep."}), r)
        p.reload()
        p.wait("document.querySelector('#model.ready')")
    check("no errors", not p.errors, p.errors)
    p.close()


def mistakes(browser, fake, url):
    p = fresh(browser, url)
    for text, sentence in (("busy", "The queue is full: 256 requests wait."), ("bad", "temperature is 9, but has to be 0 to 2.")):
        ask(p, text)
        check("error: the server's sentence, " + text, p.text("article .error").startswith(sentence), p.text("article .error"))
        p.click("article .error button")
        check("error: try again", p.wait(FACTS) and p.text(".answer .text") == "You said: " + text and not p.count("article .error"))
    ask(p, "ends")
    check("error: an answer without its end", p.text("article .error").startswith("The connection ended before the answer did.") and
          p.text(".answer .text") == "This answer ends")
    wanted = [e for e in p.errors if " 429 " not in e and " 422 " not in e]  # Chromium notes each refusal
    check("no other errors", not wanted, wanted)
    fake.loading = True
    p.reload()
    check("loading: is said", p.wait("document.querySelector('#model').innerText === 'The model is being loaded.'"), p.text("#model"))
    fake.loading = False
    check("loading: goes on by itself", p.wait("document.querySelector('#model.ready')?.innerText === 'deep-sea-7b'"))
    p.close()

    lone = Fake()
    p = fresh(browser, "http://127.0.0.1:%d/" % lone.port)
    lone.close()
    ask(p, "hello?")
    check("error: no server", p.text("article .error").startswith("The server cannot be reached."), p.text("article .error"))
    p.close()

    guarded = Fake(key="s3cret")
    p = browser.page("http://127.0.0.1:%d/" % guarded.port)
    check("key: asked for when the server wants one", p.wait("document.querySelector('#key-field')?.checkVisibility()") and
          p.js("document.activeElement.id") == "key")
    p.type("wrong")
    p.key("Enter")
    check("key: a wrong one", p.wait("document.querySelector('#dialog').open && document.querySelector('#model.bad')?.innerText === 'This server needs an API key.'"))
    p.js("document.querySelector('#key').select()")
    p.type("s3cret")
    p.key("Enter")
    check("key: the right one", p.wait("document.querySelector('#model.ready')") and ask(p, "hello") and p.text(".answer .text") == "You said: hello")
    p.reload()
    check("key: kept as long as the tab", p.wait("document.querySelector('#model.ready')") and p.js("JSON.stringify(localStorage).includes('s3cret')") is False)
    p.js("sessionStorage.setItem('hadal.key', 'old')")
    ask(p, "again", wait=False)
    check("key: asked for in the middle", p.wait("document.querySelector('#dialog').open"))
    p.js("document.querySelector('#key').select()")
    p.type("s3cret")
    p.key("Enter")
    check("key: the question is asked again", p.wait(FACTS) and p.text(".answer .text") == "You said: again" and p.count("article") == 4)
    p.close()
    guarded.close()


def texts(browser, fake, url):
    p = fresh(browser, url)
    ask(p, "hostile")
    p.click(".think summary")
    for where, name in ((".answer > .text", "answer"), (".think .text", "reasoning")):
        check("hostile text: no such elements in the " + name, p.count(", ".join(where + " " + t for t in (
            "img", "script", "svg", "iframe", "style", "b", "[onclick]", "[onerror]", "[onload]", "[onmouseover]"))) == 0)
        links = p.js("[...document.querySelectorAll('%s a')].map(a => [a.protocol, a.rel, a.host])" % where)
        check("hostile text: links of the %s lead to the web" % name, links and all(a == ["https:", "noopener noreferrer", "example.invalid"] for a in links), links)
        check("hostile text: is shown in the " + name, all(w in p.text(where) for w in ("<img src=x onerror=", "</script>", "javascript:window.hurt=4", "<iframe")))
    for a in range(p.count(".text a")):
        p.js("document.querySelectorAll('.text a')[%d].dispatchEvent(new MouseEvent('mouseover', {bubbles: true}))" % a)
    check("hostile text: nothing of it ran", p.js("typeof window.hurt") == "undefined")
    p.reload()
    p.wait(FACTS)
    check("hostile text: nor after a reload", p.js("typeof window.hurt") == "undefined" and p.text("#chats .open") == "hostile")
    check("policy: nothing was even refused", not p.errors, p.errors)
    p.js("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hurt=1\">')")
    time.sleep(0.2)
    check("policy: would refuse it", p.js("typeof window.hurt") == "undefined" and any("Content Security Policy" in e for e in p.errors), p.errors)
    p.js("document.querySelector('#new').click()")
    ask(p, "How does pressure grow?")
    text = ".answer > .text "
    counts = [p.count(text + t) for t in ("h1", "ol > li", "ul > li", "th", "td.right", "pre", "blockquote", "del", "a", ".math")]
    check("Markdown: blocks and spans", counts == [1, 3, 2, 3, 6, 1, 1, 1, 2, 2], counts)
    check("Markdown: spans", p.js("['em', 'strong', 'p code'].map(t => document.querySelector('%s' + t).innerText)" % text) ==
          ["nearly", "linearly", "p = rho * g * h"])
    check("Markdown: code is left as it is", p.text("pre") == "def pressure(depth, density=1025.0, g=9.81):\n    return 1.013 + density * g * depth / 1e5   # bar")
    check("Markdown: what is none", "snake_case_name, 3 * 4 * 5 and" in p.text(text) and "\\[p_{max} = " in p.text(text))
    check("Markdown: a bare address without its full stop", p.js("[...document.querySelectorAll('.answer a')].at(-1).href") == "https://example.org/a_b_c")
    browser.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    p.click(".block button")
    check("Markdown: code is copied", p.wait("navigator.clipboard.readText().then(t => t.startsWith('def pressure'))"))
    p.close()


def status_view(browser, fake, url):
    p = fresh(browser, url)
    p.click("#view")
    check("status: slots", p.wait("document.querySelectorAll('#slots .on').length === 3") and p.count("#slots i") == 64)
    shown = p.text("#status")
    for words in ("Being answered\n3 of 64", "Waiting\n2 of 256", "57 % of 2.3 GiB", "running for 1 d 2 h", "context 131,072", "5d1f0c9b\t/messages\t38,411\t38,208\t512\t21.9",
                  "Drafts accepted\n80 %", "Preempted\n2"):
        check("status: " + words.split("\n")[0][:40], words in shown, shown)
    check("status: tokens/s of now", p.wait("parseFloat(document.querySelector('[data-is=writing]').innerText) > 0"))
    check("status: cache bar", p.js("[...document.querySelectorAll('#bar i')].map(i => Math.round(100 * i.offsetWidth / i.parentNode.offsetWidth))") == [20, 37])
    n = fake.asked
    check("status: asked for while it is seen", p.wait("new Promise(f => setTimeout(() => f(true), 2500))") and fake.asked > n)
    p.click("#view")
    check("status: back to the conversation", p.wait("document.querySelector('#prompt').checkVisibility()") and not p.seen("#status"))
    time.sleep(0.3)
    n = fake.asked
    time.sleep(1.5)
    check("status: not asked for while it is hidden", fake.asked == n)
    p.go(url + "#status")
    check("status: has an address", p.wait("document.querySelector('#status').checkVisibility()"))
    check("no errors", not p.errors, p.errors)
    p.close()


def phone(browser, fake, url):
    p = fresh(browser, url, width=360, height=740, phone=True)
    wide = "document.documentElement.scrollWidth > 360 || document.querySelector('#scroller').scrollWidth > 360"
    ask(p, "How wide is it?")
    ask(p, "hostile")
    ask(p, "w" * 300)
    check("phone: a conversation fits", p.js(wide) is False)
    check("phone: the composer is in sight", p.js("(r => r.top > 0 && r.bottom <= 740 && r.right <= 360)(document.querySelector('#go').getBoundingClientRect())"))
    check("phone: the list is away", not p.seen("#side"))
    p.click("#menu")
    check("phone: the list", p.wait("document.querySelector('#side').checkVisibility({visibilityProperty: true})") and p.count("#chats li") == 1)
    p.click("#new")
    check("phone: the list goes", p.wait("!document.querySelector('#side').checkVisibility({visibilityProperty: true})") and p.seen("#empty"))
    p.click("#settings")
    check("phone: settings fit", p.js("(r => r.left >= 0 && r.right <= 360 && r.bottom <= 740)(document.querySelector('#dialog').getBoundingClientRect())"))
    p.key("Escape")
    p.click("#view")
    p.wait("document.querySelector('#slots').children.length")
    check("phone: status fits", p.js(wide) is False)
    check("no errors", not p.errors, p.errors)
    p.close()


def readers(browser, fake, url):
    """Names and roles as a screen reader gets them."""
    p = fresh(browser, url)
    ask(p, "think")
    nodes = p.call("Accessibility.getFullAXTree")["nodes"]
    named = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n["ignored"]]
    check("screen reader: every control has a name", all(name for role, name in named if role in ("button", "textbox", "combobox", "link", "navigation", "log")),
          [x for x in named if not x[1] and x[0] in ("button", "textbox", "combobox")])
    roles = {role for role, _ in named}
    check("screen reader: landmarks, log and status", {"navigation", "main", "log", "status", "article"} <= roles, roles)
    check("screen reader: the answer is not read while it grows", p.js(LAST + ".getAttribute('aria-busy')") == "false")
    p.close()


def pictures(browser, fake, url, folder):
    for name, how in (("light", {}), ("dark", {"dark": True}), ("phone", {"width": 360, "height": 740, "phone": True})):
        p = fresh(browser, url, **how)
        ask(p, "Why is the sea salty?")
        p.js("document.querySelector('#new').click()")
        ask(p, "How does pressure grow with depth?")
        for at, top in (("top", 0), ("end", 1e6)):
            p.js("document.querySelector('#scroller').scrollTop = %d" % top)
            time.sleep(0.2)
            p.picture("%s/%s-%s.png" % (folder, name, at))
        p.js("document.querySelector('#settings').click()")
        p.picture("%s/%s-settings.png" % (folder, name))
        p.key("Escape")
        p.js("document.querySelector('#view').click()")
        time.sleep(8)
        p.picture("%s/%s-status.png" % (folder, name))
        p.close()


def endless(folder):
    """A model of random weights whose answers have no end of their own."""
    def config(c):
        c.pop("eos_token_id")
        c["max_position_embeddings"] = 1 << 18

    def words(c):
        c.pop("eos_token")
        c["chat_template"] = c["chat_template"].replace(" + eos_token", "")

    return folder.model("endless", config=config, generation_config=lambda c: c.pop("eos_token_id"), tokenizer_config=words)


def real(browser, program):
    with kit.Server(program, "models/tiny") as s:
        url = "http://127.0.0.1:%d/" % s.port
        r = s.get("/")
        check("program: the page is its source", r.body == b"".join(open("src/server/" + f, "rb").read() for f in PARTS) + b"</script>\n" and
              r.headers["content-type"] == "text/html; charset=utf-8", r.status)
        p = fresh(browser, url)
        check("program: the model", p.text("#model") == "tiny", p.text("#model"))
        ask(p, "c7+8-3+5-9")
        check("program: an answer", p.text("article.answer").strip(), p.text("#messages"))
        check("program: its facts", " tokens · " in p.js(FACTS) and "first after" in p.js(FACTS), p.js(FACTS))
        p.click("#view")
        check("program: status", p.wait("document.querySelector('#totals')?.innerText.match(/Tokens written\\n[1-9]/)") and
              not p.seen("#status-error"), p.text("#status"))
        check("program: no errors", not p.errors, p.errors)
        p.close()
    with kit.Folder() as folder, kit.Server(program, endless(folder)) as s:
        p = fresh(browser, "http://127.0.0.1:%d/" % s.port)
        p.js("localStorage.setItem('hadal.settings', JSON.stringify({max_tokens: '60', seed: '1'}))")
        p.reload()
        p.wait("document.querySelector('#model.ready')")
        ask(p, "Why is the sea salty?")
        ask(p, "And how deep is it?")
        check("program: a second question finds the first in the cache", p.wait("/, [1-9][0-9]* cached/.test(%s)" % FACTS), p.text("#messages"))
        p.reload()
        check("program: the conversation is kept", p.wait("document.querySelectorAll('article').length === 4"))
        p.js("localStorage.setItem('hadal.settings', '{}')")
        p.reload()
        p.wait("document.querySelector('#model.ready')")
        ask(p, "Go on.", wait=False)
        p.wait("(%s) && %s.innerText.length > 20" % (BUSY, LAST))
        status = s.get("/status").json
        check("program: it is being answered", status["engine"]["running"] == 1 and len(status["requests"]) == 1, status)
        p.key("Escape")
        check("program: stop", p.wait("!(%s)" % BUSY) and p.text(".answer .note") == "Ended: stopped by you.", p.text("article.answer"))
        check("program: the server stops, too", any(time.sleep(0.05) or s.get("/status").json["engine"]["running"] == 0 for _ in range(200)))
        check("program: no errors there", not p.errors, p.errors)
        p.close()


def main(program, folder=None):
    chromium = find_chromium()
    if not chromium:
        print("SKIP the page: no Chromium here")
        return
    fake = Fake()
    url = "http://127.0.0.1:%d/" % fake.port
    with tempfile.TemporaryDirectory(prefix="hadal-page-") as scratch, Browser(chromium) as browser:
        steps = [lambda: answers(browser, fake, url), lambda: stopping(browser, fake, url), lambda: conversations(browser, fake, url, scratch),
                 lambda: settings(browser, fake, url), lambda: mistakes(browser, fake, url), lambda: texts(browser, fake, url),
                 lambda: status_view(browser, fake, url), lambda: phone(browser, fake, url), lambda: readers(browser, fake, url)]
        if folder:
            os.makedirs(folder, exist_ok=True)
            steps.append(lambda: pictures(browser, fake, url, folder))
        if b"  serve " in subprocess.run([program, "help"], capture_output=True).stdout:
            steps.append(lambda: real(browser, program))
        for step in steps:
            check("page: to the end", lambda: step() or True)
    fake.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
    kit.finish()
