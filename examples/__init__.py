"""The examples, as a wheel carries them: files to read and to copy, found by `importlib.resources.files`."""
