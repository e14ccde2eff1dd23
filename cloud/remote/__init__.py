"""Scoring by asking a model server, behind the same port as scoring in the process."""
