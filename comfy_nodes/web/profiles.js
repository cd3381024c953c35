// Profiles through the plugin's routes: names, import, export; and the drop-downs that hold them.

import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"
import { say } from "./words.js"

export const NODES = ["PAROAttention", "PAROCalibrate", "PAROInspect"]
const WORDS = ["auto", "none"]
const MAX_BYTES = 64 * 2 ** 20

let names = null
// Files whose names cannot be chosen: {file, rule, rename}.
export let notOffered = []

async function fetchJson(path, options) {
  const answer = await api.fetchApi(path, options)
  const body = await answer.json().catch(() => ({}))
  if (!answer.ok) {
    const error = new Error(body.error ?? `${answer.status} ${answer.statusText}`)
    error.status = answer.status
    throw error
  }
  return body
}

export async function profileNames() {
  if (names === null) {
    const found = await fetchJson("/paro/profiles")
    notOffered = found.not_offered ?? []
    names = found.profiles.map((profile) => profile.name)
  }
  return names
}

// All nodes of ours, those inside of subgraphs too.
export function nodesOfOurs() {
  const found = []
  const visit = (graph) => {
    for (const node of graph?.nodes ?? graph?._nodes ?? []) {
      if (NODES.includes(node.comfyClass)) found.push(node)
      if (node.subgraph) visit(node.subgraph)
    }
  }
  visit(app.graph?.rootGraph ?? app.graph)
  return found
}

// Asks the server anew and puts the names into every profile drop-down; `changed` is a new name.
export async function refreshLists(changed) {
  if (changed !== undefined || names === null) {
    names = null
    try {
      await profileNames()
    } catch (error) {
      console.warn("PARO:", error.message)
      return
    }
  }
  for (const node of nodesOfOurs()) {
    const widget = node.widgets?.find((one) => one.name === "profile")
    if (!widget?.options) continue
    const words = WORDS.filter((word) => node.comfyClass === "PAROAttention" && word)
    widget.options.values = [...words, ...names]
  }
  app.canvas?.setDirty?.(true, true)
}

export async function importProfile(file) {
  // macOS hands letters and their accents over apart. Which names are good is the server's to say.
  const stem = file.name.replace(/\.json$/i, "").normalize("NFC")
  const name = stem.toWellFormed?.() ?? stem
  if (file.size > MAX_BYTES) throw new Error("too_large")
  // The bytes as they are: as a text, another encoding than UTF-8 could not be told any more.
  const body = await file.arrayBuffer()
  const put = (query) =>
    fetchJson(`/paro/profiles/${encodeURIComponent(name)}${query}`, {
      method: "PUT",
      headers: { "Content-Type": "application/json" },
      body,
    })
  try {
    await put("")
  } catch (error) {
    if (error.status !== 409) throw error
    const dialog = app.extensionManager?.dialog
    const sure = dialog
      ? await dialog.confirm({ title: "PARO", message: `${name}: ${say("overwrite")}`, type: "overwrite" })
      : window.confirm(`${name}: ${say("overwrite")}`)
    if (!sure) return null
    await put("?overwrite=1")
  }
  return name
}

export async function exportProfile(name) {
  const answer = await api.fetchApi(`/paro/profiles/${encodeURIComponent(name)}`)
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error ?? answer.statusText)
  const url = URL.createObjectURL(await answer.blob())
  const link = Object.assign(document.createElement("a"), { href: url, download: `${name}.json` })
  link.click()
  setTimeout(() => URL.revokeObjectURL(url), 10000)
}

// Queues the user's own graph with this node watching instead of computing sparsely.
export async function queueCalibration(node) {
  const prompt = await app.graphToPrompt()
  const key = Object.keys(prompt.output).find((id) => id === String(node.id) || id.endsWith(`:${node.id}`))
  if (key === undefined) throw new Error("not_in_graph")
  const { model, save_as: saveAs } = prompt.output[key].inputs
  if (!Array.isArray(model)) throw new Error("no_model")
  const given = typeof saveAs === "string" ? saveAs : ""
  prompt.output[key] = {
    ...prompt.output[key],
    class_type: "PAROCalibrate",
    inputs: { model, name: given, queries: 64, every_n_steps: 1, exact: false },
  }
  await api.queuePrompt(0, prompt)
}
