"""Weights that come from elsewhere: read safely, named as ours, put into a net."""
