"""glesam-bench: a bundle's speed and memory, beside what a user would run instead."""
