"""Make `python -m glesam_training` and `accelerate launch -m glesam_training` run glesam-train."""

from glesam_training.cli import main

main()
