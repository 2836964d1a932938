"""Nets: plain `torch.nn` modules, one file per family, one table of names (`names.py`)."""
