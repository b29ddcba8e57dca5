"""`python -m glesam_runtime` is glesam-run."""

from glesam_runtime.cli import main

if __name__ == "__main__":
    main()
