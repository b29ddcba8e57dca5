"""Write the seed inputs of the fuzzers. Usage: seeds.py OUT; each fuzzer gets a folder in OUT."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from glesam_runtime.bundle import builtin_bundle_path


def _safetensors(header: object, data: bytes) -> bytes:
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def _random_calls(seed: int) -> bytes:
    """Return bytes of which many are small, because small ones choose the usual arguments."""
    rng = random.Random(seed)
    return bytes(rng.randrange(rng.choice((256, 16))) for _ in range(rng.choice((64, 300, 1500))))


def main(out: Path) -> None:
    """Write the seeds of every fuzzer into a folder of its own."""
    manifest = json.loads((builtin_bundle_path() / "manifest.json").read_bytes())
    compact = json.dumps(manifest, separators=(",", ":")).encode()
    stages = json.dumps({**manifest, "parity": None}, separators=(",", ":")).encode()
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    pair = {"a": entry, "b": {"dtype": "U8", "shape": [3, 1], "data_offsets": [8, 11]}}
    # A TensorProto with external data, and the location of the data.
    tensor = b"\x70\x01\x6a\x10\x0a\x08location\x12\x04w.da"
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    seeds = {
        "onnx": {"external": b"\x08\x09\x3a" + bytes([len(graph)]) + graph, "empty": b"\x3a\x00"},
        "manifest": {"whole": compact, "without_parity": stages, "header": compact[:300]},
        "safetensors": {
            "one": _safetensors({"a": entry}, bytes(8)),
            "two": _safetensors({**pair, "__metadata__": {"k": "v"}}, bytes(11)),
            "none": _safetensors({}, b""),
        },
        "calls": {f"random-{seed}": _random_calls(seed) for seed in range(40)},
    }
    for reader, files in seeds.items():
        folder = out / reader
        folder.mkdir(parents=True, exist_ok=True)
        for name, raw in files.items():
            (folder / name).write_bytes(raw)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
