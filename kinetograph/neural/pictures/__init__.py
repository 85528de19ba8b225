"""Models of pictures that others have trained, taken apart: what reads the prompt, what denoises, what decodes.

`words` is what a network is told, `families` the kinds of models that are known, `folder` how one is loaded.
"""
