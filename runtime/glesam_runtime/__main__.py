"""Run glesam-run with `python -m glesam_runtime`."""

from glesam_runtime.cli import main

if __name__ == "__main__":
    main()
