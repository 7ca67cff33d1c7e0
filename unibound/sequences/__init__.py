"""Values that come one after another: bits that are predicted, states that recur, trajectories of noise."""
