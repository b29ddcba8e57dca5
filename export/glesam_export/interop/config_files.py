"""Writes the file that a tool reads beside the graphs, and a page that says how to start it."""

from __future__ import annotations

import json
from pathlib import Path

from glesam_export.interop.tools import Interface, ToolName
from glesam_runtime.bundle import Bundle, sha256_of

_LABELME = '''"""Start labelme with this GleSAM model in place of {shown!r}.

Run: python {file} [labelme's arguments]
"""

import hashlib
import pathlib
import sys

import osam

FOLDER = pathlib.Path(__file__).resolve().parent
FILES = {files}


class LocalFile(osam.types.Blob):
    """A file beside this one. osam would download it otherwise."""

    @property
    def path(self):
        return str(FOLDER / self.url)

    def pull(self, progress=None, cancel=None, timeout=30):
        found = hashlib.sha256(pathlib.Path(self.path).read_bytes()).hexdigest()
        if "sha256:" + found != self.hash:
            raise RuntimeError(f"{{self.path}}: altered; export it again")

    def remove(self):
        raise RuntimeError(f"{{self.path}}: not in osam's cache; remove it by hand")


def register():
    """Give the files to the class of osam that labelme calls {name}."""
    model = osam.apis.get_model_type_by_name({name!r})
    model._blobs = {{stage: LocalFile(*file) for stage, file in FILES.items()}}
    return model


if __name__ == "__main__":
    register()
    from labelme.__main__ import main

    sys.exit(main())
'''
_LABELME_MODELS = {
    "sam": ("sam:100m", "Sam (speed)"),
    "sam2": ("sam2:latest", "Sam2 (balanced)"),
}
LABELME_LAUNCHER = "labelme_glesam.py"
ANYLABELING, X_ANYLABELING = "anylabeling.yaml", "x-anylabeling.yaml"

_START = {
    "anylabeling": "in AnyLabeling choose Brain, then Load Custom Model, and select "
    f"{ANYLABELING}; in X-AnyLabeling select {X_ANYLABELING}",
    "labelme": f"python {LABELME_LAUNCHER}, and choose the model {{shown}}",
    "samexporter": "python -m samexporter.inference --sam_variant {family} --encoder_model "
    "encoder.onnx --decoder_model decoder.onnx --image IMAGE --prompt prompt.json --output OUT",
    "rembg": "REMBG_HOME=$PWD rembg i -m sam -x "
    '\'{{"sam_prompt": [{{"type": "point", "data": [X, Y], "label": 1}}]}}\' IMAGE OUT.png',
    "meta": "pass SamPredictor's resized image to encoder.onnx; decoder.onnx has the interface of "
    "segment_anything's ONNX example",
}


def write_config(bundle: Bundle, folder: Path, tool: ToolName, interface: Interface) -> str:
    """Write the tool's own files into `folder`, and return how to start the tool from there."""
    family = bundle.manifest.model.family
    model, shown = _LABELME_MODELS[family]
    if tool == "anylabeling":
        _write_anylabeling(bundle, folder, interface)
    elif tool == "labelme":
        files = {
            stage: (form.file, f"sha256:{sha256_of(folder / form.file)}")
            for stage, form in (("encoder", interface.encoder), ("decoder", interface.decoder))
        }
        spelled = json.dumps(files, indent=4)
        text = _LABELME.format(file=LABELME_LAUNCHER, shown=shown, files=spelled, name=model)
        (folder / LABELME_LAUNCHER).write_text(text)
    elif tool == "samexporter":
        prompt = [{"type": "point", "data": [100, 100], "label": 1}]
        (folder / "prompt.json").write_text(json.dumps(prompt, indent=2) + "\n")
    return _START[tool].format(family=family, shown=repr(shown))


def _write_anylabeling(bundle: Bundle, folder: Path, interface: Interface) -> None:
    """Write one configuration for AnyLabeling and one for X-AnyLabeling, which have two types."""
    model = bundle.manifest.model
    square = interface.encoder.square or bundle.manifest.preprocessing.image_size
    for name, kind in (
        (ANYLABELING, "segment_anything"),
        (X_ANYLABELING, "segment_anything_2" if model.family == "sam2" else "segment_anything"),
    ):
        lines = {
            "type": kind,
            "name": f"glesam-{model.preset}-{bundle.sha256[:12]}",
            "provider": "GleSAM",
            "display_name": f"GleSAM ({model.preset})",
            "encoder_model_path": interface.encoder.file,
            "decoder_model_path": interface.decoder.file,
            "input_size": square,
            "max_width": square,
            "max_height": square,
        }
        # JSON's strings and numbers are those of YAML.
        text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in lines.items())
        (folder / name).write_text(text)
