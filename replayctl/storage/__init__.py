"""The folders that a deploy publishes to, here or behind ssh: how they are read, locked and changed."""
