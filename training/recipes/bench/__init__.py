"""What every method does to the embedded base: before → after on held-out questions, and what it costs."""
