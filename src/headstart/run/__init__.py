"""What a run leaves behind and shows: folder, metrics, health, progress."""
