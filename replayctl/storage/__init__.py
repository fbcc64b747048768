"""The folders that a deploy publishes to, local or over ssh: how they are read, locked and changed."""
