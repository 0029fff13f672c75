"""The bytes on disk: writer and reader of each component in one file."""
