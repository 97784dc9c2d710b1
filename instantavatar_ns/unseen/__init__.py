"""Parts of the person that the training views never saw: finding them, and geometry and colour for them."""
