"""What makes models of any age and origin fit: sorted, with all weights in one place, in the opset that is needed."""
