// The Viewer button: the viewer in a dialog over the graph, or in a tab of its own. Where the library came without it,
// the dialog of viewer_command.js says so, and what to run instead.

import { api } from "../../scripts/api.js"
import { showCommand } from "./viewer_command.js"
import { say } from "./words.js"

const STYLE = `
dialog.paro-web-viewer{font:13px/1.45 system-ui,sans-serif;color:var(--input-text,#ddd);padding:0;overflow:hidden;
 background:var(--comfy-menu-bg,#353535);border:1px solid var(--border-color,#4e4e4e);border-radius:8px;
 width:96vw;height:94vh;max-width:none;max-height:none}
dialog.paro-web-viewer[open]{display:flex;flex-direction:column}
.paro-web-viewer::backdrop{background:rgba(0,0,0,.5)}
.paro-web-viewer nav{display:flex;gap:6px;align-items:center;padding:4px 8px}
.paro-web-viewer b{flex:1;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.paro-web-viewer button{font:12px system-ui,sans-serif;color:inherit;background:var(--comfy-input-bg,#222);
 border:1px solid var(--border-color,#4e4e4e);border-radius:4px;padding:3px 12px;cursor:pointer}
.paro-web-viewer iframe{flex:1;border:0;min-height:0}`

const make = (tag, text) => Object.assign(document.createElement(tag), { textContent: text })

const place = (name) => `${api.apiURL("/paro/viewer/viewer.html")}?profile=${encodeURIComponent(name)}`

// Why there is no viewer for the page, or null.
async function missing() {
  const answer = await api.fetchApi("/paro/viewer/viewer.html", { cache: "no-cache" })
  return answer.ok ? null : ((await answer.json().catch(() => ({}))).error ?? answer.statusText)
}

// fail: called with an Error of an action.
export async function showViewer(name, fail) {
  const reason = await missing()
  if (reason !== null) return showCommand(name, fail, reason)
  openDialog(name)
}

function openDialog(name) {
  const dialog = Object.assign(make("dialog", ""), { className: "paro-web-viewer" })
  const frame = Object.assign(make("iframe", ""), { src: place(name), title: say("viewer"), allow: "clipboard-write" })
  const unsaved = () => frame.contentWindow?.paro?.modified?.() ?? false
  const close = () => (!unsaved() || window.confirm(`${name}: ${say("viewer_unsaved")}`)) && dialog.close()
  const button = (key, action) => {
    const element = make("button", say(key))
    element.dataset.action = key
    element.addEventListener("click", action)
    return element
  }
  const tab = () => {
    if (unsaved() && !window.confirm(`${name}: ${say("viewer_unsaved")}`)) return
    window.open(place(name), "_blank")
    dialog.close()
  }
  const bar = make("nav", "")
  bar.append(make("b", name), button("viewer_tab", tab), button("close", close))
  dialog.append(make("style", STYLE), bar, frame)
  // Escape belongs to the viewer: its panels and menus close by it.
  dialog.addEventListener("cancel", (event) => event.preventDefault())
  // Neither keys nor the wheel reach the graph below.
  for (const kind of ["keydown", "keyup", "wheel", "pointerdown"]) {
    dialog.addEventListener(kind, (event) => event.stopPropagation())
  }
  dialog.addEventListener("close", () => dialog.remove())
  document.body.append(dialog)
  dialog.showModal()
  frame.focus()
}
