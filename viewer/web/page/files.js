// Files of ComfyUI's server: fetched into the program's own file system, saved, and watched.

const POLL = 2000 // milliseconds
const PATIENCE = 120000
const MOST = 64 * 2 ** 20
const LOG = "runlog.jsonl"
const CAPTURE = ".capture.safetensors"
const SILENT = "ComfyUI's server does not answer"

const stem = (file) => file.replace(/\.json$/, "")

export class Files {
  // base: where the routes lie, such as /api/paro/.
  constructor(base) {
    this.base = base
    this.early = new Map()
    this.failures = 0
    // Counts fetches and saves: what the server said of versions before one of them is older than it.
    this.changes = 0
    this.saving = 0
  }

  start(viewer) {
    this.viewer = viewer
    const look = () => document.hidden || this.poll()
    setInterval(look, POLL)
    document.addEventListener("visibilitychange", look)
  }

  call(name, ...values) {
    const types = values.map((value) => (typeof value === "number" ? "number" : "string"))
    return this.viewer.ccall(name, null, types, values)
  }

  url(file) {
    if (file === LOG) return new URL("runlog", this.base)
    const kind = file.endsWith(CAPTURE) ? "captures" : "profiles"
    const name = kind === "captures" ? file.slice(0, -CAPTURE.length) : stem(file)
    return new URL(`${kind}/${encodeURIComponent(name)}`, this.base)
  }

  // Begun before the program is there.
  prefetch(file) {
    const answer = fetch(this.url(file), { cache: "no-cache" })
    answer.catch(() => {}) // told when it is asked for
    this.early.set(file, answer)
  }

  async fetch(id, file) {
    let tag = ""
    let problem = ""
    // The program reads a profile's capture after it, if it knows of one.
    const versions = file.endsWith(".json") ? this.versions(stem(file)) : null
    try {
      const early = this.early.get(file)
      this.early.delete(file)
      const answer = await (early ?? fetch(this.url(file), { cache: "no-cache" }))
      if (answer.ok) {
        tag = answer.headers.get("ETag") ?? ""
        this.put(file, await content(answer))
      } else {
        problem = `${file}: ${await reason(answer)}`
      }
    } catch (error) {
      problem = `${file}: ${error instanceof RangeError ? "there is not enough memory for it" : SILENT}`
    }
    const capture = (await versions)?.capture
    if (capture) this.call("paro_version", stem(file) + CAPTURE, capture)
    ++this.changes
    this.call("paro_brought", id, tag, problem)
    if (!problem) this.poll()
  }

  // Whole or not at all.
  put(file, bytes) {
    const { FS } = this.viewer
    FS.writeFile(`${file}.new`, bytes, { canOwn: true })
    FS.rename(`${file}.new`, file)
  }

  // tag: of the version that the edits were made of; empty: the server has no such file.
  async save(id, file, bytes, tag) {
    ++this.saving
    let saved = ""
    let refusal = ""
    try {
      const answer = await fetch(this.url(file), {
        method: "PUT",
        headers: { "Content-Type": "application/json", ...(tag ? { "If-Match": tag } : { "If-None-Match": "*" }) },
        body: bytes,
        signal: AbortSignal.timeout(PATIENCE),
      })
      if (answer.ok) saved = answer.headers.get("ETag") ?? ""
      else if (answer.status === 412) refusal = conflict(file, tag)
      else refusal = `${file}: ${await reason(answer)}`
    } catch {
      refusal = `${SILENT}. Your edits stay: save again once it does.`
    }
    --this.saving
    ++this.changes
    this.call("paro_saved", id, saved, refusal)
    if (saved) this.list()
    this.poll()
  }

  async list() {
    const mark = this.changes
    const answer = await fetch(new URL("profiles", this.base), { cache: "no-cache" }).catch(() => null)
    if (!answer?.ok || mark !== this.changes) return
    const { profiles } = await answer.json()
    this.call("paro_begin_list")
    for (const { name, version } of profiles) if (version) this.call("paro_listed", `${name}.json`, version)
  }

  // {profile, capture, runlog} of a name, null without an answer.
  async versions(name) {
    const url = new URL(`versions/${encodeURIComponent(name)}`, this.base)
    const answer = await fetch(url, { cache: "no-cache", signal: AbortSignal.timeout(10000) }).catch(() => null)
    return answer?.ok ? answer.json().catch(() => null) : null
  }

  // Which versions the server has of what is shown.
  async poll() {
    const shown = this.viewer.ccall("paro_shown", "string", [], [])
    if (!shown || this.saving || this.asking) return
    const mark = this.changes
    this.asking = true
    const found = await this.versions(stem(shown))
    this.asking = false
    this.heard(found !== null)
    if (found === null || mark !== this.changes) return
    this.call("paro_version", shown, found.profile ?? "")
    this.call("paro_version", stem(shown) + CAPTURE, found.capture ?? "")
    this.call("paro_version", LOG, found.runlog ?? "")
  }

  // A single question that is lost is nothing.
  heard(answered) {
    if (answered && this.failures > 1) this.call("paro_tell", 0, "ComfyUI's server answers again.")
    this.failures = answered ? 0 : this.failures + 1
    if (this.failures === 2) this.call("paro_tell", 1, `${SILENT}. What is shown stays, and so do your edits.`)
  }

  // A file of the user's own machine.
  async take(file) {
    try {
      if (!/\.json$/i.test(file.name)) throw new Error("only profiles (.json) can be dropped here")
      if (file.size > MOST) throw new Error("a profile must not exceed 64 MB")
      const name = `${file.name.replace(/\.json$/i, "").normalize("NFC").replaceAll("/", "_")}.json`
      this.put(name, new Uint8Array(await file.arrayBuffer()))
      this.call("paro_own", name)
    } catch (error) {
      this.call("paro_tell", 2, `${file.name}: ${error.message}.`)
    }
  }
}

// The bytes of an answer. Where its size is known they are taken piece by piece into their place: captures are large,
// and the browser would hold them twice.
async function content(answer) {
  const size = Number(answer.headers.get("Content-Length"))
  if (!size || answer.headers.has("Content-Encoding") || !answer.body) return new Uint8Array(await answer.arrayBuffer())
  const bytes = new Uint8Array(size)
  let at = 0
  for (const reader = answer.body.getReader(); ; ) {
    const { done, value } = await reader.read()
    if (done) break
    bytes.set(value, at)
    at += value.length
  }
  if (at !== size) throw new TypeError("the connection was cut")
  return bytes
}

async function reason(answer) {
  const body = await answer.json().catch(() => ({}))
  return body.error ?? `${answer.status} ${answer.statusText}`
}

function conflict(file, tag) {
  if (!tag) return `the server has a ${file} already. Save it under another name.`
  return `${file} was saved by someone else meanwhile. It is read again, and your edits stay: look at them and save again.`
}
