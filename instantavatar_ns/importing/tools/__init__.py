"""One module for each tool whose result files are read."""
