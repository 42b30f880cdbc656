"""Step 10 of the flow: what a person or a program reads after a scan. No arithmetic: every number comes from the result."""
