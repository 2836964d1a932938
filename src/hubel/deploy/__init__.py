"""Trained nets in use: files in, predictions out."""
