"""Learning: batches as a function of (seed, step), averages of weights, one loop per kind of model, recipes."""
