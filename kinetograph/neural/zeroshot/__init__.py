"""Video from models of pictures, without training: motion, attention across frames, smoothing."""
