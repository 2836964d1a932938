"""The run folder: what a training leaves behind, and how to take it up again."""
