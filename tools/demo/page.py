"""The report as one self-contained HTML page."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

import numpy as np

from . import figures, heads
from .results import SECOND

PARTS = Path(__file__).parent / "page"
POLICIES = {
    "dense": "the model's own attention, without our node",
    "int8": "nothing skipped: what 8 bits cost",
    "fhw": "a second run, heads in the model's own order",
    "auto": "planned from its own first steps",
    "profile": "a profile of another prompt, and its own first steps",
    "alone": "that profile alone, sparse from the first step",
}


class Page:
    """content: report.json. videos: frames by run name. views: all heads of the profile."""

    def __init__(
        self,
        content: dict,
        videos: dict[str, np.ndarray],
        views: list[heads.Head],
        maps: dict,
        warning: str = "",
    ):
        self.content, self.videos, self.views, self.maps = content, videos, views, maps
        self.warning = warning
        every = {row["name"]: row for row in content["runs"]}
        self.rows = {name: row for name, row in every.items() if not name.endswith(SECOND)}
        self.second = {name: every.get(name + SECOND) for name in self.rows}
        self.sparse = [name for name in videos if name != "dense" and name in self.rows]
        self.dense = self.rows["dense"]
        reference = videos["dense"]
        self.factor = figures.amplification([videos[name] - reference for name in self.sparse])

    def html(self) -> str:
        style = (PARTS / "page.css").read_text(encoding="utf-8")
        script = (PARTS / "page.js").read_text(encoding="utf-8")
        sections = [
            self.header(),
            self.tiles(),
            self.troubles(),
            self.results(),
            self.player(),
            self.frames(),
            self.heads(),
            self.method(),
        ]
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            "<title>PAROAttention demo</title>\n"
            f"<style>\n{style}</style>\n</head>\n<body>\n<main>\n{''.join(sections)}</main>\n"
            f'<script type="application/json" id="films">{self.films()}</script>\n'
            f"<script>\n{script}</script>\n</body>\n</html>\n"
        )

    def title(self, name: str) -> str:
        return self.content["details"][name]["title"]

    def label(self, name: str) -> str:
        return f"{self.title(name)} at {self.rows[name]['density']:.2f}"

    def best(self) -> dict | None:
        """The run that the page opens with: the second one at .3."""
        return self.rows.get("second-0.3")

    # Sections

    def header(self) -> str:
        sampling, host = self.content["sampling"], self.content["host"]
        grid = " x ".join(map(str, sampling["grid"]))
        facts = [
            f"prompt &ldquo;{escape(sampling['prompt'])}&rdquo;, seed {sampling['seed']}",
            f"{sampling['tokens']:,} tokens ({grid})",
            f"{sampling['steps']} steps, the first {sampling['watched_steps']} watched",
            escape(f"{host['cpu']}, {host['threads']} threads"),
            escape(self.content["date"]),
        ]
        return (
            "<header>\n<h1>PAROAttention <span>demo</span></h1>\n"
            f"{self.headline()}"
            f'<ul class="facts">{"".join(f"<li>{fact}</li>" for fact in facts)}</ul>\n</header>\n'
        )

    def headline(self) -> str:
        best = self.best()
        if best is None or best["psnr_db"] is None:
            return ""
        faster = self.dense["seconds"] / best["seconds"]
        share = f"{best['density']:.0%}"
        speed = f"{faster:.2f} times as fast as dense" if faster > 1 else "no faster than dense"
        return (
            f'<p class="headline">With {share} of the attention blocks computed, the video has '
            f"{best['psnr_db']:.1f} dB PSNR to the dense one and the sampling run is {speed}.</p>\n"
        )

    def tiles(self) -> str:
        best, calibration = self.best(), self.content["calibration"]
        if best is None:
            return ""
        fixed = self.rows.get("fixed-0.3")
        tiles = [
            (decibel(best["psnr_db"]), "PSNR to dense", against(fixed, best)),
            (
                times(self.dense["seconds"], best["seconds"]),
                "whole sampling run",
                seconds(best, "seconds"),
            ),
            (
                times(self.dense["attention_seconds"], best["attention_seconds"]),
                "attention alone",
                seconds(best, "attention_seconds"),
            ),
            (
                f"{calibration['observe_share']:.1%}",
                "cost of calibration",
                f"of one dense run; profile {kilobytes(self.profile_bytes())}",
            ),
        ]
        cells = "".join(
            f'<div class="tile"><b>{value}</b><span>{name}</span><small>{note}</small></div>\n'
            for value, name, note in tiles
        )
        return f'<section class="tiles">\n{cells}</section>\n'

    def profile_bytes(self) -> int:
        files = self.content["files"]
        return next((size for name, size in files.items() if name.endswith(".json")), 0)

    def troubles(self) -> str:
        items = "".join(f"<li>{escape(text)}</li>" for text in self.content["failures"])
        failed = f'<section class="failures"><h2>Failed</h2><ul>{items}</ul></section>\n'
        note = f'<p class="warning">{escape(self.warning)}</p>\n'
        return (failed if items else "") + (note if self.warning else "")

    def results(self) -> str:
        top = max((row["psnr_db"] or 0.0 for row in self.rows.values()), default=1.0) or 1.0
        slow = max(row["seconds"] for row in self.rows.values())
        body = "".join(self.result_row(row, top, slow) for row in self.rows.values())
        return (
            "<section>\n<h2>Results</h2>\n"
            "<p>Two prompts that calibration never saw; pictures and times are of the first one. "
            f"Ours compute in INT8. All runs but the last skip nothing in their first "
            f"{self.content['sampling']['watched_steps']} steps and watch them. PSNR, SSIM and "
            "flicker are against the dense run of the same prompt.</p>\n"
            '<div class="scroll"><table class="results"><thead><tr><th>Run</th>'
            "<th>Density</th>"
            "<th>PSNR</th><th>second prompt</th><th>SSIM</th><th>Flicker</th>"
            "<th>Sampling</th><th>Attention</th></tr></thead>\n"
            f"<tbody>\n{body}</tbody></table></div>\n</section>\n"
        )

    def result_row(self, row: dict, top: float, slow: float) -> str:
        cells = [
            f'<th scope="row">{escape(self.title(row["name"]))}'
            f"<small>{escape(POLICIES.get(row['policy'], row['policy']))}</small></th>",
            f"<td>{row['density']:.2f}</td>",
            bar(row["psnr_db"], top, "good", decibel(row["psnr_db"])),
            f"<td>{decibel(self.second[row['name']] and self.second[row['name']]['psnr_db'])}</td>",
            f"<td>{row['ssim']:.4f}</td>",
            f"<td>{row['flicker']:.3f}</td>",
            bar(row["seconds"], slow, "time", self.timing(row, "seconds")),
            f"<td>{self.timing(row, 'attention_seconds')}</td>",
        ]
        return f'<tr class="{row["policy"]}">{"".join(cells)}</tr>\n'

    def timing(self, row: dict, key: str) -> str:
        if row[key] is None:
            return "&ndash;"
        text = f"{row[key]:.1f} s"
        return text if row is self.dense else f"{text} <em>{times(self.dense[key], row[key])}</em>"

    def player(self) -> str:
        if not self.sparse:
            return ""
        start = self.best()["name"] if self.best() else self.sparse[0]
        options = "".join(
            f'<option value="{name}"{" selected" if name == start else ""}>'
            f"{escape(self.label(name))}, {decibel(self.rows[name]['psnr_db'])}</option>"
            for name in self.sparse
        )
        panels = "".join(
            f'<figure><canvas data-panel="{key}"></canvas><figcaption>{text}</figcaption></figure>'
            for key, text in (
                ("dense", "Dense"),
                ("sparse", '<span id="sparse-name">Sparse</span>'),
                ("difference", 'Difference &times; <output id="factor-value"></output>'),
            )
        )
        last = len(self.videos["dense"]) - 1
        return (
            '<section id="player" hidden>\n<h2>In motion</h2>\n<div class="controls">\n'
            f'<label>Run <select id="run">{options}</select></label>\n'
            '<button id="play" type="button">Play</button>\n'
            f'<label>Frame <input id="frame" type="range" min="0" max="{last}" value="0"></label>\n'
            '<label>Amplify <input id="factor" type="range" min="0" max="6" '
            f'value="{int(np.log2(self.factor))}"></label>\n</div>\n'
            f'<div class="panels">{panels}</div>\n</section>\n'
        )

    def films(self) -> str:
        reference = self.videos["dense"]
        frames, height, width = reference.shape[:3]
        films = {
            name: figures.png(figures.film(self.videos[name])) for name in ("dense", *self.sparse)
        }
        labels = {name: self.label(name) for name in self.sparse}
        return json.dumps(
            {"frames": frames, "height": height, "width": width, "films": films, "labels": labels}
        )

    def frames(self) -> str:
        reference = self.videos["dense"]
        count = len(reference)
        picked = sorted({0, count // 2, count - 1})
        head = "".join(f"<th>Frame {i + 1}</th>" for i in picked)
        cells = "".join(
            f"<td>{picture(figures.to_bytes(reference[i]), 'dense')}</td>" for i in picked
        )
        rows = [f'<tr><th scope="row">Dense</th>{cells}</tr>\n']
        for name in self.sparse:
            rows.append(self.frame_row(name, picked))
        return (
            "<section>\n<h2>Frame by frame</h2>\n<p>Each sparse frame with its difference from the "
            f"dense one below it: |sparse &minus; dense| &times; {self.factor}, black where equal, "
            "the same factor for all runs.</p>\n"
            f'<div class="scroll"><table class="frames"><thead><tr><th></th>{head}</tr></thead>\n'
            f"<tbody>\n{''.join(rows)}</tbody></table></div>\n</section>\n"
        )

    def frame_row(self, name: str, picked: list[int]) -> str:
        video, reference = self.videos[name], self.videos["dense"]
        cells = ""
        for i in picked:
            gap = figures.difference(video[i], reference[i], self.factor)
            shown = picture(figures.to_bytes(video[i]), self.label(name))
            cells += f"<td>{shown}{picture(gap, f'difference x {self.factor}')}</td>"
        row = self.rows[name]
        facts = f"{decibel(row['psnr_db'])}<br>density {row['density']:.2f}, {row['precision']}"
        side = f"{escape(self.title(name))}<small>{facts}</small>"
        return f'<tr><th scope="row">{side}</th>{cells}</tr>\n'

    def heads(self) -> str:
        if not self.views:
            return ""
        density, tile = self.maps["density"], self.maps["tile"]
        cards = "".join(self.head_card(view) for view in heads.most_telling(self.views))
        moved = sum(view.order != "FHW" for view in self.views)
        legend = picture(heads.colour_bar(), "colour scale", "scale")
        return (
            "<section>\n<h2>What reordering does to a head</h2>\n"
            f"<p>Attention by block of {tile} queries (rows) and {tile} keys (columns), rebuilt "
            f"from the profile. {moved} of {len(self.views)} heads left the model&rsquo;s own "
            f"order <code>FHW</code>. The grey blocks are skipped, {density:.0%} are computed (all "
            "of a head that stays dense); <b>retained</b> is the share of attention in the "
            "computed ones.</p>\n"
            f'<p class="legend">little {legend} much <small>(logarithmic, the same for both maps '
            "of a head)</small></p>\n"
            f'<div class="heads">{cards}</div>\n{self.all_heads()}</section>\n'
        )

    def head_card(self, head: heads.Head) -> str:
        pair = ""
        for view in (head.before, head.after):
            image = picture(heads.picture(view), f"map in order {view.order}", "map")
            caption = f"<code>{view.order}</code> retained {view.retained:.1%}"
            pair += f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
        name = f"Layer {escape(head.layer)}, head {head.number}"
        return f'<article><h3>{name}</h3><div class="pair">{pair}</div></article>\n'

    def all_heads(self) -> str:
        rows = "".join(
            f'<tr><th scope="row">{escape(head.layer)} / {head.number}</th>'
            f"<td><code>{head.order}</code></td><td>{head.before.retained:.1%}</td>"
            f"<td>{head.after.retained:.1%}</td><td>{100 * head.gain:+.1f}</td></tr>\n"
            for head in self.views
        )
        return (
            f"<details><summary>All {len(self.views)} heads</summary>\n"
            '<div class="scroll"><table><thead><tr><th>Layer / head</th><th>Order</th>'
            "<th>Retained in FHW</th><th>in its order</th><th>points</th></tr></thead>\n"
            f"<tbody>\n{rows}</tbody></table></div></details>\n"
        )

    def method(self) -> str:
        content = self.content
        sampling, calibration = content["sampling"], content["calibration"]
        equal = "equal to the last bit" if content["pass_through_equal"] else "NOT equal"
        rows = [
            ("Order of runs", "Back to back in one ComfyUI server, after a warm-up run"),
            ("Sampling", "Wall time of ComfyUI's sampler node, as told over its websocket"),
            (
                "Attention",
                "Summed by the session; for dense, a run through the node with every step dense",
            ),
            ("Dense through the node", f"Frames {equal} to those without it"),
            ("PSNR", "Decoded pixels clipped to [-1, 1], peak 2, over all frames and channels"),
            ("Flicker", "Mean |x[t+1] - 2 x[t] + x[t-1]|, divided by that of the dense video"),
            (
                "Density",
                f"Share of grid blocks computed, tile {self.maps['tile']} x {self.maps['tile']}",
            ),
            (
                "Calibration",
                f"Prompt \u201c{calibration['prompt']}\u201d, seed {calibration['seed']}: "
                f"{calibration['queries']} queries a head in one of {calibration['every_n_steps']} "
                f"steps, {calibration['seconds']:.1f} s, of which "
                f"{calibration['observe_seconds']:.2f} s watching",
            ),
            (
                "Sampler",
                f"{sampling['sampler']} / {sampling['scheduler']}, cfg {sampling['cfg']}, "
                f"shift {sampling['shift']}, {sampling['steps']} steps",
            ),
            ("Machine", ", ".join(f"{key} {value}" for key, value in content["host"].items())),
            ("Versions", ", ".join(f"{key} {value}" for key, value in content["versions"].items())),
        ]
        body = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>\n" for key, value in rows)
        links = ", ".join(
            f'<a href="{escape(name)}">{escape(name)}</a> ({kilobytes(size)})'
            for name, size in content["files"].items()
        )
        return (
            f"<section>\n<h2>How it was measured</h2>\n<dl>\n{body}<dt>Files</dt>"
            f'<dd><a href="report.json">report.json</a>, {links}</dd>\n'
            "<dt>Again</dt><dd><code>python3 run.py demo</code></dd>\n</dl>\n</section>\n"
        )


def picture(pixels: np.ndarray, alt: str, kind: str = "frame") -> str:
    height, width = pixels.shape[:2]
    return (
        f'<img class="{kind}" src="{figures.png(pixels)}" alt="{escape(alt)}" '
        f'width="{width}" height="{height}">'
    )


def bar(value: float | None, top: float, kind: str, text: str) -> str:
    width = 0.0 if value is None else 100.0 * max(0.0, value) / top
    return f'<td class="bar {kind}" style="--share:{width:.1f}%"><span>{text}</span></td>'


def decibel(value: float | None) -> str:
    return "&ndash;" if value is None else f"{value:.1f} dB"


def times(dense: float | None, value: float | None) -> str:
    return "&ndash;" if not dense or not value else f"{dense / value:.2f}&times;"


def seconds(row: dict, key: str) -> str:
    return "not measured" if row[key] is None else f"{row[key]:.1f} s"


def against(fixed: dict | None, best: dict) -> str:
    if fixed is None or fixed["psnr_db"] is None or best["psnr_db"] is None:
        return ""
    return f"{best['psnr_db'] - fixed['psnr_db']:+.1f} dB against the fixed order"


def kilobytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} KB"
