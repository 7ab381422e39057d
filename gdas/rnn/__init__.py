"""The search space of recurrent cells, and the language models around them."""
