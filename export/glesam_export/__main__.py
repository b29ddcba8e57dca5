"""Runs `glesam-export` as `python -m glesam_export`."""

from glesam_export.cli import main

main()
