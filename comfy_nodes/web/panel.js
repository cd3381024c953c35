// The panel on a node: state, density, retained mass, time saved, warnings, and four buttons.
// All text that comes from the server is set as text, never as HTML.

import { app } from "../../scripts/app.js"
import { exportProfile, importProfile, queueCalibration } from "./profiles.js"
import { showViewer } from "./viewer.js"
import { say } from "./words.js"

const STYLE = `
.paro{font:12px/1.35 system-ui,sans-serif;color:var(--input-text,#ddd);background:var(--comfy-input-bg,#222);
 border:1px solid var(--border-color,#4e4e4e);border-radius:6px;padding:7px 8px;display:flex;flex-direction:column;
 gap:5px;box-sizing:border-box;width:100%;height:100%;overflow:hidden}
.paro.over{border-color:#7aa2f7}
.paro .row,.paro .bar,.paro .buttons{flex:none}
.paro .row{display:flex;justify-content:space-between;gap:8px;white-space:nowrap}
.paro .row[hidden]{display:none}
.paro .row>*{overflow:hidden;text-overflow:ellipsis}
.paro .row.head>:first-child,.paro .row:not(.head)>:last-child{flex:none}
.paro .dim{color:var(--descrip-text,#999)}
.paro .bar{height:5px;border-radius:3px;background:var(--border-color,#4e4e4e);overflow:hidden}
.paro .bar>i{display:block;height:100%;width:0;background:#5b9bd5;transition:width .2s}
.paro .bar.density>i{background:#e0a458}
.paro .warn{color:#e0a458;overflow:auto;flex:1 1 0;min-height:0}
.paro .warn div{overflow-wrap:anywhere}
.paro .buttons{display:flex;gap:4px;margin-top:auto}
.paro button{flex:1;font:11px system-ui,sans-serif;color:inherit;background:var(--comfy-menu-bg,#353535);cursor:pointer;
 border:1px solid var(--border-color,#4e4e4e);border-radius:4px;padding:3px 2px;min-width:0}
.paro button:hover:not(:disabled){border-color:#7aa2f7}
.paro button:disabled{opacity:.45;cursor:default}`

const percent = (share, digits = 0) => (share == null ? "–" : `${(100 * share).toFixed(digits)} %`)
const seconds = (value) => (value == null ? "–" : `${value < 10 ? value.toFixed(2) : Math.round(value)} s`)

function make(tag, className, ...children) {
  const element = document.createElement(tag)
  if (className) element.className = className
  element.append(...children)
  return element
}

export class Panel {
  constructor(node) {
    this.node = node
    this.state = null
    this.calibrates = node.comfyClass === "PAROAttention"
    // The page keeps a margin of 10 around it.
    this.height = this.base = { PAROAttention: 224, PAROCalibrate: 100, PAROInspect: 60 }[node.comfyClass]
    this.told = new Set()
    this.notOffered = []
    if (!document.getElementById("paro-style")) {
      document.head.append(Object.assign(make("style"), { id: "paro-style", textContent: STYLE }))
    }
    this.build()
  }

  build() {
    this.title = make("span", "", say("idle"))
    this.step = make("span", "dim")
    this.progress = make("i")
    this.density = make("i")
    this.figures = {}
    const figure = (key) => {
      this.figures[key] = make("span", "", "–")
      const row = make("div", "row", make("span", "dim", say(key)), this.figures[key])
      row.title = say(`${key}_tip`)
      return row
    }
    this.warnings = make("div", "warn")
    this.buttons = make("div", "buttons")
    const button = (key, action) => {
      const element = make("button", "", say(key))
      element.title = say(`${key}_tip`)
      element.dataset.action = key
      element.addEventListener("click", () => this.act(element, action))
      this.buttons.append(element)
    }
    if (this.calibrates) button("calibrate", () => this.calibrate())
    if (this.node.comfyClass !== "PAROCalibrate") {
      button("import", () => this.chooseFile())
      button("export", () => exportProfile(this.profile()))
    }
    button("viewer", () => showViewer(this.profile(), (error) => this.toast("error", say(error.message))))
    this.element = make("div", "paro")
    if (this.node.comfyClass !== "PAROInspect") {
      this.element.append(
        make("div", "row head", this.title, this.step),
        make("div", "bar", this.progress)
      )
    }
    if (this.calibrates) {
      this.element.append(
        figure("density"),
        make("div", "bar density", this.density),
        figure("retained"),
        figure("error"),
        figure("heads"),
        figure("saved"),
        (this.skipped = figure("skipped"))
      )
      this.skipped.hidden = true
    }
    if (this.node.comfyClass !== "PAROInspect") this.element.append(this.warnings)
    this.element.append(this.buttons)
    this.element.addEventListener("dragover", (event) => {
      event.preventDefault()
      event.stopPropagation()
      this.element.classList.add("over")
    })
    this.element.addEventListener("dragleave", () => this.element.classList.remove("over"))
    this.element.addEventListener("drop", (event) => {
      event.preventDefault()
      event.stopPropagation()
      this.element.classList.remove("over")
      this.drop(event)
    })
  }

  // Called with the server's `paro.status`.
  show(state) {
    this.state = state
    this.title.textContent = say(state.state) // as it came, where there is no word of ours
    this.step.textContent = state.profile || ""
    this.step.title = state.profile || ""
    this.progress.style.width = `${(100 * state.step) / Math.max(1, state.steps)}%`
    this.density.style.width = `${100 * (state.density ?? 0)}%`
    if (this.calibrates) this.showFigures(state)
    const reasons = state.reasons ?? []
    this.showWarnings()
    // A pop-up once a cause and node, when the run is over; the panel keeps the list.
    for (const { text } of state.done ? reasons : []) {
      if (this.told.has(text)) continue
      this.told.add(text)
      this.toast("warn", text)
    }
  }

  // Files of the profile folders whose names cannot be chosen.
  showNotOffered(files) {
    this.notOffered = files
    this.showWarnings()
  }

  showWarnings() {
    const { reasons = [], saved_as: saved } = this.state ?? {}
    this.warnings.replaceChildren(
      ...reasons.map(({ text, count, dense }) =>
        make("div", "", dense ? `${say("dense")}: ${text} (${count} ×)` : text)
      ),
      ...this.notOffered.map(({ file, rule, rename }) => {
        const todo = rename ? `${say("rename")} ${rename}` : say("no_link")
        return make("div", "dim", `${file}: ${say("not_offered")}: ${rule}; ${todo}`)
      })
    )
    if (saved) this.warnings.prepend(make("div", "dim", `${say("saved_as")} ${saved}`))
    this.resize()
  }

  showFigures(state) {
    const { figures } = this
    figures.density.textContent = percent(state.density)
    figures.retained.textContent = percent(state.retained)
    const target = state.target_error == null ? "" : ` (${say("target")} ${percent(state.target_error, 1)})`
    figures.error.textContent = percent(state.error, 1) + target
    figures.heads.textContent = state.heads ? `${state.dense_heads} / ${state.heads}` : "–"
    const saved = state.saved_seconds
    const per = `${seconds(state.sparse_step_seconds)} : ${seconds(state.dense_step_seconds)}`
    figures.saved.textContent = saved == null ? "–" : `${seconds(saved)} (${per})`
    // A row of its own only where a cache such as EasyCache is at work.
    const { skipped_steps: skipped = 0, skipped_seconds: spared, cache } = state
    this.skipped.hidden = !skipped
    if (skipped && !this.grown) {
      this.grown = true
      this.base += 21
      this.resize()
    }
    this.skipped.firstChild.textContent = `${say("skipped")} ${cache || say("another")}`
    figures.skipped.textContent = `${skipped} ${say("steps")} (${seconds(spared)})`
  }

  // Room for up to four lines of warnings, once there are any; a node that is larger stays so.
  resize() {
    const height = this.base + 17 * Math.min(4, 2 * this.warnings.children.length)
    if (height <= this.height || this.warnings.parentNode === null) return
    this.height = height
    this.element.style.minHeight = `${height}px`
    const [width, needed] = this.node.computeSize()
    this.node.setSize([Math.max(width, this.node.size[0]), Math.max(needed, this.node.size[1])])
  }

  failed() {
    this.title.textContent = say("stopped")
  }

  // The profile that the buttons mean: the chosen one, else what the last run used or saved.
  profile() {
    const chosen = this.node.widgets?.find((widget) => widget.name === "profile")?.value
    if (chosen && !["auto", "none"].includes(chosen)) return chosen
    const typed = this.node.widgets?.find((widget) => widget.name === "name")?.value
    const found = this.state?.saved_as || this.state?.profile_name || typed
    if (!found) throw new Error(say("no_profile"))
    return found
  }

  async act(button, action) {
    button.disabled = true
    try {
      await action()
    } catch (error) {
      this.toast("error", say(error.message))
    } finally {
      button.disabled = false
    }
  }

  async calibrate() {
    await queueCalibration(this.node)
    this.title.textContent = say("queued")
  }

  chooseFile() {
    const input = Object.assign(document.createElement("input"), { type: "file", accept: ".json" })
    input.addEventListener("change", () => this.take(input.files))
    input.click()
  }

  // True: the drop was ours, and the page does not try to load it as a workflow.
  drop(event) {
    const files = [...(event.dataTransfer?.files ?? [])].filter((file) => /\.json$/i.test(file.name))
    if (!files.length) return false
    this.take(files)
    return true
  }

  async take(files) {
    for (const file of files) {
      try {
        const name = await importProfile(file)
        if (name === null) continue
        const widget = this.node.widgets?.find((one) => one.name === "profile")
        if (widget) {
          if (!widget.options.values.includes(name)) widget.options.values = [...widget.options.values, name]
          widget.value = name
          widget.callback?.(name)
        }
        this.toast("success", `${say("imported")} ${name}`)
      } catch (error) {
        this.toast("error", `${file.name}: ${say(error.message)}`)
      }
    }
  }

  toast(severity, detail) {
    const toast = app.extensionManager?.toast
    if (toast) toast.add({ severity, summary: "PARO", detail, life: severity === "success" ? 3000 : 8000 })
    else console[severity === "error" ? "error" : "log"]("PARO:", detail)
  }
}
