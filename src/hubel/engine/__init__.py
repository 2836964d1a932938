"""The mathematics of the layers: forward, backward and cost of each op. Knows no model."""
