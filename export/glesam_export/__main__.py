"""`python -m glesam_export` is `glesam-export`."""

from glesam_export.cli import main

main()
