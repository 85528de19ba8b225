"""Clips of a world on disk, for training elsewhere: tar shards in the WebDataset layout, with a manifest that proves
them whole.

    dataset.write("circle", 100_000, "circles", split="train")
    for sample in dataset.load("circles"):
        sample.frames, sample.caption, sample.attributes

A clip is two files of a shard, `000000000.npz` and `000000000.json`. The npz holds `frames`, or, of a world that draws
in at most 256 colours, an `index` (t, h, w) and a `palette`: the frames, bit by bit, are `palette[index]`.

Every clip is a pure function of (seed, index), every shard of npz files of its plan: the same command writes the same
bytes (mp4 files depend on the encoder and on the number of processors), in any
order, in any number of processes. While a data set is being written its folder holds `manifest.partial.json`, the list
of the shards that are finished; `manifest.json` comes last. What was interrupted is therefore continued by writing it
again.
"""

from kinetograph.dataset.plan import OnProgress, Plan, ignore
from kinetograph.dataset.reading import Dataset, Sample, load
from kinetograph.dataset.writing import write

__all__ = ["Dataset", "OnProgress", "Plan", "Sample", "ignore", "load", "write"]
