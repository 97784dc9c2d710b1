"""What the training views never saw: which part of the person that is, and geometry and colour for it."""
