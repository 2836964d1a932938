"""What segmentation is made of: losses, sums, boundaries, objects, weight maps, pictures."""
