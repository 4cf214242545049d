"""The worked example: easy-vqa's questions, a tiny base model with blind spots, and the iterations that mend them."""
