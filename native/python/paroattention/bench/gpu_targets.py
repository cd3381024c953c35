"""What `bench attention` wants of a GPU's rows: limits on one H100, and how far each was met."""

from __future__ import annotations

# Milliseconds of a whole int8 call without tail, by total density.
DENSITIES = (1.0, 0.5, 0.3, 0.2, 0.1)
MILLISECONDS = {
    "wan1.3b-480p": (6.6, 3.4, 2.1, 1.5, 0.95),
    "cogvideox-5b": (12.5, 6.0, 3.7, 2.6, 1.7),
    "wan14b-720p": (31, 16, 9.5, 6.4, 3.5),
    "flux-1024": (0.43, 0.33, 0.25, 0.22, 0.2),
}
TAIL, ORDER = 0.12, 0.01  # what they may add to a call, at densities .2 and .3
PORTABLE = {1.0: ("kitchen-int8", 0.8), 0.3: ("kitchen-sol-topk", 0.5)}


def _near(rows, density, **wanted):
    """Rows of a total density that have the wanted values."""
    return [
        row
        for row in rows
        if abs(row["density_total"] - density) < 0.02
        and all(row.get(key) == value for key, value in wanted.items())
    ]


def _fastest(rows):
    return min(rows, key=lambda row: row["ms"], default=None)


def _verdict(shape, what, value, limit):
    return {
        "shape": shape,
        "what": what,
        "value": round(value, 4),
        "limit": limit,
        "holds": value <= limit,
    }


def _same_but(row, rows, **other):
    """The row that differs from `row` in `other` alone."""
    keys = ("path", "precision", "tile", "tail", "order")
    wanted = {**{key: row.get(key) for key in keys}, **other}
    return _fastest(_near(rows, row["density_total"], name="paro", **wanted))


def verdicts(rows: list[dict]) -> list[dict]:
    """One entry {shape, what, value, limit, holds} for each limit that the rows can speak of."""
    found = []
    for shape in dict.fromkeys(row["shape"] for row in rows):
        mine = [row for row in rows if row["shape"] == shape]
        for density, limit in zip(DENSITIES, MILLISECONDS.get(shape, ()), strict=False):
            best = _fastest(_near(mine, density, name="paro", precision="int8", tail=False))
            if best:
                what = f"ms at {density}, {best['path']} {best.get('tile', '')}"
                found.append(_verdict(shape, what, best["ms"], limit))
        found += _extras(shape, mine)
        if shape == "wan1.3b-480p":
            found += _portable(shape, mine)
    return found


def _extras(shape, rows):
    """Tail against none and an order against the identity, on the tile that is fastest."""
    for what, density, other, limit in (
        ("tail adds", 0.2, {"tail": True}, TAIL),
        ("order adds", 0.3, {"order": "FHW"}, ORDER),
    ):
        wanted = {"name": "paro", "precision": "int8", "tail": False, "order": "HWF"}
        base = _fastest(_near(rows, density, **wanted))
        changed = _same_but(base, rows, **other) if base else None
        if changed is None:
            continue
        slow, fast = (changed, base) if what == "tail adds" else (base, changed)
        yield _verdict(shape, f"{what} at {density}", slow["ms"] / fast["ms"] - 1, limit)


def _portable(shape, rows):
    for density, (peer, limit) in PORTABLE.items():
        ours = _fastest(
            _near(rows, density, name="paro", path="portable", precision="int8", tail=False)
        )
        theirs = _fastest(_near(rows, density, name=peer))
        if ours and theirs:
            what = f"portable to {peer} at {density}"
            yield _verdict(shape, what, ours["ms"] / theirs["ms"], limit)


def show(entries: list[dict]) -> None:
    for entry in entries:
        print(
            f"wants {entry['shape']:13} {entry['what']:42} {entry['value']:9.3f}"
            f" at most {entry['limit']:<5} {'ok' if entry['holds'] else 'MISSED'}"
        )
