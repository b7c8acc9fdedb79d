"""What was saved when: daily sums of what happened, and reports of them."""
