// Where there is no viewer for the page: why, and the command that opens a profile in the desktop viewer, to be run by
// the user.
// No request starts a program on the server.

import { exportProfile } from "./profiles.js"
import { say } from "./words.js"

const STYLE = `
dialog.paro-viewer{font:13px/1.45 system-ui,sans-serif;color:var(--input-text,#ddd);background:var(--comfy-menu-bg,#353535);
 border:1px solid var(--border-color,#4e4e4e);border-radius:8px;padding:0;width:min(560px,90vw)}
.paro-viewer::backdrop{background:rgba(0,0,0,.5)}
.paro-viewer>div{padding:16px 18px;display:flex;flex-direction:column;gap:10px}
.paro-viewer b{overflow-wrap:anywhere}
.paro-viewer input{font:12px/1.5 ui-monospace,monospace;color:inherit;background:var(--comfy-input-bg,#222);
 border:1px solid var(--border-color,#4e4e4e);border-radius:4px;padding:6px 8px}
.paro-viewer nav{display:flex;gap:6px;justify-content:flex-end}
.paro-viewer button{font:12px system-ui,sans-serif;color:inherit;background:var(--comfy-input-bg,#222);cursor:pointer;
 border:1px solid var(--border-color,#4e4e4e);border-radius:4px;padding:5px 12px}
.paro-viewer button:hover{border-color:#7aa2f7}`

// Letters and digits of any script, and signs that no shell reads within double quotes. A profile may come from
// anyone, and its name goes into a command.
const PLAIN = /^[\p{L}\p{N}_][\p{L}\p{M}\p{N} .,_()[\]{}+=@#&;'~^-]*$/u

export const command = (name) => `python -m paroattention view ${PLAIN.test(name) ? `"${name}.json"` : "FILE"}`

const make = (tag, text) => Object.assign(document.createElement(tag), { textContent: text })

// fail: called with an Error of an action. reason: why the page has no viewer.
export function showCommand(name, fail, reason) {
  const field = Object.assign(make("input", ""), { value: command(name), readOnly: true, spellcheck: false })
  const lines = [make("b", `${name}.json`), make("div", `${say("viewer_missing")}: ${reason}`)]
  lines.push(make("div", say("viewer_run")), field, make("div", say("viewer_picture")))
  if (!PLAIN.test(name)) lines.push(make("div", say("viewer_file")))
  const dialog = Object.assign(make("dialog", ""), { className: "paro-viewer" })
  const copy = async () => {
    field.select()
    // Only pages of this machine or over HTTPS may write to the clipboard.
    if (navigator.clipboard) await navigator.clipboard.writeText(field.value)
    else document.execCommand("copy")
    buttons.querySelector("[data-action=copy]").textContent = say("copied")
  }
  const buttons = make("nav", "")
  const button = (key, action) => {
    const element = make("button", say(key))
    element.dataset.action = key
    element.addEventListener("click", () => Promise.resolve(action()).catch(fail))
    buttons.append(element)
  }
  button("copy", copy)
  button("download", () => exportProfile(name))
  button("close", () => dialog.close())
  const content = make("div", "")
  content.append(...lines, buttons)
  dialog.append(make("style", STYLE), content)
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close())
  dialog.addEventListener("close", () => dialog.remove())
  document.body.append(dialog)
  dialog.showModal()
  field.select()
}
