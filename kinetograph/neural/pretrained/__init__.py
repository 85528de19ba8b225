"""Running pretrained pipelines of diffusers: loading, stepping, memory, caches, adapters, and system A's own recipe."""
