"""Engines that answer prompts; see `reasoning_ext.engines.base` for what they share, `opening` for how one is opened."""
