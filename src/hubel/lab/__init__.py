"""Experiments that put the field's claims to the test, each with its picture."""
