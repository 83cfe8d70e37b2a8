"""The training loop and what it needs: step, optimizer, checkpoints, time budget."""
