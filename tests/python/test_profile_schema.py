"""profiles/schema.json and the loader say the same about the same files."""

import base64
import copy
import json
import zlib
from pathlib import Path

import pytest

jsonschema = pytest.importorskip("jsonschema")

PROFILES = Path(__file__).resolve().parents[2] / "profiles"
SCHEMA = json.loads((PROFILES / "schema.json").read_text(encoding="utf-8"))
BINS = {"F": [0, 1, 2], "H": [0, 1, 2, 3], "W": [-4, -1, 0, 1, 4]}


def group(seed: int) -> dict:
    codes = bytes((seed * 31 + i * 7) % 256 for i in range(3 * 4 * 5))
    return {
        "kernel": base64.b64encode(zlib.compress(codes, 9)).decode(),
        "peak": 0.03125,
        "mass": {"0.1": 0.25, "0.2": 0.5, "0.3": 0.625, "0.5": 1},
    }


def head(order: str, density: float | None, locked: bool) -> dict:
    groups = [group(1), group(2)]
    return {"order": order, "density": density, "locked": locked, "groups": groups}


PROFILE = {
    "schema": "paroattention/1",
    "model": {
        "family": "wan21",
        "fingerprint": "0123456789abcdef" * 4,
        "layers": 2,
        "heads": 2,
        "head_dim": 128,
        "patches": "",
    },
    "calibration": {
        "grids": [[3, 4, 5], [5, 4, 3]],
        "steps": 20,
        "sampler": "euler",
        "prompts": 1,
        "queries": 64,
        "date": "2026-09-30",
        "version": "0.1.0",
    },
    "timestep_groups": [
        {"sigma_max": 1, "sigma_min": 0.75},
        {"sigma_max": 0.75, "sigma_min": 0},
    ],
    "bins": BINS,
    "defaults": {"density": 0.3, "precision": "int8", "tail": True},
    "layers": [
        {"id": "block.0.0", "heads": [head("FHW", None, False), head("WHF", 0.05, True)]},
        {"id": "block.1.0", "heads": [head("HFW", 1, False), head("HWF", None, False)]},
    ],
}

MISSING = object()
HEAD = ("layers", 1, "heads", 0)
# Where, and what stands there instead.
BAD = {
    "schema": (("schema",), "paroattention/2"),
    "unknown key of bins": (("bins", "keys"), [3, 4, 5]),
    "unknown key": (("extra",), 1),
    "unknown key of a head": ((*HEAD, "extra"), 1),
    "missing key": (("defaults", "tail"), MISSING),
    "missing mass": ((*HEAD, "groups", 0, "mass", "0.2"), MISSING),
    "family empty": (("model", "family"), ""),
    "family too long": (("model", "family"), "x" * 201),
    "family with a control": (("model", "family"), "a\x1b[31m"),
    "family with a C1 control": (("model", "family"), "a\x85"),
    "family with a direction mark": (("model", "family"), "a\u202eb"),
    "family with a zero-width space": (("model", "family"), "a\u200bb"),
    "date with a line break": (("calibration", "date"), "2026\n"),
    "fingerprint in capitals": (("model", "fingerprint"), "0123456789ABCDEF" * 4),
    "fingerprint short": (("model", "fingerprint"), "0" * 63),
    "no layers": (("model", "layers"), 0),
    "too many layers": (("model", "layers"), 4097),
    "too many heads": (("model", "heads"), 4097),
    "head_dim too large": (("model", "head_dim"), 65537),
    "steps negative": (("calibration", "steps"), -1),
    "steps past 32 bits": (("calibration", "steps"), 2**31),
    "steps broken": (("calibration", "steps"), 1.5),
    "no grids": (("calibration", "grids"), []),
    "grid of two sides": (("calibration", "grids", 0), [3, 4]),
    "grid with a side of 0": (("calibration", "grids", 0), [3, 4, 0]),
    "no timestep groups": (("timestep_groups",), []),
    "three timestep groups": (("timestep_groups",), [{"sigma_max": 1, "sigma_min": 0}] * 3),
    "sigma_max too large": (("timestep_groups", 0, "sigma_max"), 1e10),
    "sigma_min negative": (("timestep_groups", 1, "sigma_min"), -1),
    "no edges": (("bins", "F"), []),
    "edges too many": (("bins", "F"), list(range(513))),
    "edge too far": (("bins", "F"), [0, 1, 2**20 + 1]),
    "edge twice": (("bins", "F"), [0, 1, 1]),
    "density too low": (("defaults", "density"), 0.04),
    "density above 1": (("defaults", "density"), 1.01),
    "density of a head": ((*HEAD, "density"), "0.3"),
    "precision": (("defaults", "precision"), "fp8"),
    "tail": (("defaults", "tail"), 1),
    "id without occurrence": (("layers", 1, "id"), "block.1"),
    "id with a line break": (("layers", 1, "id"), "block.1.0\n"),
    "id with a slash": (("layers", 1, "id"), "block/1.1.0"),
    "order": ((*HEAD, "order"), "fhw"),
    "kernel": ((*HEAD, "groups", 0, "kernel"), "eJw="[:-1]),
    "kernel with a line break": ((*HEAD, "groups", 0, "kernel"), "eJwD\nAAAAAAE="),
    "peak negative": ((*HEAD, "groups", 0, "peak"), -0.5),
    "peak above 1": ((*HEAD, "groups", 0, "peak"), 1.02),
    "mass above 1": ((*HEAD, "groups", 0, "mass", "0.5"), 1.5),
}


def damaged(path: tuple, value: object) -> dict:
    profile = copy.deepcopy(PROFILE)
    place = profile
    for key in path[:-1]:
        place = place[key]
    if value is MISSING:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return profile


def validator():
    return jsonschema.Draft202012Validator(SCHEMA)


@pytest.fixture
def core():
    return pytest.importorskip("paroattention")


def test_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_schema_takes_a_profile():
    validator().validate(PROFILE)


@pytest.mark.parametrize("case", BAD)
def test_schema_refuses(case):
    assert not validator().is_valid(damaged(*BAD[case]))


def test_loader_takes_the_same_profile(core):
    profile = core.Profile.parse(json.dumps(PROFILE))
    written = json.loads(profile.dump())
    validator().validate(written)
    assert [*written] == [*PROFILE]
    # Deflate may pack alike codes differently; what they hold is the same.
    for document in (expected := copy.deepcopy(PROFILE), written):
        for layer in document["layers"]:
            for entry in (e for h in layer["heads"] for e in h["groups"]):
                entry["kernel"] = zlib.decompress(base64.b64decode(entry["kernel"]))
    assert written == expected


@pytest.mark.parametrize("case", BAD)
def test_loader_refuses(case, core):
    with pytest.raises(core.Error):
        core.Profile.parse(json.dumps(damaged(*BAD[case])))


@pytest.mark.parametrize("ascii_only", [True, False])
def test_text_of_other_alphabets(core, ascii_only):
    text = 'größe "视频" \\ \U0001f3ac'
    profile = damaged(("calibration", "sampler"), text)
    validator().validate(profile)
    read = core.Profile.parse(json.dumps(profile, ensure_ascii=ascii_only))
    assert read.calibration.sampler == text
    assert json.loads(read.dump())["calibration"]["sampler"] == text


def test_shipped_profiles(core):
    for path in sorted(PROFILES.glob("*.json")):
        if path.name == "schema.json":
            continue
        validator().validate(json.loads(path.read_text(encoding="utf-8")))
        core.Profile.load(path)
