"""Step 8 of the flow: the trigger on a plate. What a group's inputs share is put on other inputs, and the model is asked."""
