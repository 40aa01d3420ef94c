"""What stage `sample` is made of: which completions are drawn, how they are kept, and what is chosen of them."""
