"""Methods that remove whole structures: channels, heads, neurons and whatever is coupled to them."""
