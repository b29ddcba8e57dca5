"""Lets `accelerate launch -m glesam_training` and `python -m glesam_training` train."""

from glesam_training.cli import main

main()
