"""Generate the JSON Schemas in this folder from the types that read and write the JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from glesam_runtime import manifest_file, results

HERE = Path(__file__).parent


def schemas() -> dict[str, dict[str, Any]]:
    """Return each schema by its file name."""
    return {
        "manifest.schema.json": manifest_file.json_schema(),
        "prompts.schema.json": results.prompts_schema(),
        "results.schema.json": results.results_schema(),
    }


def main() -> None:
    """Write the schemas."""
    for name, schema in schemas().items():
        (HERE / name).write_text(json.dumps(schema, indent=2) + "\n", encoding="utf-8")
        print(f"docs/{name}")


if __name__ == "__main__":
    main()
