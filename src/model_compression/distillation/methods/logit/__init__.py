"""Methods that compare the logits of student and teacher."""
