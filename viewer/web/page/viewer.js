// The page of the viewer: starts the program, calls for its frames when one is due, and lends it what only a page has.

import create from "./paro-viewer.js"
import { Files } from "./files.js"
import { listen } from "./input.js"

const canvas = document.getElementById("canvas")
const note = document.getElementById("note")
const name = new URLSearchParams(location.search).get("profile")
const files = new Files(new URL("../", import.meta.url))
let viewer = null

// When what was reached, in milliseconds since the page began; and frames, for measurements.
const marks = {}
const mark = (what) => (marks[what] ??= performance.now())
let frames = 0
let spent = 0 // milliseconds of ours in all frames

// -- frames: only when the program asks for one, or something happened
let due = 0
let timer = 0

function wake() {
  clearTimeout(timer)
  due ||= requestAnimationFrame(frame)
}

function frame() {
  due = 0
  // Another screen, or the browser's zoom: the page has the same size then, of other pixels.
  if (window.devicePixelRatio !== scale) resize()
  const begun = performance.now()
  const wait = viewer._paro_frame()
  spent += performance.now() - begun
  ++frames
  mark("first frame")
  if (wait === 0) wake()
  else if (wait > 0) timer = setTimeout(wake, wait)
}

let scale = 1

function resize() {
  scale = window.devicePixelRatio
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * scale))
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * scale))
  viewer._paro_size(canvas.width, canvas.height, scale)
}

// -- light and dark: as the page that holds this one, else as the browser
const bright = matchMedia("(prefers-color-scheme: light)")

function outer() {
  try {
    return parent !== window ? parent.document : null
  } catch {
    return null // another site's page
  }
}

// ComfyUI's themes are colours by name: light is where menus are.
function isLight() {
  const around = outer()
  const color = around && getComputedStyle(around.body).getPropertyValue("--comfy-menu-bg").trim()
  if (!color) return bright.matches
  note.style.backgroundColor = color
  const [red, green, blue] = getComputedStyle(note).backgroundColor.match(/[\d.]+/g).map(Number)
  note.style.backgroundColor = ""
  return 0.3 * red + 0.6 * green + 0.1 * blue > 128
}

function followTheme(tell) {
  let last = null
  const look = () => {
    const light = isLight()
    if (light === last) return
    last = light
    document.body.classList.toggle("light", light)
    tell(light)
  }
  look()
  bright.addEventListener("change", look)
  const around = outer()
  const seen = { attributes: true, attributeFilter: ["class", "style"] }
  for (const element of around ? [around.documentElement, around.body] : []) {
    new MutationObserver(look).observe(element, seen)
  }
}

// -- what the program asks of the page (viewer/web/*.cpp)
const page = {
  wake,
  cursor: (kind) => (canvas.style.cursor = kind),
  title: (text) => (document.title = text),
  copy(text) {
    // Only pages of this machine or over HTTPS may write to the clipboard at once.
    if (navigator.clipboard) return void navigator.clipboard.writeText(text).catch(() => {})
    const field = Object.assign(document.createElement("textarea"), { value: text })
    document.body.append(field)
    field.select()
    document.execCommand("copy")
    field.remove()
    canvas.focus()
  },
  setting(key) {
    try {
      return localStorage.getItem(`paro.${key}`) ?? ""
    } catch {
      return ""
    }
  },
  keep(key, text) {
    try {
      localStorage.setItem(`paro.${key}`, text)
      return true
    } catch {
      return false
    }
  },
  handOut(file, bytes, type) {
    const url = URL.createObjectURL(new Blob([bytes], { type }))
    Object.assign(document.createElement("a"), { href: url, download: file }).click()
    setTimeout(() => URL.revokeObjectURL(url), 10000)
  },
  fetch: (id, file) => files.fetch(id, file),
  save: (id, file, bytes, tag) => files.save(id, file, bytes, tag),
  list: () => files.list(),
}

const text = (call, ...values) =>
  viewer.ccall(call, "string", values.map(() => "string"), values)

async function main() {
  if (name) files.prefetch(`${name}.json`)
  viewer = await create({ page })
  mark("program")
  if (!viewer._paro_start()) {
    throw new Error(
      "This browser offers no WebGL 2, which the viewer draws with.\n" +
        "Switch on hardware acceleration, or use another browser.\n" +
        "On a desktop `python -m paroattention view FILE` opens the profile without a browser."
    )
  }
  if (/Mac|iPhone|iPad/.test(navigator.platform)) viewer._paro_mac()
  files.start(viewer)
  followTheme((light) => viewer._paro_theme(light ? 1 : 0))
  const sizes = new ResizeObserver(resize)
  try {
    sizes.observe(canvas, { box: "device-pixel-content-box" })
  } catch {
    sizes.observe(canvas) // Safari
  }
  resize()
  listen(canvas, viewer, files)
  if (name) text("paro_open", `${name}.json`)
  files.list()
  note.textContent = ""
  canvas.focus()
  addEventListener("beforeunload", (event) => viewer._paro_modified() && event.preventDefault())
}

// For the page around, for tests and for the curious.
window.paro = {
  marks,
  frames: () => frames,
  spent: () => spent,
  memory: () => viewer.HEAPU8.length,
  ready: () => viewer !== null && "first frame" in marks,
  modified: () => viewer !== null && viewer._paro_modified() === 1,
  query: (what) => text("paro_query", what),
  place: (what) => text("paro_place", what).trim().split(" ").map(Number),
  run: (script) => text("paro_script", script),
  state: () => text("paro_script_state"),
  mark,
}

main().catch((error) => {
  note.textContent = error.message || String(error)
  window.paro.error = note.textContent
})
