"""What tensors mean: target encoding, loss, decoding, metrics, drawing; one file per task."""
