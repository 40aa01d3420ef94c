"""Engines that answer prompts; see `base` for what they share, `opening` for how one is opened."""
