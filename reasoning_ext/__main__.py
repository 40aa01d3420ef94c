"""`python -m reasoning_ext`, the same as `reasoning-ext`; also what `accelerate launch -m reasoning_ext` runs."""

from reasoning_ext.cli import main

main()
