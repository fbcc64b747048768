"""The commands, one module per subject: options in, one call of the layer below, a Result out."""
