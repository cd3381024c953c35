// The panel's own words, in the page's language where we have it.

import { app } from "../../scripts/app.js"

const WORDS = {
  en: {
    idle: "not run yet",
    queued: "calibration queued",
    finished: "finished",
    stopped: "stopped",
    density: "density",
    retained: "retained mass",
    heads: "heads kept dense",
    heads_tip: "Of all heads in the profile, those whose own density is 1",
    density_tip: "Share of attention blocks of the grid that are computed",
    retained_tip: "Share of the attention that lies in the computed blocks, as sampled queries measure it",
    error: "output error",
    error_tip: "Of a layer's attention against dense, measured on sampled queries at the newest sampled step",
    target: "target",
    saved: "time saved",
    saved_tip: "Against the dense steps of the same run; in brackets: a sparse and a dense step",
    dense: "dense",
    saved_as: "saved as",
    imported: "imported",
    not_offered: "not offered",
    rename: "rename it to",
    no_link: "put the file itself there",
    no_profile: "choose a profile first, or run once",
    no_model: "connect a model first",
    not_in_graph: "the node is muted, bypassed or leads nowhere",
    calibrate: "Calibrate",
    calibrate_tip: "Queues this graph once with a dense run that is watched, and saves the profile",
    import: "Import",
    import_tip: "A profile from a JSON file; you can also drop it on the node",
    export: "Export",
    export_tip: "Downloads the profile as JSON",
    viewer: "Viewer",
    viewer_tip: "Opens the profile in the viewer, on the server's own screen",
  },
  zh: {
    idle: "尚未运行",
    queued: "校准已加入队列",
    finished: "完成",
    stopped: "已停止",
    density: "密度",
    retained: "保留的注意力",
    heads: "保持稠密的头",
    heads_tip: "配置的所有头中，自身密度为 1 的头",
    density_tip: "网格中被计算的注意力块所占比例",
    retained_tip: "落在被计算的块内的注意力所占比例（由采样查询实测）",
    error: "输出误差",
    error_tip: "一层注意力输出相对稠密结果的误差，由最近一次采样的查询实测",
    target: "目标",
    saved: "节省时间",
    saved_tip: "与同一次运行中的稠密步相比；括号内为稀疏步与稠密步的耗时",
    dense: "稠密",
    saved_as: "已保存为",
    imported: "已导入",
    not_offered: "未列出",
    rename: "请重命名为",
    no_link: "请将文件本身放入该文件夹",
    no_profile: "请先选择一个配置，或先运行一次",
    no_model: "请先连接模型",
    not_in_graph: "该节点被静音、绕过，或没有接到输出",
    calibrate: "校准",
    calibrate_tip: "将当前工作流以稠密方式运行一次并观察，然后保存配置",
    import: "导入",
    import_tip: "从 JSON 文件导入配置；也可以把文件拖到节点上",
    export: "导出",
    export_tip: "将配置下载为 JSON",
    viewer: "查看器",
    viewer_tip: "在服务器本机的屏幕上用查看器打开配置",
  },
}

function language() {
  const setting = app.extensionManager?.setting?.get?.("Comfy.Locale") ?? navigator.language ?? "en"
  return String(setting).toLowerCase().startsWith("zh") ? "zh" : "en"
}

// The word for a key; what is no key comes back as it is.
export const say = (key) => WORDS[language()][key] ?? WORDS.en[key] ?? key
