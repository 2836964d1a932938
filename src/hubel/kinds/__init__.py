"""What differs from task to task in putting a training together: one file per task."""
