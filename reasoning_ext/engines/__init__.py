"""Engines that answer prompts; see `reasoning_ext.generation` for what they share, `opening` for how one is opened."""
