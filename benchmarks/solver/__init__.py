"""How fast layers are pruned by optimal brain surgery, beside the published column loop."""
