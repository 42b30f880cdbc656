"""Step 7 of the flow: numbers about groups, one analysis per file."""
