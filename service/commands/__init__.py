"""The commands of `winnow`, one file each; `service.cli` puts them together.

Together with `service.cli` they are the composition root, the one place that may import anything. Heavy
imports stand inside the functions, so that `winnow --help` answers at once.
"""
