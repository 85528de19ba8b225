"""Ways to make a video: one file is one engine, light to import, heavy in `load`."""
