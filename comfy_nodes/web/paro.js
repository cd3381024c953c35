// The page's side of PAROAttention: registers the panel on our nodes and keeps their lists fresh.

import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"
import { Panel } from "./panel.js"
import { NODES, nodesOfOurs, notOffered, profileNames, refreshLists } from "./profiles.js"

// By node id; a workflow that is loaded anew has new nodes under the same ids.
const panels = new Map()

// The server names a node within subgraphs by the path to it, "12:3".
const panelOf = (id) => panels.get(String(id)) ?? panels.get(String(id).split(":").pop())

// The drop-downs and what the panels say of files that are in none of them.
async function refresh(changed) {
  await refreshLists(changed)
  for (const panel of new Set(panels.values())) panel.showNotOffered(notOffered)
}

const ours = (node) => NODES.includes(node.comfyClass)

app.registerExtension({
  name: "paro.attention",

  async setup() {
    api.addEventListener("paro.status", ({ detail }) => panelOf(detail.node)?.show(detail))
    api.addEventListener("paro.profiles", ({ detail }) => refresh(detail.name))
    api.addEventListener("execution_error", ({ detail }) => panelOf(detail.node_id)?.failed())
    await refresh()
  },

  nodeCreated(node) {
    if (!ours(node)) return
    const panel = new Panel(node)
    node.addDOMWidget("paro_panel", "paro_panel", panel.element, {
      serialize: false,
      hideOnZoom: false,
      getMinHeight: () => panel.height,
      getMaxHeight: () => panel.height,
    }).serialize = false
    node.onDragOver = (event) => [...(event.dataTransfer?.items ?? [])].some((item) => item.kind === "file")
    node.onDragDrop = (event) => panel.drop(event)
    const removed = node.onRemoved
    node.onRemoved = function (...args) {
      if (panels.get(String(node.id)) === panel) panels.delete(String(node.id))
      return removed?.apply(this, args)
    }
    // The id is given after this call.
    queueMicrotask(() => panels.set(String(node.id), panel))
    setTimeout(() => panels.set(String(node.id), panel), 0)
    profileNames().then(() => refresh())
  },

  loadedGraphNode(node) {
    if (ours(node)) for (const panel of new Set(panels.values())) if (panel.node === node) panels.set(String(node.id), panel)
  },
})

// For tests and for the curious: window.paro.panels.get(id).state
window.paro = { panels, nodesOfOurs }
