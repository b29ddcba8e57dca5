"""What a compilation ends with: each engine, its size, and where the bundle runs."""

from __future__ import annotations

from glesam_runtime.manifest import STAGES, Manifest


def engine_table(manifest: Manifest) -> str:
    """A line an engine, and what they need to run."""
    build = manifest.target.build
    assert build is not None, "an engine bundle has one"
    lines = [f"{'stage':<10} {'precision':<10} {'megabytes':>10}  {'profile'}"]
    for stage in STAGES:
        spec = manifest.stages[stage]
        profile = " ".join(f"{axis}={sizes}" for axis, sizes in (spec.profile or {}).items())
        size = spec.graph.bytes / 1e6
        lines.append(f"{stage:<10} {spec.precision:<10} {size:>10.1f}  {profile or 'fixed'}")
    lines.append(
        f"for {manifest.target.engine} {build.version} on {build.system}, compute capability "
        f"{', '.join(build.compute_capabilities)}"
    )
    lines.append(f"precision seen in the {build.precision_seen_in}")
    return "\n".join(lines)
