"""The workshop: the only folder whose files import torch at the top. Models, training, samplers."""
