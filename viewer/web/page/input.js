// Mouse, keys, wheel, clipboard and drops, for the program alone: nothing of them reaches the page around.

// Keys that stay the browser's: reload, its own tools, its zoom.
const BROWSERS = new Set(["F5", "F11", "F12"])
const BROWSERS_WITH_CTRL = new Set(["r", "+", "-", "0", "=", "w", "t", "n"])

const modifiers = (event) =>
  (event.ctrlKey ? 1 : 0) | (event.shiftKey ? 2 : 0) | (event.altKey ? 4 : 0) | (event.metaKey ? 8 : 0)

const command = (event) => event.ctrlKey || event.metaKey

function browsers(event) {
  return BROWSERS.has(event.key) || (command(event) && BROWSERS_WITH_CTRL.has(event.key.toLowerCase()))
}

// A letter that is typed, not a command; AltGr is control and alt on some systems.
const typed = (event) =>
  [...event.key].length === 1 && (!command(event) || event.getModifierState("AltGraph"))

export function listen(canvas, viewer, files) {
  const key = (name, mods, down) =>
    viewer.ccall("paro_key", null, ["string", "number", "number"], [name, mods, down ? 1 : 0])
  const stay = (event) => {
    event.preventDefault()
    event.stopPropagation()
  }
  const move = pointer(canvas, viewer)
  canvas.addEventListener("wheel", (event) => {
    stay(event)
    move(event)
    const unit = event.deltaMode === 1 ? 1 / 3 : event.deltaMode === 2 ? 1 : 1 / 100
    viewer._paro_wheel(-event.deltaX * unit, -event.deltaY * unit)
  }, { passive: false })
  canvas.addEventListener("contextmenu", stay)

  // The name that a key had when it went down: with another modifier it would come up under another one.
  const held = new Map()
  addEventListener("keydown", (event) => {
    if (browsers(event)) return
    const paste = command(event) && event.key.toLowerCase() === "v"
    if (paste) return // the paste event brings the text first
    stay(event)
    if (!held.has(event.code)) held.set(event.code, event.key)
    key(event.key, modifiers(event), true)
    if (typed(event)) viewer.ccall("paro_text", null, ["string"], [event.key])
  }, true)
  addEventListener("keyup", (event) => {
    if (browsers(event)) return
    stay(event)
    key(held.get(event.code) ?? event.key, modifiers(event), false)
    held.delete(event.code)
  }, true)
  addEventListener("paste", (event) => {
    viewer.ccall("paro_clipboard", null, ["string"], [event.clipboardData.getData("text/plain")])
    for (const down of [true, false]) key("v", 1, down)
    event.preventDefault()
  })
  canvas.addEventListener("focus", () => viewer._paro_focus(1))
  addEventListener("blur", () => {
    held.clear()
    viewer._paro_focus(0)
  })
  addEventListener("dragover", (event) => event.preventDefault())
  addEventListener("drop", (event) => {
    event.preventDefault()
    for (const file of event.dataTransfer.files) files.take(file)
  })
}

function pointer(canvas, viewer) {
  const BUTTONS = [0, 2, 1] // the browser's middle and right are the program's right and middle
  const move = (event) => {
    const scale = canvas.width / Math.max(1, canvas.clientWidth)
    viewer._paro_mouse(event.offsetX * scale, event.offsetY * scale)
  }
  canvas.addEventListener("pointermove", move)
  canvas.addEventListener("pointerdown", (event) => {
    canvas.focus()
    canvas.setPointerCapture(event.pointerId)
    move(event)
    viewer._paro_button(BUTTONS[event.button] ?? 0, 1)
    event.preventDefault()
  })
  canvas.addEventListener("pointerup", (event) => {
    move(event)
    viewer._paro_button(BUTTONS[event.button] ?? 0, 0)
  })
  canvas.addEventListener("pointercancel", () => viewer._paro_button(0, 0))
  canvas.addEventListener("pointerleave", (event) => {
    if (!canvas.hasPointerCapture(event.pointerId)) viewer._paro_mouse(-1e6, -1e6)
  })
  return move
}
