"""The model contract that edge and cloud share: bundle, features, scorer, alert policy."""
