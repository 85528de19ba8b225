"""Video from a model of pictures, without training: frames that look at an anchor, and noise that moves.

The method is that of Text2Video-Zero (Khachatryan et al. 2023), on this project's denoisers and samplers. Every file is
pure functions: `motion` moves noise, `attention` lets frames look at each other, `loop` puts the two together,
`smoothing` keeps backgrounds still.
"""
