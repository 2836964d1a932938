"""From a plan and batches to trained weights: steps, schedules, precision. Writes nothing."""
