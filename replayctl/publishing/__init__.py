"""What a deploy changes and how it is proven, undone, listed and removed."""
